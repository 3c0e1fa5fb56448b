"""Runs that nobody trained: their ledgers are written as a run writes them, with times that are made up."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from orchestrator.records.chain import Chain
from orchestrator.records.costs import StudentCosts
from orchestrator.records.events import (
    EpochEnded,
    KnownEvent,
    StageEvent,
    TrialEnded,
    TrialStarted,
)
from orchestrator.records.exported_files import Exported
from orchestrator.records.kept_answers import NO_ANSWERS
from orchestrator.records.ledger import Ledger
from orchestrator.records.selection import Group, group_trials
from orchestrator.records.student_figures import control_students, finalist_of
from orchestrator.records.summary import (
    CacheFigures,
    MlflowPlace,
    Summary,
    TeacherFigures,
    champion_of,
    trial_row,
)
from orchestrator.reports.run_facts import RunFacts
from tests.synthetic_answers import SyntheticAnswers
from trainables.config import Role, TrialSpec

START_MS = 1_790_000_000_000
SEARCH = "5ea7c4"
SECONDS_AN_EPOCH = 2.0
COSTS = {
    width: StudentCosts(params=900.0 * width**2, size_bytes=4e3 * width**2, latency_ms=0.05 * width)
    for width in (4, 8, 16, 32)
}
LOG_DOMAINS = {"training.lr": True, "temperature": False, "kd_weight": False, "weak_threshold": False}


@dataclass
class LedgerLines:
    """Lines of a ledger, which are sealed without waiting for a disk."""

    chain: Chain = field(default_factory=Chain)
    lines: list[bytes] = field(default_factory=list)
    _before: int = 0

    def write(self, event: KnownEvent, time_ms: float) -> None:
        plain = event.model_copy(
            update={"seq": self._before + len(self.lines), "time_ms": int(time_ms)}
        ).plain()
        line = self.chain.sealed(json.dumps(plain, separators=(",", ":")).encode())
        self.chain.follow(line)
        self.lines.append(line)

    def clear(self) -> None:
        """Forget the lines, which somebody wrote to the file; those to come follow them."""
        self._before += len(self.lines)
        self.lines.clear()


@dataclass(frozen=True)
class SyntheticRun:
    """How large it is; the same numbers give the same run."""

    trials: int = 40
    epochs: int = 8
    slots: int = 4
    seeds: int = 3
    finalists: int = 2
    is_over: bool = True
    """Whether finalists were trained and a champion was chosen; else the search stands at four fifths."""
    seed: int = 7
    answers: SyntheticAnswers | None = None
    """With these, single answers are kept of a run that is over, and its champion was picked from a front."""

    def write(self, folder: Path) -> Ledger:
        """Its ledger in a folder, and the ledger opened."""
        folder.mkdir(parents=True, exist_ok=True)
        writer, random = LedgerLines(), Random(self.seed)
        began = self._stages_before(writer)
        specs = [self._proposal(number, random) for number in range(self.trials)]
        started = specs if self.is_over else specs[: max(4 * self.trials // 5, 1)]
        events, ends = self._trained([(spec, None) for spec in started], began, random)
        if not self.is_over:
            cut = sorted(time for time, _ in events)[int(0.9 * len(events))]
            events = [(time, event) for time, event in events if time <= cut]
        for time, event in events:
            writer.write(event, time)
        if self.is_over:
            self._finalists(writer, specs, ends, random)
        (folder / "ledger.jsonl").write_bytes(b"".join(writer.lines))
        ledger = Ledger(folder)
        ledger.close()
        return ledger

    def facts(self, folder: Path) -> RunFacts:
        """What the report shows of it; the ledger is written first."""
        ledger = self.write(folder)
        records = ledger.trials(role=Role.SEARCH)
        figures = {
            r.trial: COSTS[r.parameters["student.width"]].numbers()
            for r in records
            if r.status == "completed"
        }
        summary, answers = self._summary(ledger) if self.is_over else None, NO_ANSWERS
        if summary is not None and self.answers is not None:
            summary, answers = self.answers.beside(summary, folder)
        return RunFacts(
            experiment="synthetic",
            records=records,
            events=ledger.events(),
            summary=summary,
            figures=figures if self.is_over else {},
            repeated=[r for r in ledger.trials() if r.role is not Role.SEARCH],
            trials=self.trials,
            log_domains=LOG_DOMAINS,
            answers=answers,
        )

    def _stages_before(self, writer: LedgerLines) -> float:
        now = float(START_MS)
        found: dict[str, dict[str, Any]] = {"teacher": {"selection_accuracy": 0.97}, "cache": {}}
        for stage, seconds in (("preflight", 5), ("teacher", 60), ("cache", 12)):
            writer.write(StageEvent(stage=stage, key="k", status="started"), now)
            now += 1000 * seconds
            done = StageEvent(
                stage=stage, key="k", status="finished", seconds=seconds, result=found.get(stage, {})
            )
            writer.write(done, now)
        writer.write(StageEvent(stage="search", key="k", status="started"), now)
        return now

    def _proposal(self, number: int, random: Random) -> TrialSpec:
        objective: dict[str, Any] = {"name": "kd", "temperature": round(random.uniform(1, 8), 2)}
        if number % 3 == 2:
            objective |= {"name": "crld", "weak_threshold": round(random.uniform(0.3, 0.95), 2)}
        else:
            objective["kd_weight"] = round(random.uniform(0.1, 4), 2)
        return TrialSpec.from_plain(
            {
                "trial_id": f"{objective['name']}-{number:06x}",
                "role": "search",
                "objective": objective,
                "student": {"name": "resnet8", "width": random.choice(list(COSTS))},
                "training": {"epochs": self.epochs, "lr": round(10 ** random.uniform(-3, 0), 5)},
                "seed": number,
            }
        )

    def _trained(
        self, jobs: Sequence[tuple[TrialSpec, str | None]], began: float, random: Random
    ) -> tuple[list[tuple[float, KnownEvent]], float]:
        """The events of these students on the slots, by time, and when the last one ended."""
        free = [began] * self.slots
        events: list[tuple[float, KnownEvent]] = []
        for spec, repeats in jobs:
            now = heapq.heappop(free)
            for time, event in self._course(spec, repeats, now, random):
                events.append((time, event))
                now = time
            heapq.heappush(free, now)
        return sorted(events, key=lambda pair: pair[0]), max(free)

    def _course(
        self, spec: TrialSpec, repeats: str | None, now: float, random: Random
    ) -> list[tuple[float, KnownEvent]]:
        quality = _quality(spec) + random.gauss(0, 0.006)
        is_search = spec.role is Role.SEARCH
        pruned_at = max(self.epochs // 4, 1) if is_search and quality < 0.86 else None
        events: list[tuple[float, KnownEvent]] = [(now, _start_of(spec, repeats))]
        found: list[dict[str, float]] = []
        for epoch in range(1, (pruned_at or self.epochs) + 1):
            seconds = SECONDS_AN_EPOCH * (1.6 if spec.objective.name == "crld" else 1.0)
            now += 1000 * seconds
            reached = quality * (1 - math.exp(-3.5 * epoch / self.epochs)) + random.gauss(0, 0.002)
            metrics = {"train/loss": 2 - reached, "selection/accuracy": min(reached, 1.0), "seconds": seconds}
            metrics["selection/nll"], metrics["selection/ece"] = 2 * (1 - reached), 0.2 * (1 - reached)
            if spec.objective.name == "crld":
                share = 1 - math.exp(-4 * epoch / self.epochs)
                metrics |= {"train/kept_weak": 0.9 * share, "train/kept_strong": 0.6 * share}
            found.append(metrics)
            events.append((now, EpochEnded(trial=spec.trial_id, epoch=epoch, metrics=metrics)))
        best = max(range(len(found)), key=lambda number: found[number]["selection/accuracy"])
        end = TrialEnded(
            trial=spec.trial_id,
            status="pruned" if pruned_at else "completed",
            epochs=len(found),
            final=found[-1],
            reason="stopped early" if pruned_at else None,
            best_epoch=best + 1,
            best=found[best],
            checkpoint=None if pruned_at else f"students/{spec.trial_id}/best.safetensors",
        )
        return [*events, (now + 200, end)]

    def _finalists(self, writer: LedgerLines, specs: Sequence[TrialSpec], now: float, random: Random) -> None:
        writer.write(StageEvent(stage="search", key="k", status="finished", seconds=1.0, result={}), now)
        writer.write(StageEvent(stage="finalists", key="k", status="started"), now)
        chosen = sorted(specs, key=_quality, reverse=True)[: self.finalists]
        jobs = [
            (_repeated(spec, seed, role), name)
            for seed in range(self.seeds)
            for spec in chosen
            for role, name in ((Role.BASELINE, "ce-control"), (Role.FINALIST, spec.trial_id))
            if role is Role.FINALIST or spec is chosen[0]
        ]
        events, ends = self._trained(jobs, now, random)
        for time, event in events:
            writer.write(event, time)
        done = StageEvent(stage="finalists", key="k", status="finished", seconds=1.0, result={})
        writer.write(done, ends)

    def _summary(self, ledger: Ledger) -> Summary:
        completed = ledger.trials()
        (control_group,) = group_trials([r for r in completed if r.role is Role.BASELINE])
        groups = group_trials([r for r in completed if r.role is Role.FINALIST])
        tested = {
            record.trial: {"accuracy": record.best["selection/accuracy"] - 0.01, "ece": 0.02}
            for record in completed
            if record.role is not Role.SEARCH
        }
        width = {"student.width": groups[0].parameters["student.width"]}
        control = control_students(control_group, tested, _costs_of(groups[0]), varied=width)
        finalists = tuple(finalist_of(group, [control], tested, _costs_of(group)) for group in groups)
        exports = {"onnx": Exported(path="champion/student.onnx", max_abs_difference=1e-6)}
        champion = finalists[0]
        return Summary(
            experiment="synthetic",
            out="out/synthetic",
            seconds={"preflight": 5.0, "teacher": 60.0, "cache": 12.0, "search": 400.0, "finalists": 80.0},
            teacher=TeacherFigures(
                params=2_000_000, selection_accuracy=0.97, test_accuracy=0.965, latency_ms=6.0
            ),
            cache=CacheFigures(uri="cache/3f2a", fingerprint="3f2a", rows=36_000, bytes=1_048_576),
            trials=tuple(
                trial_row(r, COSTS[r.parameters["student.width"]] if r.status == "completed" else None)
                for r in completed
                if r.role is Role.SEARCH
            ),
            finalists=finalists,
            champion=champion_of(champion, champion.trials[0], dict(exports), "champion/model_card.json"),
            mlflow=MlflowPlace(
                tracking_uri="sqlite:///mlflow.db",
                experiment_id="1",
                parent_run_id="abc",
                ui_url="http://127.0.0.1:5000/#/experiments/1",
                registered_model="stillhouse-synthetic",
                version="1",
            ),
            ledger=ledger.mark(),
        )


def _quality(spec: TrialSpec) -> float:
    """What it would reach: best at a learning rate of 0.05, a temperature of 4, and the wider the better."""
    rate = -0.02 * (math.log10(spec.training.lr) + 1.3) ** 2
    heat = -0.004 * (getattr(spec.objective, "temperature", 1.0) - 4) ** 2
    width = 0.01 * math.log2(spec.student.width or 4)
    return 0.9 + rate + heat + width + (0.01 if spec.objective.name == "crld" else 0.0)


def _searched(spec: TrialSpec) -> dict[str, Any]:
    names = ("temperature", "weak_threshold" if spec.objective.name == "crld" else "kd_weight")
    own = spec.objective.plain()
    return {
        "objective": spec.objective.name,
        **{name: own[name] for name in names if name in own},
        "student.width": spec.student.width,
        "training.lr": spec.training.lr,
    }


def _repeated(spec: TrialSpec, seed: int, role: Role) -> TrialSpec:
    """Its repetition as a finalist; or the control, which learns from the labels alone."""
    name = "ce-control" if role is Role.BASELINE else spec.trial_id
    changes: dict[str, Any] = {"trial_id": f"{name}-seed{seed}", "role": role, "seed": seed}
    return spec.with_overrides(**changes, **({"objective": {"name": "ce"}} if role is Role.BASELINE else {}))


def _start_of(spec: TrialSpec, repeats: str | None) -> TrialStarted:
    parameters = {} if spec.role is Role.BASELINE else _searched(spec)
    fields: dict[str, Any] = {} if repeats is None else {"repeats": repeats}
    return TrialStarted(
        trial=spec.trial_id,
        role=spec.role,
        search=SEARCH,
        objective=spec.objective.name,
        parameters=parameters,
        spec=spec.plain(),
        sampled={},
        **fields,
    )


def _costs_of(group: Group) -> StudentCosts:
    return COSTS[group.parameters["student.width"]]
