"""The trials of a ledger: ranked for people, and as one flat table for pandas and spreadsheets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.selection import rank_trials
from orchestrator.terminal.formatting import clock_time, percent, short_parameters
from trainables.config import Role
from trainables.config.metrics import RankBy
from trainables.errors import ConfigError
from trainables.local_files import replacing

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Final = ("rank", "trial", "objective", "{label}, %", "status", "epochs", "time", "hyper-parameters")
TIES: Final = "Of trials with the same {label} the one with the lower NLL comes first, then by name."


def ranked(records: Sequence[TrialRecord]) -> list[tuple[int | None, TrialRecord]]:
    """Trials as a run ranks them, with ranks from 1 on; below them, without a rank, those not completed.

    The order among the completed is `rank_trials`'; that of the others is by their best figure so far.
    """
    completed = rank_trials(records)
    known = {record.trial for record in completed}
    others = [record for record in records if record.trial not in known]
    others.sort(key=lambda record: -math.inf if record.score is None else record.score, reverse=True)
    return [*enumerate(completed, start=1), *((None, record) for record in others)]


def searches_of(ledger: Ledger) -> list[str]:
    """The fingerprints of the searches of a ledger, the latest last."""
    return list(dict.fromkeys(record.search for record in ledger.trials(role=Role.SEARCH)))


def ranking_table(
    records: Sequence[TrialRecord], top: int | None = None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for a terminal, the best first; all of them, or as many as `top` says."""
    by = records[0].rank_by if records else RankBy.ACCURACY
    columns = tuple(column.format(label=by.label) for column in COLUMNS)
    return columns, [_row(rank, record) for rank, record in ranked(records)[:top]]


def has_ties(records: Sequence[TrialRecord]) -> bool:
    """Whether two ranked trials have the same figure, so that their order needs a word."""
    scores = [record.score for record in rank_trials(records)]
    return len(set(scores)) < len(scores)


def _row(rank: int | None, record: TrialRecord) -> tuple[str, ...]:
    status = record.status if record.reason is None else f"{record.status}: {record.reason}"
    searched = {name: value for name, value in record.parameters.items() if name != "objective"}
    return (
        "" if rank is None else str(rank),
        record.trial,
        record.objective,
        "" if record.score is None else percent(record.score),
        status,
        str(record.epochs),
        clock_time(record.seconds) if record.seconds else "",
        short_parameters(searched),
    )


def plain_trials(ledger: Ledger) -> list[dict[str, Any]]:
    """All trials of a ledger, flat: finalists and controls too, in the order in which they started.

    A searched value is `params.NAME`, a metric of the best epoch `metrics.NAME`, one of the last epoch
    `last.NAME`. Accuracies are fractions, times milliseconds since 1970; `rank` is that within a search.
    """
    ranks = {
        record.trial: rank
        for search in searches_of(ledger)
        for rank, record in ranked(ledger.trials(search=search, role=Role.SEARCH))
    }
    return [_plain(record, ranks.get(record.trial)) for record in ledger.trials()]


def _plain(record: TrialRecord, rank: int | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "trial": record.trial,
        "role": str(record.role),
        "search": record.search,
        "rank": rank,
        "ranked_by": record.rank_by.metric,
        "score": record.score,
        "objective": record.objective,
        "status": record.status,
        "reason": record.reason,
        "repeats": record.repeats,
        "epochs": record.epochs,
        "best_epoch": record.best_epoch,
        "seconds": record.seconds or None,
        "started_ms": record.started_ms,
        "ended_ms": record.ended_ms,
        "precision": record.precision,
        "checkpoint": record.checkpoint,
    }
    facts |= {f"params.{name}": value for name, value in record.parameters.items()}
    facts |= {f"metrics.{name}": value for name, value in record.best.items()}
    return facts | {f"last.{name}": value for name, value in record.final.items()}


def trial_frame(ledger: Ledger) -> pd.DataFrame:
    """`plain_trials` as a table; what a trial has not is missing, and a column of unlike values is text."""
    import pandas as pd

    frame = pd.DataFrame(plain_trials(ledger))
    for name in frame.columns:
        kinds = {type(value) for value in frame[name].dropna()}
        if len(kinds) > 1 and not kinds <= {int, float}:
            frame[name] = [None if _is_missing(value) else str(value) for value in frame[name]]
    return frame.convert_dtypes()


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def write_trials(ledger: Ledger, path: Path) -> int:
    """Write all trials of a ledger as `.parquet` or `.csv`; how many.

    Raises:
        ConfigError: the file's name ends otherwise, or it cannot be written; what was there is intact.
    """
    from trainables.cache.tools.export_table import require_suffix

    is_csv, frame = require_suffix(path) == ".csv", trial_frame(ledger)
    try:
        with replacing(path) as beside:
            (frame.to_csv if is_csv else frame.to_parquet)(beside, index=False)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error}; what was there is intact") from error
    return len(frame)
