"""Whether a run has nothing left to do: answered from the ledger, without torch, Ray or MLflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.paths import experiment_name, imported_file, out_folder, tracking_uri
from orchestrator.config.picking.figures import ACCURACY
from orchestrator.records.bad_outcomes import bad_outcomes
from orchestrator.records.code_seen import edited_code, is_noted
from orchestrator.records.events import LAST_STAGE, StageEvent
from orchestrator.records.exported_files import Exported
from orchestrator.records.ledger import Ledger
from orchestrator.records.picking.early_refusal import require_somebody
from orchestrator.records.picking.picked import Picked, front_table, told
from orchestrator.records.ranked_figures import splits
from orchestrator.records.summary import Champion, Summary, champions_group, read_summary
from orchestrator.records.tables.students_table import comparison, students_table
from orchestrator.terminal.console import Console
from orchestrator.terminal.formatting import counted, percent
from orchestrator.tracking.cursor import CursorFile
from orchestrator.tracking.kept_record import Lack, what_is_lacking
from trainables.checkpoint_header import digests_beside, known_by, weights_file
from trainables.config import ModelConfig, digest_of
from trainables.config.checkpoints import is_elsewhere, is_published
from trainables.config.teacher import ONNX
from trainables.errors import ConfigError
from trainables.image_files import images_stamp
from trainables.local_files import expanded, file_sha256

STAGE = LAST_STAGE


def run_key(loaded: LoadedExperiment, ledger: Ledger) -> str:
    """Fingerprint of both files, wherever they and the output folder lie.

    Checkpoints of teacher and student and a folder of unlabelled images count too, by size and time, what is
    known of imported logits, and code that was edited.
    """
    config = loaded.config.plain()
    paths = ledger.key_paths(loaded.folder)
    teachers = config.get("teachers") or [config[name] for name in ("teacher",) if name in config]
    places = [(config["data"], "root"), (config["cache"], "uri"), *((one, "checkpoint") for one in teachers)]
    for section, name in places:
        if section[name] is not None and not is_elsewhere(section[name]):
            section[name] = paths(section[name])
    unlabelled = config["data"].get("unlabelled")
    if unlabelled and unlabelled["root"] is not None:
        # The stage that counts them looks at the folder too, but a finished run has no stages.
        unlabelled["root"] = [paths(unlabelled["root"]), images_stamp(expanded(unlabelled["root"]))]
    config["space"] = paths(config["space"])
    teacher, student = loaded.config.teacher, loaded.config.student
    for plain, each in zip(teachers, loaded.config.each_teacher, strict=True):
        plain["model"] = each.model and known_by(each.model)
    config["student"].update(known_by(student.network))
    stamp = teacher_stamp(teacher.checkpoint, teacher.model)
    if teacher.imported:
        stamp = file_stamp(str(imported_file(loaded)))
    if loaded.config.teachers:
        stamp = [teacher_stamp(each.checkpoint, each.model) for each in loaded.config.teachers]
    if (start := _local_file(student.checkpoint, student)) is not None:
        named = student.checkpoint if is_published(student.checkpoint) else paths(start)
        config["student"]["checkpoint"] = [named, file_stamp(start)]
    if ledger.former_place is None:  # an earlier version had the place of the output folder in it
        del config["out"]
        if stamp and teacher.imported:  # a copy of the folder has another time
            stamp = [file_sha256(imported_file(loaded))]
    edited = edited_code(loaded.code, ledger)
    return digest_of([config, loaded.space.plain(), stamp, *([edited] if edited else [])])


def teacher_stamp(checkpoint: str | None, model: ModelConfig | None) -> list[Any]:
    """The files of a loaded teacher, as fingerprints hold them: its weights, and what stands beside them."""
    file = _local_file(checkpoint, model)
    return [] if file is None else [*file_stamp(file), *digests_beside(Path(file))]


def _local_file(checkpoint: str | None, model: ModelConfig | None) -> str | None:
    """The file of weights that is read; none where they are elsewhere, and known by their name."""
    if is_published(checkpoint) and model is not None and model.folder is not None:
        return str(weights_file(model.folder))
    return None if is_elsewhere(checkpoint) else checkpoint


def file_stamp(path: str | None) -> list[int]:
    """Size and time of change of a file, by which fingerprints know it; empty where there is none.

    Of an ONNX file also those of the file that may lie beside it with its numbers, under its usual names.
    """
    if path is None or not Path(path).exists():
        return []
    beside = [f"{path}.data", f"{path}_data"] if path.endswith(ONNX) else []
    found = [Path(file).stat() for file in (path, *beside) if Path(file).exists()]
    return [number for status in found for number in (status.st_size, status.st_mtime_ns)]


def finished_summary(loaded: LoadedExperiment) -> Summary | None:
    """The summary of this very run, when it is finished and the champion's files are there.

    A run of a changed file into the same folder has replaced the summary: then there is none of this run.
    """
    out = out_folder(loaded)
    if not (out / "ledger.jsonl").exists():
        return None
    ledger = Ledger(out)
    ledger.close()
    finished = [
        event for event in ledger.events_of(StageEvent) if (event.stage, event.status) == (STAGE, "finished")
    ]
    if not finished or finished[-1].key != run_key(loaded, ledger) or not is_noted(loaded.code, ledger):
        return None
    try:
        summary = read_summary(out / "summary.json")
    except ConfigError:  # gone, damaged or of another version: the run writes it again
        return None
    if summary.ledger is None and ledger.mark().unchecked:  # an earlier version wrote both
        summary = summary.model_copy(update={"ledger": ledger.mark()})
    files = [exported.path for exported in summary.champion.exports.values()]
    return summary if all(Path(file).is_file() for file in files) else None


def is_to_be_recorded(
    loaded: LoadedExperiment, summary: Summary, tell: Callable[[str], None], *, always: bool = False
) -> bool:
    """Whether MLflow's record of a finished run is to be written from the ledger; what it lacks is told.

    Raises:
        StillhouseError: the record is damaged.
    """
    out, uri, name = out_folder(loaded), tracking_uri(loaded), experiment_name(loaded)
    ledger = Ledger(out)
    ledger.close()
    lack = what_is_lacking(ledger, uri=uri, experiment=name, out=out)
    if lack is None and summary.mlflow.lacks is not None:
        lack = Lack(summary.mlflow.lacks, from_the_start=False)
    if lack is None and not always:
        return False
    if always or (lack is not None and lack.from_the_start):
        CursorFile(out, uri, name).forget()
    why = "" if lack is None else f"{lack.why}: "
    tell(f"{why}MLflow's record is written from the ledger, and nothing is trained")
    return True


def require_any_search(loaded: LoadedExperiment) -> None:
    """Refuse at once to pick where no search of any kind was ever finished.

    Raises:
        ConfigError: none was.
    """
    out = out_folder(loaded)
    if (out / "ledger.jsonl").exists():
        ledger = Ledger(out)
        ledger.close()
        if any((e.stage, e.status) == ("search", "finished") for e in ledger.events_of(StageEvent)):
            return
    raise no_search(loaded)


def require_somebody_fits(loaded: LoadedExperiment) -> None:
    """Refuse at once to pick where the ledger tells that no student of this very search can be picked.

    That it is this search is known where the last finished run differs in its section `pick` alone.

    Raises:
        NobodyFits: none meets the constraints.
        StillhouseError: no trial was completed, or none has the figures that are asked for.
    """
    out = out_folder(loaded)
    if not (out / "ledger.jsonl").exists() or not (out / "summary.json").exists():
        return
    ledger = Ledger(out)
    ledger.close()
    try:
        summary = read_summary(out / "summary.json")
    except ConfigError:  # the run writes it again
        return
    then = summary.picked or Picked()
    pick = loaded.config.pick.with_overrides(
        where=then.where,
        rank=None if then.rank == ACCURACY else then.rank,
        pareto=",".join(then.pareto) or None,
    )
    before = replace(loaded, config=loaded.config.with_overrides(pick=pick))
    champion = ledger.trial(summary.champion.trial_id)
    keys = [e.key for e in ledger.events_of(StageEvent) if (e.stage, e.status) == (STAGE, "finished")]
    if champion is None or run_key(before, ledger) not in keys:
        return
    each_objective = loaded.space.search.each_objective
    require_somebody(ledger, loaded.config, champion.search, each_objective=each_objective)


def no_search(loaded: LoadedExperiment) -> ConfigError:
    """The refusal to pick from nothing."""
    return ConfigError(
        f"there is nothing to pick: experiment {loaded.config.name} has no finished search in "
        f"{out_folder(loaded)}; run it first, with the same options"
    )


def show_students(summary: Summary, console: Console) -> None:
    """The table of students, and in words what its gains are over."""
    columns, rows = students_table(summary)
    console.table("students", columns, rows)
    for sentence in (splits(summary), *comparison(summary)):
        console.info(sentence)
    if summary.picked is None:
        return
    for title, students in (("finalists", summary.picked.finalists), ("trials", summary.picked.trials)):
        if students:
            console.table(*front_table(title, students, summary.picked.pareto))
    for sentence in told(summary.picked):
        console.info(sentence)


def show(summary: Summary, console: Console, *, ui_command: str) -> None:
    """What a person sees at the end: the table, the champion, its files and how to open MLflow."""
    show_students(summary, console)
    for line in champion_lines(summary):
        console.info(line)
    for outcome in bad_outcomes(summary):
        console.info(f"warning: {outcome}")
    champion = summary.champion
    for name, exported in champion.exports.items():
        console.info(
            f"  {name}: {_from_here(exported.path)} (max difference {exported.max_abs_difference:.1e}"
            f"{_compared_and_timed(exported)})"
        )
    console.info(f"  card: {_from_here(champion.model_card)}")
    console.info(f"report: {_from_here(Path(summary.out) / 'report.html')}")
    if summary.mlflow.experiment_id is not None:
        console.info(f"ranked runs in MLflow: {ui_command}")


def champion_lines(summary: Summary) -> tuple[str, str, str]:
    """What it is, what it may claim (means over its seeds), and what the exported seed reached by itself."""
    champion, group = summary.champion, champions_group(summary)
    own = group.trials.index(champion.trial_id)
    kind = f" {summary.rank_by.label}" if summary.rank_by.is_of_features else ""
    return (
        f"champion: finalist {summary.finalists.index(group) + 1}, {champion.objective}, "
        f"{champion.params:,} parameters, {_latency(champion)}",
        f"  means over {counted(len(group.seeds), 'seed')}: "
        f"selection{kind} {percent(group.selection_mean)} %, test{kind} {percent(group.test_mean)} %",
        f"  exported: {champion.trial_id}, the seed with the best selection {summary.rank_by.label}: "
        f"selection{kind} {percent(group.selection_accuracies[own])} %, "
        f"test{kind} {percent(group.test_accuracies[own])} %",
    )


def _latency(champion: Champion) -> str:
    """The latency in milliseconds, with its 95th percentile and its device where they are known."""
    p95 = "" if champion.latency_p95_ms is None else f"p95 {champion.latency_p95_ms:.3f} ms"
    device = "" if champion.latency_device is None else f"on {champion.latency_device}"
    more = ", ".join(part for part in (p95, device) if part)
    return f"{champion.latency_ms:.3f} ms" + (f" ({more})" if more else "")


def _compared_and_timed(exported: Exported) -> str:
    """What is known of a file: how often it answers as the student, what it reaches, and how fast it is."""
    told = ""
    if exported.agreement is not None and exported.images is not None:
        told += f", same class for {percent(exported.agreement)} % of {counted(exported.images, 'image')}"
    if exported.accuracy is not None:
        told += f", selection accuracy {percent(exported.accuracy)} %"
    if exported.latency is not None:
        told += f", {exported.latency.batch_1_median_ms:.3f} ms an image"
    return told


def _from_here(path: str | Path) -> str:
    """The path as one would type it in the current folder."""
    return str(Path(path).relative_to(Path.cwd()) if Path(path).is_relative_to(Path.cwd()) else path)
