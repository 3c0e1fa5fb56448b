"""What the report tells of the teacher and of the cache of its answers."""

from __future__ import annotations

from orchestrator.records.summary import Summary
from orchestrator.records.tables.students_table import latency_text, member_facts
from orchestrator.terminal.formatting import UNKNOWN, percent


def teacher_facts(summary: Summary) -> dict[str, str]:
    """Names and figures, in their order; nothing where no teacher is known."""
    teacher, cache = summary.teacher, summary.cache
    if teacher is None:
        return {}
    facts = member_facts(teacher) | {
        "parameters": UNKNOWN if teacher.params is None else f"{teacher.params:,}",
        "selection accuracy, %": percent(teacher.selection_accuracy),
        "test accuracy, %": percent(teacher.test_accuracy),
    }
    if teacher.latency_ms is not None:
        facts["latency, ms"] = latency_text(teacher.latency_ms, teacher.latency_p95_ms)
    if cache is None:
        return facts | {"cache": "none; no objective asked for the teacher's logits"}
    size = f"{cache.rows:,}", f"{cache.bytes / 2**20:,.1f} MiB"
    kept = {"cache": cache.uri, "fingerprint": cache.fingerprint}
    return facts | kept | dict(zip(("rows", "size"), size, strict=True))
