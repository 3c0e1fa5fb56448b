"""Reading a teacher cache: gathers from memory-mapped arrays, a batch or a whole view at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from torch import Tensor

from trainables.cache.format.logit_encoding import Array, Int64s, decode
from trainables.cache.format.manifest import MANIFEST, Manifest, manifest_bytes, parse_manifest
from trainables.cache.format.storage import Place, open_place
from trainables.cache.node.conversion import BankArrays, open_bank, open_classifier, open_feature
from trainables.cache.node.copies import NodeScratch, default_scratch
from trainables.config import BankConfig, CacheIdentity, Precision
from trainables.config.cache import CLASSIFIER, TEACHER, FeaturePrecision
from trainables.errors import CacheError
from trainables.signals import TeacherClassifier, TeacherSignal

# B = rows asked for, N = training samples, C = classes

SCALAR_BYTES: Final = 8
"""Of a row of a signal: the confidence and the largest logit, both fp32."""

_COPY_NAME: Final = "manifest.json"


def open_cache(
    uri: str,
    *,
    manifest_sha: str | None = None,
    scratch: Path | None = None,
    kept: Mapping[str, tuple[str, ...]] | None = None,
) -> CacheReader:
    """Open a complete cache.

    The Parquet files of a bank are verified and copied to `scratch` (local disk) when the bank is
    first asked for, once per node; afterwards the cache itself is not touched any more.

    Args:
        uri: path or URI of the cache's folder.
        manifest_sha: the manifest that the caller verified; without it the current one.
        scratch: folder for this manifest's arrays; by default one below the system's temporary folder,
            named by the manifest's sha256.
        kept: the features by bank that the caller keeps, with the classifier below `teacher`; without it all
            that the cache has. Others, which other experiments asked for, are not shown.

    Raises:
        CacheError: there is no complete cache, or not the one of that manifest; or it lacks a feature that is
            kept.
    """
    place = open_place(uri)
    current = manifest_bytes(place) if manifest_sha is None else None
    sha256 = manifest_sha or hashlib.sha256(current or b"").hexdigest()
    copy = NodeScratch(scratch or default_scratch(sha256))
    copied = _copied_manifest(copy.folder, sha256)
    data = current or copied or manifest_bytes(place, sha256)
    manifest = parse_manifest(data, place.path(MANIFEST))
    if copied is None:  # so that the next process on this node opens the cache without its network
        open_place(str(copy.folder)).write(_COPY_NAME, data)
    return CacheReader(place, manifest, sha256, copy, kept)


class CacheReader:
    """The teacher's answers by bank, view and row of the training split, whose ids ascend."""

    def __init__(
        self,
        place: Place,
        manifest: Manifest,
        manifest_sha: str,
        scratch: NodeScratch,
        kept: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Nothing is read yet; `kept` as for `open_cache`."""
        self.manifest = manifest
        self.manifest_sha = manifest_sha
        self.place = place
        self._scratch = scratch
        self._arrays: dict[str, BankArrays] = {}
        self._features: dict[tuple[str, str], Array] = {}
        self._kept = manifest.features if kept is None else _required(place.uri, manifest, kept)
        self._shapes = {
            name: manifest.shape_of(name) or () for names in self._kept.values() for name in names
        }

    @property
    def uri(self) -> str:
        """Where the cache lies."""
        return self.place.uri

    @property
    def identity(self) -> CacheIdentity:
        """What the cache was made from."""
        return self.manifest.identity

    @property
    def banks(self) -> Mapping[str, BankConfig]:
        """Recipe and number of views of each bank."""
        return MappingProxyType(self.manifest.banks)

    @property
    def ids(self) -> Tensor:
        """N int64 sample ids, in the order of the rows."""
        return torch.from_numpy(np.array(self.arrays(next(iter(self.manifest.banks))).ids[0]))

    def features(self, bank: str) -> tuple[str, ...]:
        """The names of the features that are kept beside the logits of a bank."""
        return self._kept.get(bank, ()) if bank in self.manifest.banks else ()

    @property
    def made_by(self) -> dict[str, str]:
        """What makes each feature that is shown, where that is not the network as it is built."""
        return {name: by for name, by in self.manifest.made_by.items() if name in self._shapes}

    def feature_shapes(self, bank: str) -> dict[str, tuple[int, ...]]:
        """The shape of one row of each feature of a bank: (D,), (C, H, W) and so on."""
        return {name: self._shapes[name] for name in self.features(bank)}

    def classifier(self) -> TeacherClassifier | None:
        """The weights of the teacher's last linear layer; none where the cache does not keep them.

        Raises:
            DamagedCache: the file is missing, cut short or altered.
        """
        if CLASSIFIER not in self._kept.get(TEACHER, ()):
            return None
        whole = torch.from_numpy(np.array(open_classifier(self.place, self.manifest, self._scratch.folder)))
        return TeacherClassifier(whole[:, :-1].contiguous(), whole[:, -1].contiguous())

    def signal(self, bank: str, view: int, rows_B: Tensor, features: Sequence[str] = ()) -> TeacherSignal:
        """What the teacher said about these rows (int64) of a view, on the CPU, with features by name.

        Raises:
            CacheError: the cache has no such bank, view, row or feature.
        """
        arrays = self.arrays(bank, view)
        rows = self._known_rows(rows_B)
        logits_BC = self._decoded(_taken(arrays.values, view, rows))
        confidence_B = torch.from_numpy(_take(arrays.confidence[view], rows))
        logit_max_B = torch.from_numpy(_take(arrays.logit_max[view], rows))
        asked = {
            name: torch.from_numpy(_take(self._feature(bank, name)[view], rows)).float() for name in features
        }
        return TeacherSignal(logits_BC, confidence_B, asked, logit_max_B)

    def values(self, bank: str, view: int, rows_B: Tensor) -> dict[str, Array]:
        """The numbers in the file for these rows, by column: those of `value_columns`, and `logit_max`.

        Raises:
            CacheError: the cache has no such bank, view or row.
        """
        arrays = self.arrays(bank, view)
        columns = {**arrays.values, "logit_max": arrays.logit_max}
        return _taken(columns, view, self._known_rows(rows_B))

    def view_bytes(self, bank: str, view: int, feature: str | None = None) -> int:
        """Bytes of what `whole_view` gives, or `whole_feature` of that name; nothing is converted for it.

        Raises:
            CacheError: the cache has no such bank, view or feature.
        """
        self._require_view(bank, view)
        if feature is not None:
            self._require_feature(bank, feature)
            size = 2 if self.manifest.feature_precision is FeaturePrecision.FP16 else 4
            return self.manifest.n_rows * math.prod(self._shapes[feature]) * size
        identity = self.manifest.identity
        logit_bytes = 2 if identity.dtype is Precision.FP16 else 4
        return self.manifest.n_rows * (identity.n_classes * logit_bytes + SCALAR_BYTES)

    def whole_view(self, bank: str, view: int) -> TeacherSignal:
        """A whole view in memory of its own, without features, for gathers on a device.

        Logits are fp16 where the cache keeps them so, else fp32 (int8 and top-k are decoded). As fp32 they
        are what `signal` gives.

        Raises:
            CacheError: the cache has no such bank or view.
        """
        arrays = self.arrays(bank, view)
        values = {name: array[view] for name, array in arrays.values.items()}
        is_plain = values.keys() == {"logits"}
        logits_NC = np.array(values["logits"]) if is_plain else decode(values, self.identity.n_classes)
        confidence_N = torch.from_numpy(np.array(arrays.confidence[view]))
        logit_max_N = torch.from_numpy(np.array(arrays.logit_max[view]))
        return TeacherSignal(torch.from_numpy(logits_NC), confidence_N, logit_max_B=logit_max_N)

    def whole_feature(self, bank: str, view: int, name: str) -> Tensor:
        """A feature of a whole view, Nx..., in memory of its own, in the precision that is kept.

        Raises:
            CacheError: the cache has no such bank, view or feature.
        """
        self._require_view(bank, view)
        return torch.from_numpy(np.array(self._feature(bank, name)[view]))

    def arrays(self, bank: str, view: int = 0) -> BankArrays:
        """The memory-mapped arrays of a bank; converts them when this node has not yet.

        Raises:
            DamagedCache: files that are missing, cut short or altered.
            CacheError: the cache has no such bank or view.
        """
        self._require_view(bank, view)
        if bank not in self._arrays:
            self._arrays[bank] = open_bank(self.place, self.manifest, bank, self._scratch.folder)
        return self._arrays[bank]

    def _feature(self, bank: str, name: str) -> Array:
        """A feature of a bank, VxNx..., memory-mapped; converted alone when it is first asked for."""
        array = self._features.get((bank, name))
        if array is None:
            self._require_feature(bank, name)
            ids_VN = self.arrays(bank).ids
            array = open_feature(self.place, self.manifest, bank, name, self._scratch.folder, ids_VN)
            self._features[bank, name] = array
        return array

    def _require_view(self, bank: str, view: int) -> None:
        if bank not in self.manifest.banks:
            known = ", ".join(self.manifest.banks)
            raise CacheError(f"{self.uri} has no bank {bank!r}, only {known}; run the cache stage with it")
        views = self.manifest.banks[bank].views
        if not 0 <= view < views:
            raise CacheError(
                f"{self.uri} has views 0 to {views - 1} of bank {bank}, not {view}; "
                "run the cache stage with more"
            )

    def _require_feature(self, bank: str, name: str) -> None:
        kept = self.features(bank)
        if name not in kept:
            raise CacheError(
                f"{self.uri} has no feature {name!r} of bank {bank} ({', '.join(kept) or 'it has none'}); "
                "name it in cache.features and run the cache stage"
            )

    def _decoded(self, values: dict[str, Array]) -> Tensor:
        if values.keys() == {"logits"}:  # torch widens float16 ten times as fast as numpy
            return torch.from_numpy(values["logits"]).float()
        return torch.from_numpy(decode(values, self.identity.n_classes))

    def _known_rows(self, rows_B: Tensor) -> Int64s:
        rows: Int64s = rows_B.cpu().numpy().astype(np.int64, copy=False)
        n_rows = self.manifest.n_rows
        # Unsigned, a negative row is beyond all others: it would give the logits of another sample.
        if len(rows) and rows.view(np.uint64).max() >= n_rows:
            raise CacheError(
                f"rows {rows.min()} to {rows.max()} were asked for; the cache has rows 0 to {n_rows - 1}"
            )
        return rows


def _required(
    uri: str, manifest: Manifest, kept: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """The features to show by bank; all of them have to be there."""
    there = manifest.features
    lacking = [
        f"{name} of {bank}"
        for bank, names in kept.items()
        for name in names
        if name not in there.get(bank, ())
    ]
    if lacking:
        raise CacheError(
            f"{uri} does not have {', '.join(lacking)} for all of its views; run the cache stage"
        )
    return dict(kept)


def _taken(arrays: Mapping[str, Array], view: int, rows: Int64s) -> dict[str, Array]:
    return {name: _take(array[view], rows) for name, array in arrays.items()}


def _take(array: Array, rows: Int64s) -> Array:
    # The rows are checked already; numpy's own check would cost another pass and a buffer.
    return array.take(rows, axis=0, mode="clip")


def _copied_manifest(scratch: Path, manifest_sha: str) -> bytes | None:
    path = scratch / _COPY_NAME
    data = path.read_bytes() if path.is_file() else b""
    return data if hashlib.sha256(data).hexdigest() == manifest_sha else None
