"""The trials of a ledger: ranked for people, and as one flat table for pandas and spreadsheets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.terminal.formatting import clock_time, percent, short_parameters
from trainables.config import Role
from trainables.config.metrics import RankBy
from trainables.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Final = ("rank", "trial", "objective", "{label}, %", "status", "epochs", "time", "hyper-parameters")
TIES: Final = "Trials with the same {label} have ranks in the order in which they started."


def ranked(records: Sequence[TrialRecord]) -> list[tuple[int | None, TrialRecord]]:
    """Trials with their ranks from 1 on, the best first; those without a figure last, without a rank.

    The figure is that of the trial's best epoch, by what its search ranks by. Of equal ones that comes first
    which started first.
    """
    scored = [record for record in records if record.score is not None]
    order = sorted(scored, key=lambda record: -(record.score or 0.0))
    rest = [record for record in records if record.score is None]
    return [*enumerate(order, start=1), *((None, record) for record in rest)]


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
    """Whether two trials have the same figure, so that their order needs a word."""
    scores = [record.score for record in records if record.score is not None]
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
        ConfigError: the file's name ends otherwise, or it cannot be written.
    """
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise ConfigError(f"cannot tell how to write {path}: let its name end in {' or '.join(WRITERS)}")
    frame = trial_frame(ledger)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(frame, path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error}") from error
    return len(frame)


def _as_parquet(frame: pd.DataFrame, path: Path) -> None:
    frame.to_parquet(path, index=False)


def _as_csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, index=False)


WRITERS: Final[Mapping[str, Callable[[pd.DataFrame, Path], None]]] = MappingProxyType(
    {".parquet": _as_parquet, ".csv": _as_csv}
)
