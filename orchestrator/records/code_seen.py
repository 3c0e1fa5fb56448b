"""The user's code as a ledger knows it: edited code is other code, and what it made is made anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.records.events import CodeSeen
from orchestrator.records.ledger import Ledger
from trainables.user_code import Sources

Code = Mapping[str, Sources]
"""By factory, what it is made of."""


def edited_code(code: Code, ledger: Ledger) -> dict[str, str]:
    """By factory the digest of its code, where that is another than the first that the ledger saw.

    Fingerprints hold these alone. So the first code keeps the fingerprints of ledgers from before code was
    noted, and code that is put back finds again what it had made.
    """
    first: dict[str, Sources] = {}
    for event in ledger.events_of(CodeSeen):
        first.setdefault(event.factory, Sources(event.files))
    return {
        factory: sources.digest
        for factory, sources in code.items()
        if factory in first and first[factory].files != sources.files
    }


def is_noted(code: Code, ledger: Ledger) -> bool:
    """Whether the ledger has seen some code of each factory; one of an earlier version has seen none."""
    return code.keys() <= {event.factory for event in ledger.events_of(CodeSeen)}


def note_code(code: Code, ledger: Ledger) -> Iterator[str]:
    """Keep what the code is now; a line for what was edited since it was last used."""
    last = {event.factory: event.files for event in ledger.events_of(CodeSeen)}
    edited: dict[str, list[str]] = {}
    for factory, sources in code.items():
        before, files = last.get(factory), dict(sources.files)
        if before == files:
            continue
        ledger.append(CodeSeen(factory=factory, files=files))
        if before is not None:
            others = {name for name in before.keys() | files.keys() if before.get(name) != files.get(name)}
            edited.setdefault(", ".join(sorted(others)), []).append(factory)
    for modules, factories in edited.items():
        yield (
            f"the code of {', '.join(factories)} has changed since it was last used here ({modules}); what "
            "depends on it is made anew, and what the former code made stays"
        )
