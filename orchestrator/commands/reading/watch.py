"""`stillhouse watch`: the live table of a run that another terminal or a Ray job holds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator.commands.options import Experiment, Json, Out, Trials

if TYPE_CHECKING:
    from orchestrator.records.following.ledger_reader import LedgerReader
    from orchestrator.search.followed_run import FollowedRun
    from orchestrator.terminal.console import Console

LOOK_EVERY_S: Final = 1.0
QUIET_S: Final = 120.0
"""A run that writes nothing for so long, and that nobody here holds, is told as such."""


def watch(
    experiment: Experiment,
    out: Out = None,
    trials: Trials = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    json_only: Json = False,
) -> None:
    """Show how far a run is that another terminal, or a Ray job, holds; ends when the run ends."""
    from orchestrator.config.loading import load_experiment
    from orchestrator.config.overrides import Overrides
    from orchestrator.config.paths import out_folder
    from orchestrator.records.following.ledger_reader import LedgerReader
    from orchestrator.search.followed_run import FollowedRun
    from orchestrator.terminal.console import Console
    from trainables.errors import ConfigError

    loaded = load_experiment(experiment, overrides=Overrides(out=out, trials=trials), check_paths=False)
    folder = out_folder(loaded)
    reader = LedgerReader(folder / "ledger.jsonl")
    if not reader.path.exists():
        raise ConfigError(f"{folder} holds no run of {loaded.config.name}; start it first, or give its --out")
    console, run = Console(json_only=json_only), FollowedRun(trials=loaded.config.budget.trials)
    try:
        ended = follow(console, run, reader, once=once)
    except KeyboardInterrupt:  # leaving is no error: the run goes on without whoever watched it
        ended = ""
    if ended:
        console.info(f"{ended}; see: stillhouse show {experiment}")
    console.result({"experiment": loaded.config.name, **run.plain()})


def follow(console: Console, run: FollowedRun, reader: LedgerReader, *, once: bool) -> str:
    """Show a run until it ends; how it ended, in words. With `once`, look once; empty where it goes on.

    Raises:
        StillhouseError: its ledger cannot be read.
    """
    from orchestrator.records.chain import mark_in
    from orchestrator.records.following.run_lock import is_held

    folder, was_held = reader.path.parent, False
    run.add(reader.read())
    with console.live(run) as show:
        while True:
            held = is_held(folder)  # looked at first: what a run wrote last is there when it lets go
            run.add(reader.read())
            run.note = "" if held else _silence(run)
            show()
            if not held:
                mark = mark_in(folder / "summary.json")
                is_over = run.is_finished or (mark is not None and mark.events == reader.count)
                if is_over or run.stopped is not None or was_held:
                    return _ended(run, is_over=is_over)
            if once:
                return ""
            was_held = held
            time.sleep(LOOK_EVERY_S)


def _ended(run: FollowedRun, *, is_over: bool) -> str:
    if is_over:
        return "the run is over"
    if run.stopped is not None:
        return f"the run ended before its end: {run.stopped}"
    return "the run ended without a word, as one does that was killed; `stillhouse run` goes on with it"


def _silence(run: FollowedRun) -> str:
    from orchestrator.terminal.formatting import duration

    quiet_s = 0.0 if run.last_event_s is None else time.time() - run.last_event_s
    if quiet_s < QUIET_S or run.is_finished or run.stopped is not None:
        return ""
    return f"nothing was written for {duration(quiet_s)}, and no run of this machine holds the folder"
