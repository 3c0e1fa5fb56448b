"""What is done about damage: withdraw what is wrong, so that the next build computes that alone."""

from __future__ import annotations

from trainables.cache.format.manifest import (
    KEPT_MANIFESTS,
    MANIFEST,
    ORIGIN,
    Manifest,
    discard_shards,
    read_record,
    write_record,
)
from trainables.cache.format.planning import plan_shards, publish
from trainables.cache.format.records import Origin
from trainables.cache.format.storage import Place
from trainables.cache.tools.inspection import Fault, Inspection
from trainables.config.cache import LOGITS, is_whole_map
from trainables.errors import CacheError


def withdraw(place: Place, inspection: Inspection) -> int:
    """Withdraw the commit records of damaged shards, and manifests that nobody can use; gives the shards.

    Foreign files are left to whoever put them there. The manifest goes on promising the views that it did, so
    the next build completes the logits of them all. Damaged files of features are removed: the next build may
    be that of an experiment that does not ask for them, and leaves them to the one that does.

    Raises:
        CacheError: the folder cannot be written.
    """
    discard_shards(place, inspection.damaged)
    there = place.sizes()
    for shard in inspection.damaged:
        if shard.part != LOGITS and shard.file in there:
            place.remove(shard.file)
    for finding in inspection.findings:
        if finding.fault is Fault.STALE and finding.file.startswith(KEPT_MANIFESTS) and finding.file in there:
            place.remove(finding.file)
    if inspection.manifest is None:
        place.remove(MANIFEST)
    elif not _has_origin(place):
        write_record(place, ORIGIN, _origin_of(inspection.manifest))
    return len(inspection.damaged)


def publish_again(place: Place, inspection: Inspection) -> str:
    """Write a manifest that says what the commit records say, and return its sha256.

    Raises:
        CacheError: shards are missing, or the manifest cannot be read: only a build by the experiment, which
            knows the teacher and the banks, helps then.
    """
    manifest = inspection.manifest
    if manifest is None or inspection.damaged:
        raise CacheError(
            f"{place.uri} can only be repaired with the teacher that made it; give the experiment instead of "
            "the place: stillhouse cache verify EXPERIMENT --repair"
        )
    with place.exclusive():
        withdraw(place, inspection)
        origin = read_record(place, ORIGIN, Origin) or _origin_of(manifest)
        promised = origin.with_overrides(features=manifest.features)
        return publish(place, plan_shards(place, promised, manifest.banks), manifest.versions)


def _has_origin(place: Place) -> bool:
    try:
        return read_record(place, ORIGIN, Origin) is not None
    except CacheError:
        return False


def _origin_of(manifest: Manifest) -> Origin:
    """What the folder is for, as far as its manifest tells."""
    in_maps = [record.shard.rows for record in manifest.shards if is_whole_map(record.shard.part)]
    return Origin(
        identity=manifest.identity,
        n_rows=manifest.n_rows,
        classes=manifest.classes,
        rows_per_shard=max(record.shard.rows for record in manifest.shards if record.shard.part == LOGITS),
        recipes=manifest.recipes,
        features=manifest.features,
        feature_precision=manifest.feature_precision,
        made_by=manifest.made_by,
        **({"rows_per_map": max(in_maps)} if in_maps else {}),
    )
