"""What tables, pages and sentences call the students of a summary."""

from __future__ import annotations

from orchestrator.records.student_figures import Control, Finalist
from orchestrator.records.summary import Summary


def named_controls(summary: Summary) -> list[tuple[str, Control]]:
    """The controls by name, each once, with those of other recipes after the one that was better.

    A finalist that is the control of another has its own name, and is left out.
    """
    known = {finalist.trials for finalist in summary.finalists}
    chosen = {f.control.trials: f.control for f in summary.finalists if f.control.trials not in known}
    known |= set(chosen)
    named: list[tuple[str, Control]] = []
    for number, (trials, control) in enumerate(chosen.items(), start=1):
        name = f"control {number}" if len(chosen) > 1 else "control"
        named += [(name, control), *_other_recipes(summary, trials, name, known)]
    for number, finalist in enumerate(summary.finalists, start=1):
        named += _other_recipes(summary, finalist.trials, f"finalist {number}", known)
    names = {control.trials: name for name, control in named}
    return [*named, *_smoothed(summary, names, known), *_of_equal_compute(summary, names, known)]


def _smoothed(
    summary: Summary, names: dict[tuple[str, ...], str], known: set[tuple[str, ...]]
) -> list[tuple[str, Control]]:
    """Controls with label smoothing, named after the control that they stand beside."""
    named: list[tuple[str, Control]] = []
    names = {**{finalist.trials: name for name, finalist in named_finalists(summary)}, **names}
    for finalist in summary.finalists:
        if finalist.smoothed is not None and finalist.smoothed.control.trials not in known:
            known.add(finalist.smoothed.control.trials)
            named.append((f"{names[finalist.control.trials]}, label smoothing", finalist.smoothed.control))
    return named


def _of_equal_compute(
    summary: Summary, names: dict[tuple[str, ...], str], known: set[tuple[str, ...]]
) -> list[tuple[str, Control]]:
    """Controls that compute as much as a finalist, named after the control of as many epochs."""
    named: list[tuple[str, Control]] = []
    own = dict(named_finalists(summary))
    names = {**names, **{finalist.trials: name for name, finalist in own.items()}}
    for finalist in summary.finalists:
        if finalist.same_compute is not None and finalist.same_compute.control.trials not in known:
            control = finalist.same_compute.control
            known.add(control.trials)
            name = f"{names[finalist.control.trials]}, same compute ({control.epochs} epochs)"
            named.append((name, control))
    return named


def named_finalists(summary: Summary) -> list[tuple[str, Finalist]]:
    """The finalists by name, in the order of the summary."""
    return [(f"finalist {number}", each) for number, each in enumerate(summary.finalists, start=1)]


def _other_recipes(
    summary: Summary, better: tuple[str, ...], name: str, known: set[tuple[str, ...]]
) -> list[tuple[str, Control]]:
    """Controls that stand beside a better one of their setting; noted in `known`, which are left out."""
    named: list[tuple[str, Control]] = []
    for finalist in summary.finalists:
        for other in finalist.beside if finalist.control.trials == better else ():
            if other.control.trials not in known:
                known.add(other.control.trials)
                named.append((f"{name}, recipe {len(named) + 2}", other.control))
    return named


def student_names(summary: Summary) -> dict[tuple[str, ...], str]:
    """The name of each control and finalist, by its trials."""
    names = {control.trials: name for name, control in named_controls(summary)}
    return names | {finalist.trials: name for name, finalist in named_finalists(summary)}
