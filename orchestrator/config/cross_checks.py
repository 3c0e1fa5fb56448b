"""What only experiment and search space together can tell: combinations that cannot run are refused here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from orchestrator.config.asked_features import feature_problems, teacher_problems
from orchestrator.config.budget_problems import budget_problems
from orchestrator.config.peers import peers_problems
from orchestrator.config.schema import ExperimentConfig
from orchestrator.config.validation_messages import Problem, Problems, as_error
from orchestrator.config.yaml_reader import Document
from search_spaces.domains import Range
from search_spaces.sections import Section
from search_spaces.space import SpaceConfig
from trainables.config import OBJECTIVE_CONFIGS, Config, Need, Precision
from trainables.config.views import TURNED_BANKS, base_of

ROWS_PER_WORKER: Final = 2
"""The fewest that batch statistics of a worker's own share can be taken of."""

Found = Iterator[tuple[Document, Problem]]
"""What a check finds, and in which of the two files."""


@dataclass(frozen=True)
class Both:
    """An experiment and its space, and the files that they were read from."""

    config: ExperimentConfig
    space: SpaceConfig
    document: Document
    space_document: Document
    pairs: Sequence[str] = ()
    """Names of the file's pairs where none of them is chosen."""


def check_together(both: Both) -> None:
    """Try every check.

    Raises:
        ConfigError: combinations that cannot run, with file, line and key.
    """
    found = [problem for check in CHECKS for problem in check(both)]
    problems = Problems()
    for document in (both.document, both.space_document):
        if own := [problem for where, problem in found if where is document]:
            problems.lines += as_error(document, own).problems
    problems.raise_all()


def max_epochs(config: ExperimentConfig, space: SpaceConfig) -> int:
    """The most epochs that a trial can have."""
    return max(int(corner.get("epochs", config.training.epochs)) for corner in space.training.corners())


def _overrides_fit(both: Both) -> Found:
    for section, base in {"student": both.config.student.network, "training": both.config.training}.items():
        dimensions: Section = getattr(both.space, section)
        for corner in dimensions.corners():
            yield from _check_corner(base, corner, both.space_document, section)
    yield from _check_corner(
        both.config.student.network, both.space.student.constants(), both.space_document, "student"
    )


def _scheduler_decides_in_time(both: Both) -> Found:
    epochs = max_epochs(both.config, both.space)
    key, first = both.space.scheduler.first_decision()
    if first > epochs:
        text = f"found {first}; allowed: at most {epochs}, the epochs of a trial of {both.config.name}"
        yield both.space_document, Problem(("scheduler", key), text)


def _budget_suits_the_search(both: Both) -> Found:
    for problem in budget_problems(both.config, both.space):
        yield both.document, problem


def _workers_share_a_batch(both: Both) -> Found:
    workers = both.config.cluster.workers_per_slot
    own = both.config.training.batch_size
    sizes = [int(corner.get("batch_size", own)) for corner in both.space.training.corners()]
    if workers > 1 and min(sizes) < ROWS_PER_WORKER * workers:
        text = (
            f"found {workers}, which share batches of {min(sizes)} samples; allowed: at most "
            f"{min(sizes) // ROWS_PER_WORKER or 1}, so that each has {ROWS_PER_WORKER} samples or more"
        )
        yield both.document, Problem(("cluster", "workers_per_slot"), text)


def _batches_hold_whole_pairs(both: Both) -> Found:
    """Between two even ends of a domain, which are all that `_overrides_fit` tries, lie odd numbers."""
    sampling, sizes = both.config.training.sampling, both.space.training.dimensions().get("batch_size")
    if isinstance(sizes, Range) and sizes.low < sizes.high and (sizes.step or 1) % sampling.together:
        text = (
            f"found {sizes.kind}, which gives odd numbers too; sampling {sampling} of {both.config.name} "
            "needs even ones: take qrandint with a step of 2, or a choice"
        )
        yield both.space_document, Problem(("training", "batch_size"), text)


def _imported_logits_suffice(both: Both) -> Found:
    """Brought logits are of the clean view, and there is no network to ask for anything else."""
    if not both.config.teacher.imported:
        return
    for name in both.space.objective_names:
        for bank in OBJECTIVE_CONFIGS[name].teacher_banks:
            config = both.config.views.bank(bank)
            if bank in TURNED_BANKS:
                text = f"found true; turned images, which objective {name} asks about, need a network"
                yield both.document, Problem(("teacher", "imported"), text)
                break
            if config.recipe or config.views != 1:
                text = (
                    f"found {config.views} views by {len(config.recipe)} steps; allowed: `recipe: []` and "
                    f"`views: 1`, since imported logits are of unaltered images, and objective {name} asks "
                    f"the teacher about the {bank} bank"
                )
                yield both.document, Problem(("views", bank), text)


def _unmixed_banks_mix_nothing(both: Both) -> Found:
    """Mixed images have several labels, and a partner that another view of the sample does not have."""
    for name in both.space.objective_names:
        for bank in dict.fromkeys(base_of(bank)[0] for bank in OBJECTIVE_CONFIGS[name].unmixed_banks):
            steps: list[str] = [step.op for step in both.config.views.bank(bank).recipe]
            mixing = both.config.views.bank(bank).mixes
            if mixing is not None:
                text = (
                    f"found {mixing!r}; objective {name} of space {both.space.name} takes each image to show "
                    "one sample with one label: take the step out, or the objective out of the space"
                )
                place = ("views", bank, "recipe", steps.index(mixing), "op")
                yield both.document, Problem(place, text)


def _cache_keeps_enough_classes(both: Both) -> Found:
    """What top-k leaves out is known in sum alone, which is not enough for every objective."""
    cache = both.config.cache
    if cache.precision is not Precision.TOPK or cache.online:
        return
    for name in _who_needs(Need.ALL_CLASSES, both.space):
        enough = ", ".join(kind.value for kind in Precision if kind is not Precision.TOPK)
        text = (
            f"found 'topk'; objective {name} of space {both.space.name} needs the teacher's logits of "
            f"every class; allowed: {enough}, or a space without it"
        )
        yield both.document, Problem(("cache", "precision"), text)


def _cosine_heads_are_there(both: Both) -> Found:
    """An objective of a cosine classifier needs one on an embedding as wide as the teacher's."""
    for name in both.space.objective_names:
        if Need.COSINE_HEAD not in OBJECTIVE_CONFIGS[name].needs:
            continue
        if both.config.student.cosine_head is None and "cosine_head" not in both.space.student.dimensions():
            text = (
                f"found nothing; objective {name} of space {both.space.name} needs the width of the "
                "teacher's embedding"
            )
            yield both.document, Problem(("student", "cosine_head"), text)


def _start_weights_fit_all(both: Both) -> Found:
    """A file's weights are of one network."""
    if both.config.student.checkpoint is None:
        return
    for name in ("name", "variant", "width"):
        if name in both.space.student.domains():
            text = (
                f"found a file; space {both.space.name} varies student.{name}, and weights fit one network; "
                "leave the file out, or take a space that leaves the student as it is"
            )
            yield both.document, Problem(("student", "checkpoint"), text)


def _what_is_frozen_was_trained(both: Both) -> Found:
    """Random weights that are never trained help nobody; a factory may bring others."""
    student = both.config.student
    if both.config.training.freeze and student.checkpoint is None and student.factory is None:
        text = (
            "found parts to freeze, and a student that starts from random weights; allowed: with "
            "`student.checkpoint`, the weights to start from"
        )
        yield both.document, Problem(("training", "freeze"), text)


def _a_live_teacher_answers(both: Both) -> Found:
    """What the student sees after an attack is in no cache: the teacher itself has to be asked about it."""
    if both.config.cache.online and not both.config.teacher.imported:
        return
    for name in _who_needs(Need.ONLINE_TEACHER, both.space):
        asks = f"objective {name} of space {both.space.name} asks the teacher about adversarial images"
        place = ("cache", "online")
        text = f"found false; {asks}, which no cache holds; allowed: true, or `teacher_input: view`"
        if both.config.teacher.imported:
            place = ("teacher", "imported")
            text = f"found true; {asks}, and imported logits have no network; allowed: `teacher_input: view`"
        yield both.document, Problem(place, text)


def _a_network_is_there_to_ask(both: Both) -> Found:
    """What only a network can give is not to be had from imported logits."""
    cache = both.config.cache
    asked = {"online": cache.online, "autocast": cache.autocast}
    for key, is_asked in asked.items():
        if is_asked and both.config.teacher.imported:
            text = "found true; imported logits have no network that could answer: leave it out"
            yield both.document, Problem(("cache", key), text)


def _onnx_gives_logits_alone(both: Both) -> Found:
    """What changes how a network computes is PyTorch's."""
    if both.config.cache.autocast and any(teacher.is_onnx for teacher in both.config.each_teacher):
        text = "found true; an ONNX file gives its logits alone, as it computes them: leave it out"
        yield both.document, Problem(("cache", "autocast"), text)


def _features_are_to_be_had(both: Both) -> Found:
    """What is taken from within a network needs one network, of PyTorch."""
    for problem in feature_problems(both.config, both.space):
        yield both.document, problem


def _peers_are_known(both: Both) -> Found:
    """Names of lists of networks in the space are those of the experiment."""
    for is_in_space, problem in peers_problems(both.config.peers, both.space):
        yield both.space_document if is_in_space else both.document, problem


def _unlabelled_images_are_learned_from(both: Both) -> Found:
    """Every objective with a teacher can do without the labels, and there is one."""
    unlabelled, place = both.config.data.unlabelled, ("data", "unlabelled")
    if unlabelled is None:
        return
    reasons: dict[str, str] = {}
    for name, section in both.space.objectives.given().items():
        for corner in section.corners():
            why = OBJECTIVE_CONFIGS[name].from_plain(corner).refuses_unlabelled(unlabelled)
            reasons |= {} if why is None else {name: why}
    for name, why in reasons.items():
        text = f"objective {name} of space {both.space.name} cannot learn from unlabelled images: {why}"
        yield both.document, Problem(place, f"{text}; or leave it out of the space")
    if not any(OBJECTIVE_CONFIGS[name].teacher_banks for name in both.space.objective_names):
        text = f"no objective of space {both.space.name} hears a teacher, so nothing is learned from them"
        yield both.document, Problem(place, f"{text}: leave the section out, or take another space")


def _unlabelled_images_have_a_place(both: Both) -> Found:
    """A network answers for them, and a batch has room for both kinds."""
    unlabelled = both.config.data.unlabelled
    if unlabelled is None:
        return
    if both.config.teacher.imported:
        text = "found true; imported logits are of labelled images: `data.unlabelled` needs a network to ask"
        yield both.document, Problem(("teacher", "imported"), text)
    own = both.config.training.batch_size
    sizes = [own, *(int(corner.get("batch_size", own)) for corner in both.space.training.corners())]
    together = both.config.training.sampling.together
    if unlabelled.share < 1 and min(sizes) < 2 * together:
        share, single = f"{unlabelled.share:g}", "one sample" if together == 1 else "one pair"
        text = f"found {share}; a batch of {single} cannot hold both kinds; allowed: 1, or larger batches"
        yield both.document, Problem(("data", "unlabelled", "share"), text)


def _whoever_asks_has_a_teacher(both: Both) -> Found:
    """A file may leave its teacher out where no objective of the space asks for one."""
    for problem in teacher_problems(both.config, both.space, both.pairs):
        yield both.document, problem


CHECKS: Final[tuple[Callable[[Both], Found], ...]] = (
    _whoever_asks_has_a_teacher,
    _overrides_fit,
    _scheduler_decides_in_time,
    _budget_suits_the_search,
    _workers_share_a_batch,
    _batches_hold_whole_pairs,
    _unmixed_banks_mix_nothing,
    _imported_logits_suffice,
    _cache_keeps_enough_classes,
    _cosine_heads_are_there,
    _start_weights_fit_all,
    _what_is_frozen_was_trained,
    _a_live_teacher_answers,
    _a_network_is_there_to_ask,
    _onnx_gives_logits_alone,
    _features_are_to_be_had,
    _peers_are_known,
    _unlabelled_images_are_learned_from,
    _unlabelled_images_have_a_place,
)


def _who_needs(need: Need, space: SpaceConfig) -> Iterator[str]:
    """The objectives that have this need with some of the space's hyper-parameters."""
    for name, section in space.objectives.given().items():
        configs = (OBJECTIVE_CONFIGS[name].from_plain(corner) for corner in section.corners())
        if any(need in config.needed for config in configs):
            yield name


def _check_corner(base: Config, corner: dict[str, Any], document: Document, section: str) -> Found:
    try:
        base.with_overrides(**corner)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        values = ", ".join(f"{name} {value!r}" for name, value in corner.items())
        text = f"{values} does not fit the experiment: {reason}"
        yield document, Problem((section,), text)
