"""What a checkpoint's first bytes tell, at once and without torch: whether it is one, and what it states.

And what stands beside it in a folder of transformers.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from trainables.config import ModelConfig, Normalisation
from trainables.config.teacher import ONNX
from trainables.foreign_files import Unreadable, foreign_file

SUFFIXES: Final = (".safetensors", ".pt", ".pth")
_LENGTH_BYTES: Final = 8
_METADATA: Final = "__metadata__"
NORMALISATION: Final = "normalisation"
CLASSES: Final = "classes"
"""Keys of the metadata of a safetensors file that Stillhouse writes; their values are JSON."""
OURS: Final = "stillhouse."
"""Before those keys in the metadata of an ONNX file."""
CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
PREPROCESSING: Final = "preprocessor_config.json"
"""Files of a folder of transformers: its network, its weights, how its images are prepared."""
_IN_SHARDS: Final = "model.safetensors.index.json"
_PICKLED: Final = "pytorch_model.bin"


def weights_file(path: Path) -> Path:
    """The weights of a folder of transformers; any other path as it is."""
    try:
        return path / WEIGHTS if path.is_dir() else path
    except OSError:
        return path


def why_unreadable(path: Path, *, suffixes: Sequence[str] = SUFFIXES) -> str | None:
    """What is wrong with a checkpoint file, as far as its format tells; none when it looks right.

    Keys and shapes are compared with the network when it is loaded.
    """
    if path.suffix not in suffixes:
        return f"allowed: a file that ends in {', '.join(suffixes)}, or a folder of transformers"
    try:
        if not path.is_file():
            return _why_missing(path)
        if path.suffix == ONNX:
            is_one = _onnx_metadata(path) is not None
            return None if is_one else "allowed: an intact ONNX file; this one is none"
        whole = _is_safetensors(path) if path.suffix == ".safetensors" else zipfile.is_zipfile(path)
    except OSError as error:
        return f"allowed: a file that can be read ({error.strerror})"
    if whole:
        return None
    if path.suffix == ".safetensors":
        return "allowed: an intact safetensors file; this one is damaged or of another format"
    return (
        "allowed: a file that torch.save wrote (zip format); this one is damaged or of another format; "
        "save the state dict again, best as .safetensors"
    )


def _why_missing(path: Path) -> str:
    """What is allowed where a folder of transformers has its weights in another form, or there is nothing."""
    if path.name == WEIGHTS and (path.parent / _IN_SHARDS).is_file():
        return f"allowed: a folder with one {WEIGHTS}; save it with save_pretrained(max_shard_size='1TB')"
    if path.name == WEIGHTS and (path.parent / _PICKLED).is_file():
        return (
            f"allowed: a folder with {WEIGHTS}, and it has {_PICKLED}, a pickle; save it with save_pretrained"
        )
    return "allowed: an existing file"


def known_by(model: ModelConfig) -> dict[str, Any]:
    """The plain data of a network for fingerprints: a folder of transformers is known by its configuration.

    So it may be moved, and one whose configuration was changed is another network.
    """
    folder, plain = model.folder, model.plain()
    if folder is None or not (folder / CONFIG).is_file():
        return plain
    return {**plain, "variant": f"sha256:{_sha256(folder / CONFIG)}"}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def digests_beside(path: Path) -> list[str]:
    """Of what stands beside the weights of a folder of transformers and says how a teacher is asked.

    Fingerprints hold it: the order of its classes and its normalisation are in no other file.
    """
    files = [path.with_name(name) for name in (CONFIG, PREPROCESSING)] if path.name == WEIGHTS else []
    return [f"{file.name}:{_sha256(file)}" for file in files if file.is_file()]


def preprocessing_metadata(normalisation: Normalisation, classes: Sequence[str]) -> dict[str, str]:
    """What a file of weights states of the images and classes that they were trained on."""
    return {NORMALISATION: json.dumps(normalisation.plain()), CLASSES: json.dumps(list(classes))}


def file_metadata(path: Path) -> dict[str, str]:
    """The texts that a safetensors or ONNX file keeps of itself, by key; empty where there are none."""
    if path.suffix == ONNX:
        return _onnx_metadata(path) or {}
    found = (_header(path) or {}).get(_METADATA)
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def stated_normalisation(path: Path) -> Normalisation | None:
    """How the images of these weights are normalised, as their file states; none where it does not."""
    with suppress(Unreadable), foreign_file(Unreadable):  # another program's key of that name
        stated = _stated(path, NORMALISATION) or _of_preprocessor(path)
        own = {key: stated[key] for key in ("mean", "std")} if isinstance(stated, dict) else None
        return None if own is None else Normalisation.from_plain(own)
    return None


def stated_classes(path: Path) -> tuple[str, ...] | None:
    """The names of the classes in the order of the logits, as the file states; none where it does not."""
    stated = stated_in_file(path) or _labels(path)
    return tuple(map(str, stated)) if isinstance(stated, list) else None


def stated_in_file(path: Path) -> object:
    """The classes that a file of weights itself names, whatever stands beside it; none where it does not."""
    return _stated(path, CLASSES)


def preprocessor(path: Path) -> Mapping[str, Any]:
    """How transformers prepares images for the weights of a folder, as its file says; empty without one."""
    return _beside(path, PREPROCESSING)


def _of_preprocessor(path: Path) -> object:
    """mean and std of pixels in [0, 1]; none where they are scaled in any other way."""
    said = preprocessor(path)
    if not said or said.get("rescale_offset") or not said.get("do_rescale", True):
        return None
    if not math.isclose(float(said.get("rescale_factor", 1 / 255)), 1 / 255, rel_tol=1e-3):
        return None
    if not said.get("do_normalize", True):
        return {"mean": [0.0] * 3, "std": [1.0] * 3}
    return {"mean": said.get("image_mean"), "std": said.get("image_std")}


def _labels(path: Path) -> object:
    """The names of the classes of a folder of transformers; none where nobody named them."""
    named = _beside(path, CONFIG).get("id2label")
    if not isinstance(named, Mapping) or any(str(name).startswith("LABEL_") for name in named.values()):
        return None
    return [named.get(str(place)) for place in range(len(named))]


def _beside(path: Path, name: str) -> Mapping[str, Any]:
    """What another file of a folder of transformers says; nothing where it is none, or cannot be read."""
    file = path.with_name(name)
    if path.name != WEIGHTS or not file.is_file():
        return {}
    with suppress(OSError):
        content = _parsed(file.read_bytes())
        return content if isinstance(content, dict) else {}
    return {}


def _stated(path: Path, key: str) -> object:
    if path.suffix == ONNX:
        return _parsed((_onnx_metadata(path) or {}).get(f"{OURS}{key}", "null"))
    header = _header(path) if path.suffix == ".safetensors" else None
    metadata = (header or {}).get(_METADATA)
    return _parsed(metadata[key]) if isinstance(metadata, dict) and key in metadata else None


def _parsed(text: str | bytes) -> object:
    """The value of a JSON text; none where it is none, as with brackets without end."""
    with suppress(Unreadable), foreign_file(Unreadable):
        return json.loads(text)
    return None


def _header(path: Path) -> Mapping[str, Any] | None:
    """The header of a safetensors file; none where there is none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if not 2 <= length <= path.stat().st_size - _LENGTH_BYTES:
            return None
        content = file.read(length)
    header = _parsed(content)
    return header if isinstance(header, dict) else None


def _is_safetensors(path: Path) -> bool:
    """Whether the header is JSON of the stated length and its tensors fill the file exactly."""
    header = _header(path)
    if header is None:
        return False
    tensors = [entry for name, entry in header.items() if name != _METADATA]
    try:
        with foreign_file(Unreadable):
            end = max((int(entry["data_offsets"][1]) for entry in tensors), default=0)
    except Unreadable:
        return False
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    return path.stat().st_size == _LENGTH_BYTES + length + end


def _onnx_metadata(path: Path) -> dict[str, str] | None:
    """What an ONNX file says of itself; none where it is no such file."""
    with suppress(Unreadable), foreign_file(Unreadable):
        import onnx  # late: it takes half a second, and few files are of it

        model = onnx.load(path, load_external_data=False)
        if model.graph.output:  # bytes of anything may pass for an empty model
            return {entry.key: entry.value for entry in model.metadata_props}
    return None
