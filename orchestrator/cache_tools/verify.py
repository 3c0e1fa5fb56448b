"""Looking after a cache that exists: verify and repair, tell what is in it, clean up."""

from __future__ import annotations

from typing import Any

from orchestrator.cache_tools.target import CacheTarget
from orchestrator.terminal.console import Console
from trainables.cache.format.disk_space import bytes_in_words
from trainables.cache.format.manifest import Manifest, read_manifest
from trainables.cache.format.storage import Place
from trainables.cache.tools.inspection import Inspection, inspect_cache
from trainables.cache.tools.repair import publish_again, withdraw
from trainables.cache.tools.statistics import BankFigures, bank_figures


def verify_cache(target: CacheTarget, console: Console, *, deep: bool, repair: bool) -> dict[str, Any]:
    """Look at every file; with `deep` read them whole and have the teacher answer a random sample again.

    With `repair`, what is damaged is computed again, alone. In the result `ok` says whether nothing is left.

    Raises:
        CacheError: there is no cache, rows are not what the teacher says, or nothing can repair it.
    """
    place, owner = target.place, target.owner
    inspection = _inspected(place, console, deep=deep)
    found = [_plain(inspection)]
    if repair and (inspection.damaged or inspection.is_stale):
        _repair(target, inspection)
        inspection = _inspected(place, console, deep=deep)
        found.append(_plain(inspection))
    proof = None
    if deep and owner is not None and not inspection.damaged and inspection.manifest is not None:
        console.info("asking the teacher about a random sample again")
        proof = owner.prove()
        console.info(
            f"{proof.pairs} answers agree with the live teacher, largest difference of a logit "
            f"{proof.largest_difference:.2g}"
            if proof.pairs
            else "imported logits: labels and accuracy are those on record, and no network is here to ask"
        )
    return {
        "uri": place.uri,
        "ok": not inspection.findings,
        "files": inspection.files,
        "findings": found[0],
        "left": found[-1],
        "proof": proof.plain() if proof else None,
    }


def tell_of_cache(target: CacheTarget, console: Console, *, by_view: bool) -> dict[str, Any]:
    """The table of a cache's banks, with the teacher's accuracy, confidence and entropy in each.

    Raises:
        CacheError: there is no complete cache, or a file cannot be read.
    """
    place = target.place
    manifest, sha256 = read_manifest(place)
    with console.progress("files read") as progress:
        figures = bank_figures(
            place, manifest, progress=lambda done, total: progress.update(done, total=total)
        )
    identity = manifest.identity
    kept = identity.dtype.value if identity.top_k is None else f"{identity.dtype.value} {identity.top_k}"
    console.info(f"{place.uri}")
    unlabelled = figures[0].views[0].unlabelled
    samples = f"{manifest.n_rows:,} samples{f' ({unlabelled:,} of them unlabelled)' if unlabelled else ''}"
    console.info(
        f"teacher {identity.teacher[:8]}, data {identity.data[:8]}, {samples}, "
        f"{identity.n_classes} classes, kept as {kept}, {bytes_in_words(manifest.bytes)}"
    )
    rows = [row for bank in figures for row in _rows(bank, by_view=by_view)]
    columns = ("bank", "views", "recipe", "rows", "size", "teacher right, %", "confidence", "entropy, nats")
    console.table("banks", columns, rows)
    features = _told_features(manifest, console)
    return {
        "uri": place.uri,
        "manifest": sha256,
        "identity": identity.plain(),
        "bytes": manifest.bytes,
        "embedding_width": manifest.embedding_width,
        "feature_precision": manifest.feature_precision.value,
        "features": features,
        "banks": [
            {
                **bank.plain(),
                "rows": bank.rows,
                **{name: bank.mean(name) for name in ("accuracy", "confidence", "entropy")},
            }
            for bank in figures
        ],
    }


def _told_features(manifest: Manifest, console: Console) -> list[dict[str, Any]]:
    """Bank and name of each feature, the shape of a row and its bytes, which are shown too."""
    sizes: dict[tuple[str, str], int] = {}
    for record in manifest.shards:
        key = (record.shard.bank, record.shard.part)
        sizes[key] = sizes.get(key, 0) + record.bytes
    told, rows = [], []
    for bank, names in manifest.features.items():
        for name in names:
            shape, size = manifest.shape_of(name) or (), sizes[bank, name]
            told.append({"bank": bank, "feature": name, "shape": list(shape), "bytes": size})
            rows.append((bank, name, " x ".join(map(str, shape)), bytes_in_words(size)))
    if rows:
        title = f"features, kept as {manifest.feature_precision.value}"
        console.table(title, ("bank", "feature", "of a row", "size"), rows)
    return told


def _inspected(place: Place, console: Console, *, deep: bool) -> Inspection:
    with console.progress("files read" if deep else "files looked at") as progress:
        inspection = inspect_cache(
            place, deep=deep, progress=lambda done, total: progress.update(done, total=total)
        )
    for finding in inspection.findings:
        console.info(finding.sentence())
    if not inspection.findings:
        console.info(
            f"{place.uri}: {inspection.files} files are what the records say"
            f"{'' if deep else ' by size and rows; --deep reads them whole'}"
        )
    return inspection


def _repair(target: CacheTarget, inspection: Inspection) -> None:
    if target.owner is None or not (inspection.damaged or inspection.manifest is None):
        publish_again(target.place, inspection)
        return
    with target.place.exclusive():
        withdraw(target.place, inspection)
    target.owner.complete()


def _plain(inspection: Inspection) -> list[dict[str, str]]:
    return [
        {"fault": str(finding.fault), "file": finding.file, "detail": finding.detail}
        for finding in inspection.findings
    ]


def _rows(bank: BankFigures, *, by_view: bool) -> list[tuple[str, ...]]:
    recipe = ", ".join(bank.steps) or "unaltered"
    total = (
        bank.bank,
        str(len(bank.views)),
        recipe,
        f"{bank.rows:,}",
        bytes_in_words(bank.bytes),
        f"{100 * bank.mean('accuracy'):.2f}",
        f"{bank.mean('confidence'):.3f}",
        f"{bank.mean('entropy'):.3f}",
    )
    lines: list[tuple[str, ...]] = [total]
    for number, view in enumerate(bank.views if by_view else ()):
        figures = (f"{100 * view.accuracy:.2f}", f"{view.confidence:.3f}", f"{view.entropy:.3f}")
        lines.append(("", f"view {number}", "", f"{view.rows:,}", "", *figures))
    return lines
