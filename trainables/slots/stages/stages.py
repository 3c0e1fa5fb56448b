"""Stages that some worker does before students are trained, by name; a slot does them, or a task of Ray's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from trainables.config import DataConfig
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.slots.lru_cache import LruCache
from trainables.slots.messages import Stage
from trainables.teacher.selection_answers import AnswersRequest, find_answers
from trainables.teacher.shard_worker import TeacherWorker
from trainables.training.measure_ensemble import EnsembleRequest, measure_ensemble
from trainables.training.prepare_teacher import PreparationRequest, prepare_teacher
from trainables.training.train_teacher import TeacherRequest, make_teacher

Tell = Callable[[int, dict[str, float]], None]
"""Called with each epoch and its figures."""
Kept = LruCache[str, Any]
"""What a worker keeps from one part of a stage to the next."""
Doing = Callable[[Mapping[str, Any], Tell, Kept], dict[str, Any]]


def _split(request: Mapping[str, Any], _tell: Tell, _kept: Kept) -> dict[str, Any]:
    return split_facts(load_training(DataConfig.from_plain(request))).plain()


def _teacher(request: Mapping[str, Any], tell: Tell, _kept: Kept) -> dict[str, Any]:
    return make_teacher(TeacherRequest.from_plain(request), tell).plain()


def _preparation(request: Mapping[str, Any], tell: Tell, _kept: Kept) -> dict[str, Any]:
    asked = PreparationRequest.from_plain(request["request"])
    return prepare_teacher(asked, tell, heard=request["heard"]).plain()


def _ensemble(request: Mapping[str, Any], _tell: Tell, _kept: Kept) -> dict[str, Any]:
    return measure_ensemble(EnsembleRequest.from_plain(request)).plain()


def _answers(request: Mapping[str, Any], _tell: Tell, _kept: Kept) -> dict[str, Any]:
    find_answers(AnswersRequest.from_plain(request))
    return {}


def _shards(request: Mapping[str, Any], _tell: Tell, kept: Kept) -> dict[str, Any]:
    worker: TeacherWorker = kept.get(request["cache"], lambda: TeacherWorker(*request["worker"]))
    return {"answer": worker({"shards": [request["shards"]]})["answer"][0]}


STAGES: Final[Mapping[Stage, Doing]] = MappingProxyType(
    {
        Stage.SPLIT: _split,
        Stage.TEACHER: _teacher,
        Stage.PREPARATION: _preparation,
        Stage.ENSEMBLE: _ensemble,
        Stage.ANSWERS: _answers,
        Stage.SHARDS: _shards,
    }
)
