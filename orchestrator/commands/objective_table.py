"""The objectives in words: what each asks for, where it is from, and its paper's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from orchestrator.terminal.console import Console
from trainables.config import OBJECTIVE_CONFIGS, Need, ObjectiveBase
from trainables.config.cache import is_whole_map
from trainables.config.objective_base import OR, LabelUse
from trainables.slots.packed.packing import keeps_alone

NEED_WORDS: Final[Mapping[Need, str]] = MappingProxyType(
    {
        Need.ALL_CLASSES: "of all classes",
        Need.UNSHIFTED: "unshifted",
        Need.COSINE_HEAD: "student with a cosine head",
        Need.TEACHER_CLASSIFIER: "teacher's classifier",
        Need.IMAGES: "the student's images",
        Need.DENSE_LOGITS: "student's last feature map",
        Need.ROWS: "rows of samples",
        Need.ATTACK: "adversarial images",
        Need.ONLINE_TEACHER: "online teacher",
    }
)
UNLABELLED_WORDS: Final[Mapping[LabelUse, str]] = MappingProxyType(
    {
        LabelUse.NONE: "yes",
        LabelUse.TARGET_CLASS: "by the teacher's class",
        LabelUse.ATTACK: "no",
    }
)
"""Whether an objective learns from images without labels; by the teacher's class where that is allowed."""
COLUMNS: Final = (
    "name",
    "needs",
    "teacher answers",
    "a step",
    "in a pack",
    "unlabelled",
    "paper",
    "defaults",
)


@dataclass(frozen=True)
class ObjectiveFacts:
    """One objective, at its defaults."""

    name: str
    what: str
    needs: tuple[str, ...]
    """At the defaults, and what some other hyper-parameters ask for."""
    student_banks: tuple[str, ...]
    teacher_banks: tuple[str, ...]
    paper: str
    defaults: dict[str, Any]
    unlabelled: str
    """Whether it learns from images without labels, at the defaults."""
    student_features: tuple[str, ...]
    """At the defaults."""
    teacher_features: tuple[str, ...]
    """At the defaults."""
    source: str
    """Where the teacher's answers come from: from the cache, or from the teacher beside the student."""
    step: str
    """What the student does in a step, for each sample."""
    alone: str | None
    """Why a slot trains students with it one by one; none where it can train several of them at once."""
    step_over_ce: float | None = None
    """Time of a step over one of cross-entropy, where it was measured."""

    def row(self) -> tuple[str, ...]:
        """The cells under `COLUMNS`."""
        defaults = ", ".join(f"{name} {_shown(value)}" for name, value in self.defaults.items())
        needs = ", ".join(self.needs)
        step = self.step if self.step_over_ce is None else f"{self.step}: {self.step_over_ce:.2f}"
        packed = "yes" if self.alone is None else f"no: {self.alone}"
        return (self.name, needs, self.source, step, packed, self.unlabelled, self.paper, defaults or "-")


def objective_facts() -> list[ObjectiveFacts]:
    """All objectives that may stand in a search space, in the order of their table."""
    return [_facts(name, config) for name, config in OBJECTIVE_CONFIGS.items()]


def show_objectives(*, json_only: bool, measure: bool) -> None:
    """Print the table; with `measure` a step of each is timed first, which takes a minute."""
    console = Console(json_only=json_only)
    facts = objective_facts()
    if measure:
        facts = _measured(facts, console)
    console.table("objectives", COLUMNS, [fact.row() for fact in facts])
    console.result({fact.name: asdict(fact) for fact in facts})


def _measured(facts: list[ObjectiveFacts], console: Console) -> list[ObjectiveFacts]:
    # Late: the list alone needs no torch.
    from orchestrator.commands.step_costs import BATCH, SIDE, STUDENT, step_costs

    found: dict[str, float] = {}
    with console.progress("objectives timed", len(facts)) as progress:
        for name, cost in step_costs(lambda name: progress.update(len(found), name)):
            if isinstance(cost, str):
                console.info(f"{name} is not timed: {cost}")
            else:
                found[name] = cost
    console.info(
        f"the number behind a step is its time over one of cross-entropy: student {STUDENT.name} of width "
        f"{STUDENT.width}, batches of {BATCH} grey images of {SIDE}x{SIDE}, the teacher's answers in memory"
    )
    return [replace(fact, step_over_ce=found.get(fact.name)) for fact in facts]


def _source(config: ObjectiveBase) -> str:
    """By what is small enough to be kept unasked; see `CacheConfig.is_kept`."""
    if not config.teacher_banks:
        return "-"
    if Need.ONLINE_TEACHER in config.needed:
        return "beside the student"
    maps = [name for name in config.teacher_features if is_whole_map(name)]
    words = [f"{', '.join(maps)} where cache.features names them, else beside the student"] if maps else []
    words += ["beside the student with some options"] if Need.ONLINE_TEACHER in config.needs else []
    return "; ".join(["cached", *words])


def _step(config: ObjectiveBase) -> str:
    """In words; the ratio to cross-entropy is measured with `--measure`."""
    images = len(config.banks)
    passes = " in one pass" if config.one_pass else ", a pass each" if images > 1 else ""
    attack = f" after {config.attack.steps} of an attack" if config.attack else ""
    mixed = ", and its mixture with another one" if config.pair_mixing is not None else ""
    networks = f", by {config.n_networks} networks" if config.with_peers else ""
    return f"{images} image{'s' if images > 1 else ''}{passes}{mixed}{attack}{networks}"


def _facts(name: str, config: type[ObjectiveBase]) -> ObjectiveFacts:
    defaults = {key: value for key, value in config().plain().items() if key != "name"}
    what = (config.__doc__ or "").splitlines()[0]
    return ObjectiveFacts(
        name,
        what,
        _needs(config),
        config.banks,
        config.teacher_banks,
        config.paper,
        defaults,
        UNLABELLED_WORDS[config().uses_label] if config.teacher_banks else "no",
        config().student_features,
        config().teacher_features,
        _source(config()),
        _step(config()),
        keeps_alone(config()),
    )


def _needs(config: type[ObjectiveBase]) -> tuple[str, ...]:
    needed = config().needed
    words = [
        NEED_WORDS[need] if need in needed else f"{NEED_WORDS[need]} with some options"
        for need in Need
        if need in config.needs
    ]
    own, taught = config().student_features, config().teacher_features
    if own and own == taught:
        words.append(f"both networks' {', '.join(own)}")
    else:
        words += [f"student's {', '.join(name.replace(OR, ' or ') for name in own)}"] if own else []
        words += [f"teacher's {', '.join(taught)}"] if taught else []
    if not config.teacher_banks:
        return ("no teacher", *words)
    preparation = config.preparation
    words += [f"teacher prepared ({preparation.value})"] if preparation else []
    return (f"teacher's logits ({', '.join(config.teacher_banks)})", *words)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
