"""Which networks are trained together with a student: what the experiment's `peers` says, and the space."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from orchestrator.config.validation_messages import Problem
from search_spaces.domains import Domain
from search_spaces.space import SpaceConfig
from trainables.checkpoint_header import known_by
from trainables.config import OBJECTIVE_CONFIGS, ModelConfig
from trainables.config.base import Scalar
from trainables.config.mutual.peers import MAX_PEERS
from trainables.errors import ConfigError

KEY: Final = "peers"
"""Of the experiment, and of the objectives that train several networks."""

_UNNAMED: Final = ""
"""Stands for the name of a list that the experiment gives none."""

Networks = Annotated[tuple[ModelConfig, ...], Field(min_length=1, max_length=MAX_PEERS - 1)]
PeersConfig = Annotated[
    Annotated[int, Field(ge=2, le=MAX_PEERS)] | Networks | dict[str, Networks] | None,
    Field(
        description="for objectives that train several networks together: how many, all of the student's "
        "shape; or a list of the others; or several such lists by name, for a space to choose from as "
        "`peers: {choice: [2, NAME]}`; default: 2",
        exclude_if=lambda peers: peers is None,
    ),
]


def with_peers(
    objective: Mapping[str, Scalar], student: ModelConfig, own: PeersConfig
) -> tuple[dict[str, Scalar], tuple[ModelConfig, ...]]:
    """An objective as plain data with its number of networks, and the networks beside the student.

    What the space says counts; where it says nothing, the experiment's own `peers`; without that, two.

    Raises:
        ConfigError: the objective names a list that the experiment does not have.
    """
    kind = OBJECTIVE_CONFIGS[str(objective["name"])]
    if not kind.with_peers:
        return dict(objective), ()
    wanted: Any = objective.get(KEY)
    if wanted is None and not isinstance(own, dict):
        wanted = own
    if wanted is None:
        wanted = kind.defaults()[KEY]
    if isinstance(wanted, tuple):
        return {**objective, KEY: len(wanted) + 1}, wanted
    if isinstance(wanted, int):
        return {**objective, KEY: wanted}, (student,) * (wanted - 1)
    lists = own if isinstance(own, dict) else {}
    if wanted not in lists:
        raise ConfigError(f"the experiment has no list {wanted!r} among its `peers`; {_known(lists)}")
    return {**objective, KEY: wanted}, lists[wanted]


def networks_in(own: PeersConfig) -> tuple[ModelConfig, ...]:
    """The networks that the experiment's `peers` lists."""
    return tuple(network for networks in _lists(own).values() for network in networks)


def peers_as_known(own: PeersConfig) -> Any:
    """What the experiment's `peers` says, for fingerprints: wherever the folders of their files lie."""
    if isinstance(own, dict):
        return {name: [known_by(peer) for peer in networks] for name, networks in own.items()}
    return [known_by(peer) for peer in own] if isinstance(own, tuple) else own


def peers_problems(own: PeersConfig, space: SpaceConfig) -> Iterator[tuple[bool, Problem]]:
    """What does not fit together, and whether it is in the space's file rather than in the experiment's.

    A number in the experiment that the space overrides is no problem: the space says it more precisely.
    """
    found = [*_unknown_problems(own, space)]
    yield from found or [(False, problem) for problem in _unused_problems(own, space)]


def groups_of_peers(
    own: PeersConfig, space: SpaceConfig, objective: str, student: ModelConfig
) -> list[tuple[str, tuple[ModelConfig, ...]]]:
    """What some trial of an objective trains beside a student: words for messages, and the networks.

    However many copies of the student there may be, they are one here. An objective that trains the student
    alone has nothing beside it.
    """
    if not OBJECTIVE_CONFIGS[objective].with_peers:
        return [("", ())]
    values, lists = _given(space, objective), _lists_for(own, space, objective)
    copies = any(not isinstance(value, str) for value in values) if values else not lists
    groups: list[tuple[str, tuple[ModelConfig, ...]]] = [("", (student,))] if copies else []
    return groups + [(f" with its peers{f' {name}' if name else ''}", peers) for name, peers in lists.items()]


def every_peer(own: PeersConfig, space: SpaceConfig) -> Iterator[tuple[str, ModelConfig, tuple[str, ...]]]:
    """Each network that some trial may take from the experiment's lists, to train it beside its student.

    With a name for messages, and the objectives whose trials may.
    """
    by_objective = {name: _lists_for(own, space, name) for name in _askers(space)}
    for name, networks in _lists(own).items():
        askers = tuple(asker for asker, lists in by_objective.items() if name in lists)
        for number, network in enumerate(networks if askers else (), start=1):
            yield f"peer {number}{f' of {name}' if name else ''}", network, askers


def _lists(own: PeersConfig) -> dict[str, Networks]:
    """The experiment's lists of networks by name; one without a name by ''."""
    return own if isinstance(own, dict) else {_UNNAMED: own} if isinstance(own, tuple) else {}


def _lists_for(own: PeersConfig, space: SpaceConfig, objective: str) -> dict[str, Networks]:
    """Those that some trial of an objective takes its peers from."""
    lists, values = _lists(own), _given(space, objective)
    names = {value for value in values if isinstance(value, str)} if values else {_UNNAMED}
    return {name: networks for name, networks in lists.items() if name in names}


def _askers(space: SpaceConfig) -> list[str]:
    """The objectives of a space that train several networks."""
    return [name for name in space.objective_names if OBJECTIVE_CONFIGS[name].with_peers]


def _given(space: SpaceConfig, objective: str) -> tuple[Scalar, ...]:
    """The extreme values that the space gives `peers` of an objective, or all of a choice; () for none."""
    given = space.objectives.given()[objective].dimensions().get(KEY)
    return () if given is None else given.corners() if isinstance(given, Domain) else (given,)


def _unknown_problems(own: PeersConfig, space: SpaceConfig) -> Iterator[tuple[bool, Problem]]:
    """Objectives that choose a list which is not there, or none where there are several; and no objective."""
    lists, askers = own if isinstance(own, dict) else {}, _askers(space)
    if own is not None and not askers:
        text = f"found some; no objective of space {space.name} trains several networks: leave it out"
        yield False, Problem((KEY,), text)
    for name in askers:
        values = _given(space, name)
        if not values and isinstance(own, dict):
            text = f"found lists by name; objective {name} of space {space.name} must choose one of them"
            yield True, Problem(("objectives", name), f"{text}: `peers: {_choice(own)}`")
        for value in values:
            if isinstance(value, str) and value not in lists:
                text = f"found {value!r}; the experiment has no such list among its `peers`; {_known(lists)}"
                yield True, Problem(("objectives", name, KEY), text)


def _unused_problems(own: PeersConfig, space: SpaceConfig) -> Iterator[Problem]:
    """Lists of the experiment that no trial would train."""
    askers = _askers(space)
    used = {name for asker in askers for name in _lists_for(own, space, asker)}
    for name in [name for name in _lists(own) if name not in used]:
        choice = _choice([*_given(space, askers[0]), name or "NAME"])
        chosen = f"let space {space.name} choose it, `objectives: {{{askers[0]}: {{peers: {choice}}}}}`"
        if name == _UNNAMED:
            text = (
                f"found a list without a name, and space {space.name} gives {', '.join(askers)} a `peers` "
                f"that counts before it, so no trial would train it: name it, `peers: {{NAME: [...]}}`, and "
                f"{chosen}; or leave it out"
            )
            yield Problem((KEY,), text)
        else:
            text = (
                f"found a list that no objective of space {space.name} can choose: {chosen}; or leave it out"
            )
            yield Problem((KEY, name), text)


def _choice(values: Iterable[Scalar]) -> str:
    return f"{{choice: [{', '.join(map(str, values))}]}}"


def _known(lists: Mapping[str, object]) -> str:
    return f"known: {', '.join(lists)}" if lists else "give it there: `peers: {NAME: [{name: resnet8}]}`"
