"""Which networks are trained together with a student: what the experiment's `peers` says, and the space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    lists = own.values() if isinstance(own, dict) else (own,) if isinstance(own, tuple) else ()
    return tuple(network for networks in lists for network in networks)


def peers_as_known(own: PeersConfig) -> Any:
    """What the experiment's `peers` says, for fingerprints: wherever the folders of their files lie."""
    if isinstance(own, dict):
        return {name: [known_by(peer) for peer in networks] for name, networks in own.items()}
    return [known_by(peer) for peer in own] if isinstance(own, tuple) else own


def peers_problems(own: PeersConfig, space: SpaceConfig) -> Iterator[tuple[bool, Problem]]:
    """What does not fit together, and whether it is in the space's file rather than in the experiment's."""
    lists = own if isinstance(own, dict) else {}
    askers = [name for name in space.objective_names if OBJECTIVE_CONFIGS[name].with_peers]
    if own is not None and not askers:
        text = f"found some; no objective of space {space.name} trains several networks: leave it out"
        yield False, Problem((KEY,), text)
    for name in askers:
        given = space.objectives.given()[name].dimensions().get(KEY)
        if given is None:
            if isinstance(own, dict):
                text = f"found lists by name; objective {name} of space {space.name} must choose one of them"
                yield True, Problem(("objectives", name), f"{text}: `peers: {{choice: [{', '.join(own)}]}}`")
            continue
        values = given.corners() if isinstance(given, Domain) else (given,)
        for value in values:
            if isinstance(value, str) and value not in lists:
                text = f"found {value!r}; the experiment has no such list among its `peers`; {_known(lists)}"
                yield True, Problem(("objectives", name, KEY), text)


def every_peer(own: PeersConfig, space: SpaceConfig) -> Iterator[tuple[str, ModelConfig]]:
    """Each network of other shape that some trial may train beside its student, with a name for messages."""
    if not any(OBJECTIVE_CONFIGS[name].with_peers for name in space.objective_names):
        return
    lists = own if isinstance(own, dict) else {"": own} if isinstance(own, tuple) else {}
    for name, networks in lists.items():
        for number, network in enumerate(networks, start=1):
            yield f"peer {number}{f' of {name}' if name else ''}", network


def _known(lists: Mapping[str, object]) -> str:
    return f"known: {', '.join(lists)}" if lists else "give it there: `peers: {NAME: [{name: resnet8}]}`"
