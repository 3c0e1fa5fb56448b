"""On which front each student stands: the first is that of students which no other beats in all figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.config.picking.figures import cost_of

Figures = Mapping[str, Mapping[str, float]]


def fronts(points: Figures, names: Sequence[str]) -> dict[str, int]:
    """By student the number of its front, from 1, by figures that each know which way is better.

    A student beats another where it is at least as good in all of these figures, and better in one; the
    students that only those of earlier fronts beat are the next front. Equal students share one. A student
    that lacks a figure stands on none, and is left out.

    Sorted by its figures a student is beaten only by those before it, so each is compared with the members
    of the fronts so far (efficient non-dominated sort, Zhang et al., 2015).
    """
    costs = {
        student: tuple(cost_of(name, figures[name]) for name in names)
        for student, figures in points.items()
        if all(name in figures for name in names)
    }
    members: list[list[tuple[float, ...]]] = []
    found: dict[tuple[float, ...], int] = {}
    for cost in sorted(set(costs.values())):
        front = next(
            (
                n
                for n, front in enumerate(members)
                if not any(_beats(other, cost) for other in reversed(front))
            ),
            len(members),
        )
        if front == len(members):
            members.append([])
        members[front].append(cost)
        found[cost] = front + 1
    return {student: found[cost] for student, cost in costs.items()}


def first_front(points: Figures, names: Sequence[str]) -> list[str]:
    """The students that no other beats in these figures."""
    return [student for student, front in fronts(points, names).items() if front == 1]


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Of two that differ."""
    return all(mine <= its for mine, its in zip(one, other, strict=True))
