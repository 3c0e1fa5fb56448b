"""What an ONNX file says of itself: its input, its logits, its numbers, and the files that hold them.

The graph is read, never run here, and no library of operators is ever loaded for it. `onnx` is imported late:
few runs need it, and every worker would wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from trainables.config import digest_of
from trainables.errors import CheckpointError
from trainables.foreign_files import foreign_file, in_a_line
from trainables.local_files import file_sha256

FLOATS: Final = {1: "float32", 10: "float16", 11: "float64"}
"""ONNX's numbers of the types that images and logits may have."""
_HALF: Final = frozenset({10, 16})
"""float16 and bfloat16."""
_SOFTMAX: Final = frozenset({"Softmax", "LogSoftmax"})
_PASSING: Final = frozenset({"Identity", "Cast"})
_OF_BATCH: Final = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"})
"""Operators that scale by the largest number of a whole batch: an answer then depends on its neighbours."""


@dataclass(frozen=True)
class OnnxGraph:
    """An ONNX file as a classifier of images."""

    path: Path
    files: tuple[Path, ...]
    """The file, then those beside it that hold its numbers."""
    input: str
    input_type: str
    input_shape: tuple[int | None, ...]
    """Four numbers; none where any will do."""
    logits: str
    """The tensor to ask for: an output, or what goes into the softmax before it."""
    softmax: str | None
    """The operator that was cut off; none where the graph has none at its end."""
    content: bytes | None
    """The model without that operator; none where the file can be used as it is."""
    is_half: bool
    """Whether some of its numbers are of half precision."""
    n_numbers: int
    """In its tensors of floating point: weights, and statistics of batch norms too."""

    @cached_property
    def digest(self) -> str:
        """Hex sha256 over all its files and the tensor that is asked for."""
        return digest_of([*(file_sha256(path) for path in self.files), self.logits])

    @property
    def n_bytes(self) -> int:
        """On disk."""
        return sum(path.stat().st_size for path in self.files)


def read_onnx(path: Path, output: str | None = None) -> OnnxGraph:
    """A file as a classifier; `output` names its logits where it has several outputs.

    Raises:
        CheckpointError: the file is missing, unreadable, or no such classifier; it says what it is.
    """
    model = _loaded(path)
    with foreign_file(
        lambda why: CheckpointError(f"{path} is no classifier that can be read ({why}); export it again")
    ):
        return _as_classifier(path, model, output)


def onnx_files(path: Path) -> tuple[Path, ...]:
    """The file, and those beside it that hold its numbers, whatever else is wrong with it.

    Raises:
        CheckpointError: one is missing or unreadable.
    """
    return (path, *_beside(path, _loaded(path).graph))


def _loaded(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path} (seen from {Path.cwd()}); correct the path")
    with foreign_file(
        lambda why: CheckpointError(f"{path} is not a readable ONNX file ({why}); copy or export it again")
    ):
        import onnx  # late: see above

        return onnx.load(path, load_external_data=False)


def _as_classifier(path: Path, model: Any, output: str | None) -> OnnxGraph:
    graph = model.graph
    dynamic = sorted({node.op_type for node in graph.node} & _OF_BATCH)
    if dynamic:
        raise CheckpointError(
            f"{path} is quantised while it runs ({dynamic[0]}), by the largest number of a batch, so its "
            "answer about an image depends on the others; give the network before quantisation, or one that "
            "was quantised statically"
        )
    images = _images(path, graph)
    chosen = _chosen_output(path, graph, output)
    logits, softmax = _before_softmax(path, graph, chosen.name)
    return OnnxGraph(
        path=path,
        files=(path, *_beside(path, graph)),
        input=images.name,
        input_type=FLOATS[images.type.tensor_type.elem_type],
        input_shape=_shape(images),
        logits=logits,
        softmax=softmax,
        content=None if softmax is None else _asked_for(model, logits, chosen),
        is_half=any(tensor.data_type in _HALF for tensor in graph.initializer),
        n_numbers=sum(_size(tensor) for tensor in graph.initializer if tensor.data_type in FLOATS),
    )


def _images(path: Path, graph: Any) -> Any:
    """The only input that is no weight."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    if len(inputs) != 1:
        names = in_a_line(", ".join(each.name for each in inputs)) or "none"
        raise CheckpointError(
            f"{path} has {len(inputs)} inputs ({names}); a teacher has one, the images: export it so"
        )
    (images,) = inputs
    kind, shape = images.type.tensor_type.elem_type, _shape(images)
    if kind not in FLOATS:
        raise CheckpointError(
            f"{path} takes {_type_name(kind)} in {in_a_line(images.name)!r}; a teacher takes normalised "
            f"images of floating point ({', '.join(FLOATS.values())}): export it without what comes before"
        )
    if len(shape) != 4:
        raise CheckpointError(
            f"{path} takes an input of {len(shape)} dimensions; a teacher takes images BxCxHxW (or BxHxWxC)"
        )
    return images


def _chosen_output(path: Path, graph: Any, wanted: str | None) -> Any:
    outputs = {each.name: each for each in graph.output}
    names = in_a_line(", ".join(outputs))
    if wanted is not None and wanted not in outputs:
        raise CheckpointError(f"{path} has no output {wanted!r}; `output` may be {names}")
    if wanted is None and len(outputs) > 1 and "logits" not in outputs:
        raise CheckpointError(
            f"{path} has {len(outputs)} outputs ({names}); say which are the logits: `output: NAME` beside "
            "its `checkpoint`"
        )
    only = next(iter(outputs), "")
    chosen = outputs[wanted or ("logits" if "logits" in outputs else only)]
    kind = chosen.type.tensor_type.elem_type
    if not chosen.type.HasField("tensor_type") or kind not in FLOATS:
        raise CheckpointError(
            f"output {in_a_line(chosen.name)!r} of {path} is {_type_name(kind)}; logits are a tensor of "
            f"floating point with a number for each class; its outputs are {names}"
        )
    return chosen


def _before_softmax(path: Path, graph: Any, name: str) -> tuple[str, str | None]:
    """The tensor that holds the logits of an output, and the softmax that made probabilities of them."""
    makers = {made: node for node in graph.node for made in node.output}
    node = makers.get(name)
    while node is not None and node.op_type in _PASSING:
        node = makers.get(node.input[0])
    if node is None or node.op_type not in {*_SOFTMAX, "Sigmoid"}:
        return name, None
    if node.op_type == "Sigmoid":
        raise CheckpointError(
            f"{path} ends in a Sigmoid: its numbers are of classes one by one, not of one class among all, "
            "so no softmax of logits gives them; give a teacher that chooses one class"
        )
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
    if axis not in (-1, 1):
        raise CheckpointError(
            f"{path} ends in a {node.op_type} over axis {axis}, which is not that of the classes; export it "
            "with one logit for each class"
        )
    return node.input[0], node.op_type


def _asked_for(model: Any, logits: str, output: Any) -> bytes:
    """The model with another output; its last operators, which nobody asks for then, are not run."""
    import onnx  # late: see above

    kind = output.type.tensor_type.elem_type
    cast = next((node for node in model.graph.node if logits in node.output and node.op_type == "Cast"), None)
    if cast is not None:
        kind = next(attribute.i for attribute in cast.attribute if attribute.name == "to")
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    known = {each.name: each for each in (*model.graph.value_info, *model.graph.input)}
    changed.graph.output.append(
        known[logits] if logits in known else onnx.helper.make_tensor_value_info(logits, kind, None)
    )
    return bytes(changed.SerializeToString())


def _beside(path: Path, graph: Any) -> tuple[Path, ...]:
    """The files that hold numbers of the graph, in order of their names.

    Raises:
        CheckpointError: one is missing, or lies outside of the folder.
    """
    folder, names = path.parent.resolve(), set()
    for tensor in _tensors(graph):
        names |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    for name in sorted(names):
        place = (folder / name).resolve()
        if Path(name).is_absolute() or not place.is_relative_to(folder):
            raise CheckpointError(
                f"{path} says that its numbers are in {in_a_line(name)!r}, outside of its folder, which is "
                "not read; export it again, with its data beside it"
            )
        if not place.is_file():
            raise CheckpointError(
                f"{path} has its numbers in {in_a_line(name)!r}, which is not beside it; copy that file too"
            )
    return tuple(path.parent / name for name in sorted(names))


def _tensors(graph: Any) -> Iterator[Any]:
    """All tensors with numbers, those of constants and of graphs within it too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else [])
            yield from attribute.tensors
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _tensors(inner)


def _shape(value: Any) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in dims)


def _size(tensor: Any) -> int:
    size = 1
    for length in tensor.dims:
        size *= length
    return size


def _type_name(kind: int) -> str:
    import onnx  # late: see above

    return str(onnx.TensorProto.DataType.Name(kind)).lower() if kind else "no tensor"
