"""A network in an ONNX file, run by ONNX Runtime behind the same face as any other: images in, logits out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.errors import CheckpointError
from trainables.foreign_files import foreign_file, in_a_line
from trainables.models.foreign.onnx_graph import OnnxGraph

# B = images in a batch, C = channels, H, W = height, width; O = outputs of the network

Array = npt.NDArray[Any]

PROBE: Final = 4
SUM_TOLERANCE: Final = 1e-2
"""Of probabilities in half precision, which a thousand roundings add to."""
_CUDA: Final = "CUDAExecutionProvider"
_PLACE_IN_CODE: Final = re.compile(
    r"^.*\[ONNXRuntimeError\] : \d+ : \w+ : (?:.*/onnxruntime_src/.*\) (?=[A-Z]))?", re.DOTALL
)
"""What ONNX Runtime puts before its reasons: the kind of its error, and where in its code it was raised."""
_FOLDER: Final = "session.model_external_initializers_file_folder_path"


class OnnxNetwork(nn.Module):
    """Images of the data's size, normalised as the network wants them, to its logits; no gradient.

    It runs on a GPU where the images are on one and ONNX Runtime can use it, else on the CPU. A batch of a
    fixed size is filled up; images of another size are resized, bilinear with antialiasing. Where the graph
    gives probabilities and has no softmax that could be cut off, their logarithm stands for the logits.
    """

    def __init__(self, graph: OnnxGraph, image_shape: tuple[int, int, int]) -> None:
        """Load it, and try it on a few images of the shape (channels, height, width).

        Raises:
            CheckpointError: it cannot take such images, or ONNX Runtime cannot run it.
        """
        super().__init__()
        self.graph = graph
        self._sessions: dict[tuple[str, int], Any] = {}
        self._is_channels_last = _is_channels_last(graph, image_shape[0])
        height, width = graph.input_shape[1:3] if self._is_channels_last else graph.input_shape[2:4]
        self._size = (height or image_shape[1], width or image_shape[2])
        self.resizes = self._size != tuple(image_shape[1:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            probe_BO = self._raw(torch.randn(PROBE, *image_shape))
        if probe_BO.dim() != 2 or len(probe_BO) != PROBE:
            raise CheckpointError(
                f"{graph.path} gives {graph.logits!r} of shape {tuple(probe_BO.shape)} for {PROBE} images; "
                "logits are one number for each image and class"
            )
        self.n_outputs = probe_BO.shape[1]
        self._gives_probabilities = bool(
            graph.softmax is None
            and (probe_BO >= 0).all()
            and ((probe_BO.sum(dim=1) - 1).abs() < SUM_TOLERANCE).all()
        )

    @property
    def undone(self) -> str | None:
        """How probabilities were turned into logits; none where it gives logits."""
        if self.graph.softmax is not None:
            return f"its {self.graph.softmax} is cut off"
        return "it gives probabilities: their logarithm is taken" if self._gives_probabilities else None

    @property
    def is_half(self) -> bool:
        """Whether it computes in half precision somewhere."""
        return self.graph.is_half

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images that the graph is given."""
        return self._size

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """BxO logits in float32, on the device of the images.

        Raises:
            CheckpointError: ONNX Runtime cannot run it on them.
        """
        logits_BO = self._raw(images_BCHW)
        if self._gives_probabilities:
            logits_BO = logits_BO.clamp_min(torch.finfo(torch.float32).tiny).log()
        return logits_BO

    def _raw(self, images_BCHW: Tensor) -> Tensor:
        images = images_BCHW.detach().float()
        if self._size != tuple(images.shape[-2:]):
            images = F.interpolate(
                images, size=self._size, mode="bilinear", align_corners=False, antialias=True
            )
        if self._is_channels_last:
            images = images.permute(0, 2, 3, 1)
        array = images.cpu().contiguous().numpy().astype(self.graph.input_type, copy=False)
        session = self._session(images_BCHW.device)
        with foreign_file(
            lambda why: CheckpointError(f"ONNX Runtime cannot run {self.graph.path} on {array.shape}: {why}"),
            _reason,
        ):
            together = self.graph.input_shape[0] or len(array)
            parts = [
                self._run(session, array[first : first + together], together)
                for first in range(0, len(array), together)
            ]
        return torch.from_numpy(np.concatenate(parts).astype(np.float32, copy=False)).to(images_BCHW.device)

    def _run(self, session: Any, images: Array, together: int) -> Array:
        """What the graph gives for up to as many images as it takes at a time."""
        count = len(images)
        if count < together:
            images = np.concatenate([images, np.repeat(images[-1:], together - count, axis=0)])
        (found,) = session.run([self.graph.logits], {self.graph.input: images})
        return np.asarray(found)[:count] if len(found) == together else np.asarray(found)

    def _session(self, device: torch.device) -> Any:
        threads = torch.get_num_threads()
        key = (str(device), threads)
        if key not in self._sessions:
            self._sessions = {key: _session(self.graph, device, threads)}
        return self._sessions[key]

    def __getstate__(self) -> dict[str, Any]:
        """Copies start a session of their own: one cannot be copied."""
        return {**self.__dict__, "_sessions": {}}


def onnx_networks(network: nn.Module) -> list[OnnxNetwork]:
    """Those that a network consists of."""
    return [layer for layer in network.modules() if isinstance(layer, OnnxNetwork)]


def adapted_by(network: nn.Module) -> tuple[str, ...]:
    """What is done to images and answers of networks in ONNX files, in words."""
    told = []
    for each in onnx_networks(network):
        told += [] if each.undone is None else [each.undone]
        told += [f"images are resized to {each.size[0]}x{each.size[1]} for it"] if each.resizes else []
    return tuple(told)


def _is_channels_last(graph: OnnxGraph, channels: int) -> bool:
    """Whether images go in as BxHxWxC, as TensorFlow's do.

    Raises:
        CheckpointError: the graph takes images of other channels.
    """
    _, first, _, last = graph.input_shape
    if first == channels or (first is None and last != channels):
        return False
    if last == channels:
        return True
    shape = "x".join(str(length or "?") for length in graph.input_shape)
    raise CheckpointError(
        f"{graph.path} takes images of shape {shape}; the data's "
        f"have {channels} channels: give a teacher for these"
    )


def _session(graph: OnnxGraph, device: torch.device, threads: int) -> Any:
    with foreign_file(
        lambda why: CheckpointError(
            f"ONNX Runtime cannot load {graph.path}: {why}; export it with operators and an opset that this "
            "version of onnxruntime has (libraries of custom operators are never loaded)"
        ),
        _reason,
    ):
        import onnxruntime  # late: few runs need it, and every worker would wait

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong comes as an exception too
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Threads that spin while they wait would take the cores of the slots beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if graph.content is not None:
            options.add_session_config_entry(_FOLDER, str(graph.path.parent))
        providers: list[str | tuple[str, Mapping[str, str]]] = ["CPUExecutionProvider"]
        if device.type == "cuda" and _CUDA in onnxruntime.get_available_providers():
            # TF32 rounds every factor to eleven bits, more than the cache does.
            providers.insert(0, (_CUDA, {"device_id": str(device.index or 0), "use_tf32": "0"}))
        model = str(graph.path) if graph.content is None else graph.content
        return onnxruntime.InferenceSession(model, options, providers=providers)


def _reason(error: Exception) -> str:
    return in_a_line(_PLACE_IN_CODE.sub("", str(error))) or type(error).__name__
