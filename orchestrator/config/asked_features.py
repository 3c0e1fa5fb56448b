"""What the objectives of a space ask of the teacher's network, and whether an experiment's teacher has it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from orchestrator.config.schema import ExperimentConfig
from orchestrator.config.validation_messages import Problem
from search_spaces.space import SpaceConfig
from trainables.config import OBJECTIVE_CONFIGS, Need, ObjectiveBase
from trainables.config.objective_base import Preparation
from trainables.config.representation.preparation import PreparedTraining, makes


def taught_objectives(space: SpaceConfig) -> tuple[str, ...]:
    """The objectives that ask a teacher for anything with some of the space's values, in its order."""
    return tuple(dict.fromkeys(name for name, config in _corners(space) if config.hears_teacher))


def teacher_problems(
    config: ExperimentConfig, space: SpaceConfig, pairs: Sequence[str] = ()
) -> Iterator[Problem]:
    """What objectives ask for a teacher where the file has none; `pairs` are those that could bring one."""
    if config.has_teacher or not (names := taught_objectives(space)):
        return
    without = ", ".join(name for name, known in OBJECTIVE_CONFIGS.items() if not known().hears_teacher)
    several = len(names) > 1
    text = (
        f"found no section `teacher`; objective{'s' * several} {', '.join(names)} of "
        f"space {space.name} learn{'' if several else 's'} from a teacher: write "
        "`teacher: {model: {name: ...}}`, with a `checkpoint` beside `model` where it is trained already"
        f"{_or_a_pair(pairs)}, or take a space whose objectives all do without ({without})"
    )
    yield Problem(("space",), text)


def _or_a_pair(pairs: Sequence[str]) -> str:
    return f", or choose one of the file's pairs ({', '.join(pairs)}), which bring theirs" if pairs else ""


def asked_features(space: SpaceConfig) -> Mapping[str, tuple[str, ...]]:
    """The teacher's features that some objective asks for with some of the space's values, by bank."""
    found: dict[str, dict[str, None]] = {}
    for _, config in _corners(space):
        if config.teacher_features:
            for bank in config.teacher_banks:
                found.setdefault(bank, {}).update(dict.fromkeys(config.teacher_features))
    return {bank: tuple(names) for bank, names in found.items()}


def asking_objectives(space: SpaceConfig, features: Iterable[str]) -> tuple[str, ...]:
    """The objectives that ask for one of these features of the teacher, in the order of the space."""
    wanted = set(features)
    asking = (name for name, config in _corners(space) if wanted & set(config.teacher_features))
    return tuple(dict.fromkeys(asking))


def student_askers(
    space: SpaceConfig, objectives: Collection[str] | None = None
) -> list[tuple[str, ObjectiveBase]]:
    """An objective of the space, or of these ones, for each set of student's features asked for together."""
    found: dict[tuple[str, ...], tuple[str, ObjectiveBase]] = {}
    for name, config in _corners(space):
        if config.student_features and (objectives is None or name in objectives):
            found.setdefault(config.student_features, (name, config))
    return list(found.values())


def untaught_comparisons(space: SpaceConfig) -> list[tuple[str, ObjectiveBase]]:
    """Each objective of the space that compares features of networks without a teacher, once for each set."""
    found: dict[tuple[str, tuple[str, ...]], ObjectiveBase] = {}
    for name, config in _corners(space):
        if config.student_features and not config.hears_teacher:
            found.setdefault((name, config.student_features), config)
    return [(name, config) for (name, _), config in found.items()]


def batch_contrasters(space: SpaceConfig) -> tuple[str, ...]:
    """The objectives that compare the images of a batch by class with some of the space's values."""
    return tuple(dict.fromkeys(name for name, config in _corners(space) if config.contrasts_batch))


def asks_classifier(space: SpaceConfig) -> bool:
    """Whether some objective asks for the weights of the teacher's last linear layer."""
    return any(Need.TEACHER_CLASSIFIER in config.needed for _, config in _corners(space))


def feature_problems(config: ExperimentConfig, space: SpaceConfig) -> Iterator[Problem]:
    """What is asked of within the teacher, where it does not have that, or has nothing but its logits."""
    teacher = _without_features(config)
    if teacher is None:
        yield from _unprepared(config, space)
        return
    place, found, why = teacher
    cache = config.cache
    named = {"embedding": "true", "features": f"[{', '.join(cache.features)}]"}
    for key, value in named.items():
        if getattr(cache, key):
            yield Problem(("cache", key), f"found {value}; {why}: leave it out")
    asking: dict[str, str] = {}
    for name, objective in _corners(space):
        if objective.teacher_banks and objective.teacher_features:
            asking.setdefault(name, f"compares the teacher's {', '.join(objective.teacher_features)}")
        elif Need.TEACHER_CLASSIFIER in objective.needed:
            asking.setdefault(name, "takes the weights of the teacher's last layer")
    for name, what in asking.items():
        text = f"found {found}; objective {name} of space {space.name} {what}, and {why}"
        yield Problem(place, f"{text}: leave the objective out, or take one network of PyTorch")


def _unprepared(config: ExperimentConfig, space: SpaceConfig) -> Iterator[Problem]:
    """Features for the cache to keep that a teacher has once it is prepared, where nobody asks for that."""
    asked = {OBJECTIVE_CONFIGS[name].preparation for name in space.objective_names}
    if config.teacher.prepared is PreparedTraining.JOINT_BRANCHES:
        asked.add(Preparation.BRANCHES)
    for place, feature in enumerate(config.cache.features):
        for kind in Preparation:
            if makes(kind, feature) and kind not in asked:
                asking = ", ".join(n for n, known in OBJECTIVE_CONFIGS.items() if known.preparation is kind)
                text = (
                    f"found {feature!r}, which a teacher that is prepared ({kind}) has, and no objective of "
                    f"space {space.name} asks for that: leave it out, or take a space with {asking}"
                )
                yield Problem(("cache", "features", place), text)


def _without_features(config: ExperimentConfig) -> tuple[tuple[str, ...], str, str] | None:
    """Place and value in the file of a teacher that has logits alone, and why; none where it has more."""
    if config.teachers:
        if any(teacher.is_onnx for teacher in config.teachers):
            return ("teachers",), f"{len(config.teachers)} teachers", _ONNX
        return ("teachers",), f"{len(config.teachers)} teachers", "several teachers have no one embedding"
    if config.teacher.imported:
        return ("teacher", "imported"), "true", "imported logits have no network that could answer"
    if config.teacher.is_onnx:
        return ("teacher", "checkpoint"), f"{config.teacher.checkpoint!r}", _ONNX
    return None


_ONNX = "an ONNX file gives its logits alone, as it computes them"


def _corners(space: SpaceConfig) -> Iterator[tuple[str, ObjectiveBase]]:
    """Each objective of the space by name, with each combination of extreme values."""
    for name, section in space.objectives.given().items():
        for corner in section.corners():
            yield name, OBJECTIVE_CONFIGS[name].from_plain(corner)
