"""What every stage of one run is given."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.config.asked_features import asked_features, asks_classifier, taught_objectives
from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.paths import out_folder
from orchestrator.config.peers import peers_as_known
from orchestrator.config.schema import ExperimentConfig
from orchestrator.pipeline.brought_weights import (
    WEIGHTS_FOLDER,
    brought_weights,
    needs_bringing,
    pinned,
)
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.workers import Workers
from orchestrator.records.code_seen import edited_code
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from search_spaces.space import SpaceConfig
from trainables.checkpoint_header import known_by
from trainables.config import (
    OBJECTIVE_CONFIGS,
    CacheIdentity,
    KeptEnsemble,
    KeptTeacher,
    ModelConfig,
    OnlineSpec,
    StartWeights,
    TeacherSource,
    WorkbenchSpec,
    digest_of,
)
from trainables.config.data import SplitFacts, UnlabelledConfig
from trainables.errors import CheckpointError
from trainables.local_files import file_sha256
from trainables.seeds import derive_seed
from trainables.teacher.cache_build import CacheSummary
from trainables.teacher.cache_request import stated_parts
from trainables.training.train_teacher import TeacherFacts


@dataclass(frozen=True)
class Run:
    """One run of one experiment: what it is, where it writes, who works for it."""

    loaded: LoadedExperiment
    out: Path
    ledger: Ledger
    stages: Stages
    workers: Workers
    console: Console
    weights: Path | None = None
    """Where weights that are brought from elsewhere are put; none: into a folder of `out`."""
    member: int | None = None
    """Which of several teachers it is about, counted from 1; none where there is one, or it is about all."""

    @property
    def experiment(self) -> ExperimentConfig:
        """The experiment file."""
        return self.loaded.config

    @property
    def space(self) -> SpaceConfig:
        """The search space."""
        return self.loaded.space

    @property
    def student(self) -> ModelConfig:
        """The experiment's student, with what the space fixes of it for all."""
        return self.experiment.student.network.with_overrides(**self.space.student.constants())

    @property
    def start(self) -> StartWeights | None:
        """What all students start from; none for random weights.

        Raises:
            ConfigError: it cannot be brought.
            CheckpointError: the file cannot be read.
        """
        checkpoint = self.start_file
        if checkpoint is None:
            return None
        try:
            return StartWeights(path=checkpoint, sha256=file_sha256(Path(checkpoint)))
        except OSError as error:
            raise CheckpointError(
                f"student.checkpoint {checkpoint} cannot be read ({error.strerror}); put it back, since the "
                "search is known by its content"
            ) from error

    @cached_property
    def teacher_source(self) -> TeacherSource:
        """The teacher's network, and its weights as a file where they were trained elsewhere.

        Raises:
            ConfigError: they cannot be brought, or only its logits are known.
            CheckpointError: what was brought cannot be read.
        """
        source = self.experiment.teacher.source
        return source.with_overrides(checkpoint=self._brought(source.checkpoint, source.model))

    @cached_property
    def start_file(self) -> str | None:
        """The file that all students start from; none for random weights.

        Raises:
            ConfigError: it cannot be brought.
            CheckpointError: what was brought cannot be read.
        """
        return self._brought(self.experiment.student.checkpoint, self.student)

    def _brought(self, checkpoint: str | None, model: ModelConfig | None) -> str | None:
        if checkpoint is None or model is None or not needs_bringing(checkpoint, model):
            return checkpoint
        return str(brought_weights(self.loaded, checkpoint, model, self.weights or self.out / WEIGHTS_FOLDER))

    @property
    def edited_code(self) -> dict[str, str]:
        """By factory the digest of its code, where it is not the first that the ledger saw."""
        return edited_code(self.loaded.code, self.ledger)

    def edited(self, *factories: str | None) -> str | None:
        """Of the code of these factories, where some of it is not the first that the ledger saw."""
        found = {path: self.edited_code[path] for path in factories if path in self.edited_code}
        return digest_of(found) if found else None

    @property
    def _students_code(self) -> str | None:
        return self.edited_code.get(str(self.experiment.student.factory))

    def key_path(self, text: str) -> str:
        """A path as fingerprints hold it: they know it again when the folder was moved."""
        return self.ledger.key_paths(self.loaded.folder)(text)

    def with_teacher(self, number: int) -> Run:
        """The run as if one of its several teachers, counted from 1, were its only one."""
        plain = self.experiment.plain()
        several = {"teachers", "combine"}
        config = ExperimentConfig.from_plain(
            {
                **{name: value for name, value in plain.items() if name not in several},
                "teacher": self.experiment.teachers[number - 1].alone.plain(),
            }
        )
        return replace(self, loaded=replace(self.loaded, config=config), member=number)

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each of several teachers in the mean of their answers; they sum to one."""
        weights = [member.weight for member in self.experiment.teachers]
        return tuple(weight / sum(weights) for weight in weights)

    def kept(self, teacher: TeacherFacts) -> KeptTeacher | None:
        """What is loaded to ask a teacher; none where only its logits are known, and before it is made."""
        config = self.experiment
        if not config.teachers:
            return None if config.teacher.imported else teacher.kept(config.teacher.source)
        pairs = zip(config.teachers, teacher.members, strict=False)
        members = [kept for own, facts in pairs if (kept := facts.kept(own.source)) is not None]
        if len(members) < len(config.teachers):
            return None
        return KeptEnsemble(members=tuple(members), shares=self.shares, combine=config.combine)

    @property
    def view_seed(self) -> int:
        """The seed of all views."""
        return derive_seed(self.experiment.seed, "views")

    @cached_property
    def hears_teacher(self) -> bool:
        """Whether some objective of the space asks a teacher for anything; without, none is made."""
        return bool(taught_objectives(self.space))

    @property
    def teacher_banks(self) -> tuple[str, ...]:
        """The banks on which some objective of the space wants to hear the teacher."""
        wanted = {
            bank for name in self.space.objective_names for bank in OBJECTIVE_CONFIGS[name].teacher_banks
        }
        return tuple(sorted(wanted, reverse=True))

    @cached_property
    def teacher_features(self) -> Mapping[str, tuple[str, ...]]:
        """The teacher's features that some objective of the space asks for, by bank."""
        return asked_features(self.space)

    @cached_property
    def asks_classifier(self) -> bool:
        """Whether some objective of the space asks for the weights of the teacher's last linear layer."""
        return asks_classifier(self.space)

    @cached_property
    def live_features(self) -> tuple[str, ...]:
        """The teacher's features that objectives ask for and no cache keeps: it runs beside the student."""
        config = self.experiment.cache
        return tuple(sorted(name for name in self._asked_names if config.online or not config.is_kept(name)))

    @property
    def _asked_names(self) -> set[str]:
        return {name for names in self.teacher_features.values() for name in names}

    @property
    def _feature_facts(self) -> list[Any]:
        """How students hear the teacher's features: from where, and which parts of its network they are."""
        facts: list[Any] = list(self.experiment.cache.feature_facts(self._asked_names))
        model = self.experiment.teacher.model
        stated = stated_parts(model.features, self.teacher_features) if model is not None else {}
        return [*facts, stated] if stated else facts

    @cached_property
    def kept_features(self) -> dict[str, tuple[str, ...]]:
        """The teacher's features that the cache keeps, by bank; below `teacher` its classifier."""
        config, asked = self.experiment.cache, self.teacher_features
        return config.kept_features(self.teacher_banks, asked, classifier=self.asks_classifier)

    def workbench(self, cache: CacheSummary | None, *, teacher: TeacherFacts | None = None) -> WorkbenchSpec:
        """The workbench of all students of the run; the teacher is needed where it is asked live."""
        config = self.experiment.cache
        kept = self.kept(teacher) if teacher is not None and self.hears_teacher else None
        live = None
        if kept is not None:
            live = OnlineSpec(network=kept, batch_size=config.batch_size, autocast=config.autocast)
        return WorkbenchSpec(
            data=self.experiment.data,
            views=self.experiment.views,
            view_seed=self.view_seed,
            cache_uri=cache.uri if cache else None,
            cache_manifest=cache.manifest if cache else None,
            online=live if config.online else None,
            beside=live if cache and self.live_features else None,
            kept=self.kept_features if cache else None,
            checkpoints=str(self.out / "students"),
            start=self.start,
            code=self._students_code,
        )

    def search_key(self, split: SplitFacts, teacher: TeacherFacts | None, cache: CacheIdentity | None) -> str:
        """Fingerprint of all that a proposal's result depends on, a teacher too where one is heard.

        The budget is not in it, so a search goes on where it was when that is raised. A population is
        another one then: who forks off whom depends on all of its members.
        """
        experiment = self.experiment
        start, code = self.start, self._students_code
        is_population = self.space.scheduler.name == "pbt"
        unlabelled = experiment.data.unlabelled
        return digest_of(
            {
                **(_known(teacher) if teacher else {}),
                "data": split.plain(),
                "cache": cache.plain() if cache else None,
                "views": experiment.views.plain(),
                "student": known_by(experiment.student.network),
                **({"start": start.sha256} if start else {}),  # not its place: the file may be moved
                **({"code": code} if code else {}),
                "training": experiment.training.plain(),
                **({"peers": peers_as_known(experiment.peers)} if experiment.peers else {}),
                "space": self.space.plain(),
                "seed": experiment.seed,
                **({"unlabelled": _learning(unlabelled)} if unlabelled else {}),
                **({"features": facts} if (facts := self._feature_facts) else {}),
                **({"population": experiment.budget.trials} if is_population else {}),
            }
        )


def _known(teacher: TeacherFacts) -> dict[str, Any]:
    parts = [part.sha256 for part in teacher.prepared]
    return {"teacher": teacher.fingerprint, **({"prepared": parts} if parts else {})}


def _learning(unlabelled: UnlabelledConfig) -> dict[str, Any]:
    """How students learn from unlabelled images; which ones these are is among the facts of the data."""
    return unlabelled.model_dump(include={"share", "top_class_as_target"})


@contextmanager
def quiet_run(loaded: LoadedExperiment, console: Console) -> Iterator[Run]:
    """The experiment as stages see it; nothing is started, and no folder is made for one that never ran."""
    loaded, out = pinned(loaded), out_folder(loaded)
    with tempfile.TemporaryDirectory() as nowhere:
        ledger = Ledger(out if (out / "ledger.jsonl").exists() else Path(nowhere))
        try:
            with Workers(loaded.config, out, console) as workers:
                weights = None if out.exists() else Path(nowhere)
                yield Run(loaded, out, ledger, Stages(ledger, console), workers, console, weights)
        finally:
            ledger.close()
