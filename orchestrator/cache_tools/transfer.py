"""Into a cache and out of it: logits that someone brings, plain tables, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from orchestrator.cache_tools.owner import require_teacher_banks
from orchestrator.cache_tools.target import CacheTarget
from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.paths import imported_file
from orchestrator.pipeline.cache_stage import cache_request
from orchestrator.pipeline.context import quiet_run
from orchestrator.pipeline.teachers.imported import imported_facts, keep_imported
from orchestrator.terminal.console import Console
from trainables.cache.format.disk_space import bytes_in_words
from trainables.cache.format.manifest import read_manifest
from trainables.cache.format.storage import open_place
from trainables.cache.node.reader import open_cache
from trainables.cache.tools.export_features import export_feature
from trainables.cache.tools.export_table import export_plain, require_suffix
from trainables.cache.tools.import_logits import BroughtLogits, check_logits, import_logits
from trainables.cache.tools.logit_files import read_logits
from trainables.cache.tools.sample_picture import draw_picture, views_of_sample
from trainables.config import OBJECTIVE_CONFIGS, BroughtValues, Need
from trainables.data import TrainingData, load_training
from trainables.data.splits import NO_LABEL
from trainables.errors import ConfigError
from trainables.teacher.alignment_proof import prove_alignment
from trainables.teacher.selection_answers import answers_in, are_held, keep_answers


def import_file(
    file: Path, loaded: LoadedExperiment, console: Console, values: BroughtValues = "logits"
) -> dict[str, Any]:
    """Make the cache of an experiment from logits in a file, for its runs to use instead of a teacher.

    Raises:
        ConfigError: the experiment has a network as its teacher, or no cache.
        DataError: the file cannot be read, or its logits do not fit the training split.
        CacheError: the cache cannot be written.
    """
    _require_imported(loaded)
    data = load_training(loaded.config.data)
    brought = check_logits(file, *read_logits(file, values), data, values)
    with quiet_run(loaded, console) as run:
        require_teacher_banks(run)
        request = cache_request(run, imported_facts(brought.record, data))
    place = open_place(request.uri)
    banks = {name: request.views.bank(name) for name in request.banks}
    with console.progress("files written") as progress:
        written = import_logits(
            place,
            request.origin,
            banks,
            brought,
            data,
            lambda done, total: progress.update(done, total=total),
        )
    reader = open_cache(request.uri, kept=request.features)
    prove_alignment(reader, data, None, request.views, request.view_seed, banks=request.banks)
    keep_imported(loaded, brought.record)
    _keep_selection_answers(loaded, brought, data)
    record = brought.record
    console.info(
        f"{file}: {len(data.train.ids):,} answers, right on {100 * record.accuracy:.2f} % of the training "
        f"split (by chance {100 * record.chance:.2f} %); files written to {place.uri}: {len(written)}"
    )
    if values == "probabilities":
        _tell_of_constants(loaded, console)
    console.info(f"next: stillhouse run {loaded.source}")
    return {"uri": place.uri, "files": len(written), **record.plain()}


def _keep_selection_answers(loaded: LoadedExperiment, brought: BroughtLogits, data: TrainingData) -> None:
    """Those logits of the file that students are compared with, where it has them and they are few enough."""
    if brought.selection_NC is not None and are_held(data):
        folder = imported_file(loaded).parent
        kept = answers_in(folder, teacher=brought.record.teacher, data=data.digest)
        keep_answers(kept, torch.from_numpy(brought.selection_NC), data)


def _require_imported(loaded: LoadedExperiment) -> None:
    if not loaded.config.has_teacher:
        raise ConfigError(
            f"{loaded.source} has no teacher whose logits these could be; write "
            "`teacher: {imported: true}`, and take a space with an objective that hears one"
        )
    if not loaded.config.teacher.imported:
        raise ConfigError(
            f"{loaded.source} has a network as its teacher, and nothing tells whether the logits are its "
            "own; write `teacher: {imported: true}` in its place"
        )


def _tell_of_constants(loaded: LoadedExperiment, console: Console) -> None:
    names = [name for name in loaded.space.objective_names if Need.UNSHIFTED in OBJECTIVE_CONFIGS[name].needs]
    if names:
        console.info(
            f"of the probabilities the logarithms are kept, each row's logits but for a constant, which "
            f"{', '.join(names)} would not take off: it compares logits as they are"
        )


def export_file(
    target: CacheTarget, file: Path, banks: Sequence[str], console: Console, *, feature: str | None = None
) -> dict[str, Any]:
    """Write logits, or a feature, of all or some banks as one Parquet or CSV file of plain columns.

    Raises:
        ConfigError: another suffix than .parquet or .csv, or an unknown bank or feature.
        CacheError: there is no complete cache, or a file cannot be read or written.
    """
    require_suffix(file)
    manifest, _ = read_manifest(target.place)
    with console.progress("rows") as progress:
        write = export_plain if feature is None else partial(export_feature, feature=feature)
        rows = write(
            target.place,
            manifest,
            file,
            banks=tuple(banks) or tuple(manifest.banks),
            progress=lambda done, total: progress.update(done, total=total),
        )
    size = file.stat().st_size
    console.info(f"{file}: {rows:,} rows, {bytes_in_words(size)}")
    return {"file": str(file), "rows": rows, "bytes": size}


def show_sample(target: CacheTarget, sample: int, file: Path | None, console: Console) -> dict[str, Any]:
    """Draw a sample's views, with the teacher's most probable classes under each.

    Raises:
        ConfigError: only a place was given, or the training split has no such sample.
        CacheError: there is no complete cache, or a file cannot be read or written.
    """
    owner = target.owner
    if owner is None:
        raise ConfigError("a cache holds no images; give the experiment: stillhouse cache show EXPERIMENT")
    request = owner.request
    manifest, _ = read_manifest(target.place)
    data = load_training(request.data)
    views = views_of_sample(
        target.place, manifest, data, request.views, sample=sample, seed=request.view_seed
    )
    file = file or Path(f"sample-{sample}.png")
    row = data.ids_M.tolist().index(sample)
    given = int(data.labels_M[row])
    label = "none" if given == NO_LABEL else data.classes[given]
    draw_picture(views, file, title=f"sample {sample}: {label}", label=label)
    console.info(f"{file}: {len(views)} views of sample {sample}, whose label is {label}")
    said = [{"bank": view.bank, "view": view.view, "top": dict(view.top)} for view in views]
    return {"file": str(file), "sample": sample, "label": label, "views": said}
