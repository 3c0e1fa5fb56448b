"""A summary's table of students, and in words what its gains are over."""

from __future__ import annotations

from typing import Final

from orchestrator.records.compute import SAME_FROM
from orchestrator.records.ranked_figures import column, member_cells, teacher_cells, test_text, worth
from orchestrator.records.relations import LABELS_ALONE
from orchestrator.records.student_figures import Control, Finalist, Students
from orchestrator.records.summary import MemberFigures, Summary, TeacherFigures, is_champion
from orchestrator.records.tables.more_columns import (
    gain_text,
    taken_together_text,
    with_more,
    with_search_scores,
)
from orchestrator.records.tables.student_names import named_controls as named_controls
from orchestrator.records.tables.student_names import named_finalists, student_names
from orchestrator.terminal.formatting import UNKNOWN, counted, percent, short_parameters

SPEED_UP: Final = "speed-up"
COLUMNS = (
    "student",
    "objective",
    "selection, %",
    "test, %",
    "test gain over its control, points (95 %)",
    "its control",
    "params",
    "latency, ms",
    SPEED_UP,
    "hyper-parameters",
)
TUNED: Final = (
    "A control has the best, on the selection split, of the experiment file's recipe and those of the "
    "finalists with its architecture and epochs; it was tuned over no others."
)
UNTUNED: Final = "The control was not tuned: an earlier version trained it with the experiment file's alone."


def students_table(summary: Summary) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for a terminal: teacher, controls, then the finalists; rounded, as text.

    Without a teacher there is neither its row nor the column that compares latencies with its own.
    """
    rows = _teacher_rows(summary, summary.teacher) if summary.teacher else []
    for name, control in named_controls(summary):
        rows.append(_row(summary, name, control, ("", ""), _control_parameters(summary, control)))
    for number, finalist in enumerate(summary.finalists, start=1):
        own = " (champion)" if is_champion(summary, finalist) else ""
        searched = {k: v for k, v in finalist.hyper_parameters.items() if k != "objective"}
        gain = "" if finalist.is_own_control else gain_text(finalist.test_gain)
        over = "itself" if finalist.is_own_control else control_name_of(summary, finalist)
        name, parameters = f"finalist {number}{own}", short_parameters(searched)
        rows.append(_row(summary, name, finalist, (gain, over), parameters))
    students = [control for _, control in named_controls(summary)]
    columns = tuple(column(summary, name) for name in COLUMNS)
    if summary.teacher is None:
        place = COLUMNS.index(SPEED_UP)
        columns, rows = _without(columns, place), [_without(row, place) for row in rows]
    columns, rows = with_more(columns, rows, [*students, *summary.finalists])
    return with_search_scores(columns, rows, summary.finalists)


def _without(cells: tuple[str, ...], place: int) -> tuple[str, ...]:
    return cells[:place] + cells[place + 1 :]


def _teacher_rows(summary: Summary, teacher: TeacherFigures) -> list[tuple[str, ...]]:
    reached = teacher_cells(summary, teacher)
    params = UNKNOWN if teacher.params is None else f"{teacher.params:,}"
    latency = "" if teacher.latency_ms is None else latency_text(teacher.latency_ms, teacher.latency_p95_ms)
    rows: list[tuple[str, ...]] = [(teacher_name(teacher), "", *reached, "", "", params, latency, "", "")]
    rows += [_member_row(summary, number, member) for number, member in enumerate(teacher.members, start=1)]
    return rows


def teacher_name(teacher: TeacherFigures) -> str:
    """What a table calls the teacher, or several as one."""
    return "teachers together" if teacher.members else "teacher"


def member_facts(teacher: TeacherFigures) -> dict[str, str]:
    """Of several teachers, what each can do alone, by its name and share."""
    return {
        f"teacher {number}, share {member.share:.2g}": (
            f"selection {percent(member.selection_accuracy)} %, test {percent(member.test_accuracy)} %, "
            f"{UNKNOWN if member.params is None else f'{member.params:,}'} parameters"
        )
        for number, member in enumerate(teacher.members, start=1)
    }


def _member_row(summary: Summary, number: int, member: MemberFigures) -> tuple[str, ...]:
    accuracies = member_cells(summary, member)
    params = UNKNOWN if member.params is None else f"{member.params:,}"
    latency = "" if member.latency_ms is None else latency_text(member.latency_ms, None)
    return (f"teacher {number} (share {member.share:.2g})", "", *accuracies, "", "", params, latency, "", "")


def control_name_of(summary: Summary, finalist: Finalist) -> str:
    """The name, in the table, of the control that a finalist is compared with."""
    return student_names(summary)[finalist.control.trials]


def comparison(summary: Summary) -> tuple[str, ...]:
    """What the gains are over, and over how many recipes controls and finalists were chosen; sentences."""
    recipes = {
        tuple((n, str(v)) for n, v in sorted(trial.hyper_parameters.items()) if n.startswith("training."))
        for trial in summary.trials
    }
    varied = sorted({name for recipe in recipes for name, _ in recipe})
    chosen = bool(varied) or any(finalist.beside for finalist in summary.finalists)
    told = [
        *worth(summary),
        "A gain is over the finalist's own control: a student that learns from the labels alone, with the "
        f"same architecture, resolution, epochs and seeds{'' if chosen else ', and the same recipe'}.",
    ]
    if varied:
        tried = f"The search tried {counted(len(recipes), 'recipe')} ({', '.join(varied)})."
        controls = (finalist.control for finalist in summary.finalists)
        of_this_version = any(set(varied) & control.hyper_parameters.keys() for control in controls)
        told.append(f"{tried} {TUNED if of_this_version else UNTUNED}")
    if varied and any(trial.objective == LABELS_ALONE for trial in summary.trials):
        told.append("The search tried cross-entropy too, and the best recipe that it found for it counts.")
    told += _of_compute(summary)
    told += _of_unlabelled(summary)
    for number, finalist in enumerate(summary.finalists, start=1):
        told += _of_finalist(summary, f"finalist {number}", finalist)
    return (*told, *taken_together_text(summary.finalists), *_precisions(summary))


def latency_text(median_ms: float, p95_ms: float | None) -> str:
    """A median in milliseconds, with the 95th percentile where it is known."""
    return f"{median_ms:.3f}" if p95_ms is None else f"{median_ms:.3f} (p95 {p95_ms:.3f})"


def _precisions(summary: Summary) -> list[str]:
    """What controls and finalists were trained in; nothing where an earlier version did not note it."""
    students = [*named_controls(summary), *named_finalists(summary)]
    by_precision: dict[str, list[str]] = {}
    for name, each in students:
        if each.precision is not None:
            by_precision.setdefault(each.precision, []).append(name)
    if len(by_precision) == 1 and len(next(iter(by_precision.values()))) == len(students):
        return [f"Controls and finalists were trained in {next(iter(by_precision))}."]
    told = "; ".join(f"{', '.join(names)} in {precision}" for precision, names in by_precision.items())
    return [f"Trained {told}."] if told else []


def _of_unlabelled(summary: Summary) -> list[str]:
    """What students with a teacher had beside what controls had."""
    found = summary.unlabelled
    if found is None:
        return []
    learned = f"{found.count:,} unlabelled images ({found.left_out_in_words})"
    if found.share == 1:
        return [
            f"Students with a teacher learned from {learned} in the place of labelled ones, an epoch being "
            "one pass over them; controls from labelled ones alone, an epoch being one pass over those."
        ]
    return [
        f"Beside labelled images students with a teacher learned from {learned}, {found.share:g} of each "
        "batch; controls from labelled ones alone, as many in an epoch, in batches of the recipe's size, so "
        "in fewer steps."
    ]


def _of_compute(summary: Summary) -> list[str]:
    """What a gain at the same compute is over; nothing where no finalist has one."""
    if not any(finalist.same_compute for finalist in summary.finalists):
        return []
    return [
        f"Where an epoch computes more than {SAME_FROM:g} of cross-entropy's, a control of the same compute "
        "stands beside that of the same epochs: the same students and recipe with cross-entropy for as many "
        "epochs as compute as much."
    ]


def _of_finalist(summary: Summary, name: str, finalist: Finalist) -> list[str]:
    names = student_names(summary)
    told = []
    if finalist.lacks_own_control:
        told.append(
            f"The control of {name} has another architecture or number of epochs: an earlier version trained "
            "one for all finalists. Remove summary.json and run again, and it gets its own."
        )
    if finalist.is_own_control:
        told.append(f"{name} learns from the labels alone and is its own control, so it has no gain.")
    elif finalist.beside:
        gains = (f"{gain_text(each.test_gain)} over {names[each.control.trials]}" for each in finalist.beside)
        n_recipes = 1 + len(finalist.beside) + (finalist.objective == LABELS_ALONE)
        told.append(
            f"{name}: {names[finalist.control.trials]} is the best of {n_recipes} recipes on the selection "
            f"split; the test gain is {', '.join(gains)}."
        )
    if finalist.same_compute is not None:
        over = names[finalist.same_compute.control.trials]
        told.append(
            f"{name}: an epoch computes {finalist.compute_over_ce or 0:.2f} of cross-entropy's; over {over} "
            f"the test gain is {gain_text(finalist.same_compute.test_gain)}."
        )
    elif finalist.is_uncounted:
        told.append(
            f"{name} has no control of the same compute: what its training computes is not known, so its "
            "gain, at equal epochs, may be that of more compute."
        )
    return told


def _control_parameters(summary: Summary, control: Control) -> str:
    """What it has of the values that the search varied, and whose recipe that is where there are several."""
    values = short_parameters(control.hyper_parameters)
    if not any(finalist.beside for finalist in summary.finalists):
        return values
    whose = "the experiment's recipe" if control.recipe == "experiment" else "a recipe of the search"
    return f"{values} ({whose})" if values else whose


def speed_up_text(summary: Summary, students: Students) -> str:
    """How many times the student's latency the teacher's is, on the same device; empty where not known."""
    teacher = summary.teacher
    if teacher is None or teacher.latency_ms is None or teacher.latency_device != students.latency_device:
        return ""
    return f"{teacher.latency_ms / students.latency_ms:.1f}x"


def _row(
    summary: Summary, name: str, students: Students, gain: tuple[str, str], parameters: str
) -> tuple[str, ...]:
    return (
        name,
        students.objective,
        percent(students.selection_mean, students.selection_std),
        test_text(summary, students),
        *gain,
        f"{students.params:,}",
        latency_text(students.latency_ms, students.latency_p95_ms),
        speed_up_text(summary, students),
        parameters,
    )
