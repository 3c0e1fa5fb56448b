"""Why this student is the champion, in sentences."""

from __future__ import annotations

from orchestrator.config.picking.figures import ACCURACY
from orchestrator.records.picking.picked import told
from orchestrator.records.selection import rank_trials
from orchestrator.records.student_figures import Finalist
from orchestrator.records.summary import Summary, champions_group
from orchestrator.records.tables.students_table import control_name_of
from orchestrator.reports.run_facts import RunFacts
from orchestrator.terminal.formatting import counted, percent, short_parameters


def why_champion(facts: RunFacts, summary: Summary) -> tuple[str, ...]:
    """How it was chosen, what came next, and what it gains."""
    champion = champions_group(summary)
    return tuple(
        filter(
            None,
            (
                _chosen(facts, summary, champion),
                _others(facts, summary, champion),
                _gain(summary, champion),
                *_asked(summary),
            ),
        )
    )


def _asked(summary: Summary) -> list[str]:
    """By what it was chosen, where that was said, and what told it from one as good."""
    if summary.picked is not None:
        return told(summary.picked)
    return ["Ties would have gone to fewer parameters, then to the lower latency, then by name."]


def _is_ranked_otherwise(summary: Summary) -> bool:
    """Whether another figure than the one that ranks students, or a front, had a say."""
    return summary.picked is not None and bool(summary.picked.rank != ACCURACY or summary.picked.pareto)


def _chosen(facts: RunFacts, summary: Summary, champion: Finalist) -> str:
    number, label = summary.finalists.index(champion) + 1, summary.rank_by.label
    values = short_parameters({k: v for k, v in champion.hyper_parameters.items() if k != "objective"})
    what = f"Finalist {number} ({champion.objective}{f': {values}' if values else ''})"
    place = _place(facts, champion)
    rank = (
        f"; in the search, with one seed, it was number {place} of {len(facts.records)} trials"
        if place
        else ""
    )
    if _is_ranked_otherwise(summary):
        return (
            f"{what} is the champion; its mean selection {label} over "
            f"{counted(len(champion.seeds), 'seed')} is "
            f"{percent(champion.selection_mean, champion.selection_std)} %{rank}."
        )
    choice = f"the best that satisfies {facts.where}" if facts.where else "the best that was allowed"
    if all(each.selection_mean <= champion.selection_mean for each in summary.finalists):
        choice = f"the best of {counted(len(summary.finalists), 'finalist')}"
        choice += f", and it satisfies {facts.where}" if facts.where else ""
    return (
        f"{what} is the champion: its mean selection {label} over {counted(len(champion.seeds), 'seed')}, "
        f"{percent(champion.selection_mean, champion.selection_std)} %, is {choice}{rank}."
    )


def _place(facts: RunFacts, champion: Finalist) -> int | None:
    ranked = rank_trials(facts.records)
    for number, record in enumerate(ranked, start=1):
        if (record.objective, record.parameters) == (champion.objective, champion.hyper_parameters):
            return number
    return None


def _others(facts: RunFacts, summary: Summary, champion: Finalist) -> str:
    """The next best finalist, and any that is better but was not allowed or lost a seed."""
    others = [finalist for finalist in summary.finalists if finalist.trials != champion.trials]
    better = [finalist for finalist in others if finalist.selection_mean > champion.selection_mean]
    if better:
        names = ", ".join(f"finalist {summary.finalists.index(each) + 1}" for each in better)
        why = f"does not satisfy {facts.where or 'what was asked of the champion'}"
        if _is_ranked_otherwise(summary):
            why = "is not the best by what was asked"
        lost = any(len(each.seeds) < len(champion.seeds) for each in better)
        return f"The mean of {names} is higher, but it {'lost a seed' if lost else why}."
    if not others:
        return ""
    second = max(others, key=lambda finalist: finalist.selection_mean)
    behind = 100 * (champion.selection_mean - second.selection_mean)
    return (
        f"Next is finalist {summary.finalists.index(second) + 1} ({second.objective}), {behind:.2f} points "
        f"behind, with {second.params:,} parameters beside {champion.params:,} and "
        f"{second.latency_ms:.3f} ms beside {champion.latency_ms:.3f} ms."
    )


def _gain(summary: Summary, champion: Finalist) -> str:
    if champion.is_own_control:
        return ""
    gain = champion.test_gain
    interval = (
        ""
        if gain.low is None or gain.high is None
        else (f", with a 95 % interval from {100 * gain.low:+.2f} to {100 * gain.high:+.2f}")
    )
    return (
        f"On the test split, which had no part in the choice, it reaches {percent(champion.test_mean)} % and "
        f"gains {100 * gain.mean:+.2f} points over {control_name_of(summary, champion)}, the same student "
        f"taught by the labels alone{interval}."
    )
