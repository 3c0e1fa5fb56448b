"""Cleaning this node's copies of caches; no file of a cache itself is touched."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from orchestrator.terminal.console import Console
from trainables.cache.format.disk_space import bytes_in_words
from trainables.cache.node.copies import DAY_S, NodeCopy, clean_scratch, scratch_root

GB: Final = 1e9


def clean_node(
    console: Console,
    *,
    unused_days: float,
    keep_gb: float | None,
    dry_run: bool,
    root: Path | None = None,
) -> dict[str, Any]:
    """Remove copies that were not used for so many days, and the oldest beyond so many gigabytes.

    Those that a process reads are left. Whoever needs a copy again makes it again, from the cache.
    """
    keep_bytes = None if keep_gb is None else round(keep_gb * GB)
    cleaned = clean_scratch(root, unused_days=unused_days, keep_bytes=keep_bytes, dry_run=dry_run)
    verb = "would be removed" if dry_run else "removed"
    rows = [_row(copy, verb) for copy in cleaned.removed]
    rows += [_row(copy, "in use" if copy.in_use else "kept") for copy in cleaned.left]
    folder = root or scratch_root()
    if rows:
        console.table(f"copies in {folder}", ("manifest", "size", "last used", ""), rows)
    console.info(
        f"{len(cleaned.removed)} of {len(rows)} copies {verb}, {bytes_in_words(cleaned.freed_bytes)}"
    )
    return {"folder": str(folder), "dry_run": dry_run, "freed_bytes": cleaned.freed_bytes, **cleaned.plain()}


def _row(copy: NodeCopy, state: str) -> tuple[str, ...]:
    days = (time.time() - copy.used_at) / DAY_S
    return copy.manifest[:16], bytes_in_words(copy.bytes), f"{days:.1f} days ago", state
