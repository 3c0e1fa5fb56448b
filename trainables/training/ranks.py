"""The ranks that train one student together: what each of them does, and what they must agree on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.models.features import is_tapped
from trainables.models.foreign.logits import may_drop_outputs
from trainables.signals import Labelling

# B = samples in the batch, V = values

Forward = Callable[[Tensor], Tensor]

_WAIT: Final = timedelta(days=7)
"""How long a rank waits for the others, who may wait for a job: that one is dead is seen at once anyway."""


@dataclass(frozen=True)
class Share:
    """What one rank does of a batch."""

    rows_B: Tensor
    """Its rows; one row of another rank where the batch has fewer rows than there are ranks."""
    part: float
    """Its fraction of the batch; 0 for a row of another rank. The parts of all ranks sum to 1."""
    labelling: Labelling | None = None
    """Which of them have labels, where there are unlabelled images among them."""


class Team(Protocol):
    """One rank's view of all ranks; all of them must call every method but `share`, in one order."""

    @property
    def rank(self) -> int:
        """This rank, from 0; rank 0 alone tells and keeps."""
        ...

    @property
    def size(self) -> int:
        """How many ranks there are."""
        ...

    def wrap(self, model: nn.Module, forward: Forward) -> Forward:
        """`forward`, with a backward pass that leaves the mean of all ranks' gradients in the model."""
        ...

    def share(self, rows_B: Tensor) -> Share:
        """This rank's share of a batch: ranks differ by one row at most."""
        ...

    def sum(self, values_V: Tensor) -> Tensor:
        """The sum over ranks, the same bits on each, on the CPU."""
        ...

    def tell(self, document: Any) -> Any:
        """Rank 0's document, plain data, on every rank; what the others pass does not matter."""
        ...


@dataclass(frozen=True)
class Solo:
    """A team of one."""

    rank: int = 0
    size: int = 1

    def wrap(self, model: nn.Module, forward: Forward) -> Forward:
        """The forward pass as it is."""
        return forward

    def share(self, rows_B: Tensor) -> Share:
        """The whole batch."""
        return Share(rows_B, 1.0)

    def sum(self, values_V: Tensor) -> Tensor:
        """The values themselves."""
        return values_V.cpu()

    def tell(self, document: Any) -> Any:
        """The document itself."""
        return document


SOLO: Final = Solo()


class DdpTeam:
    """The ranks of the process group that Ray Train, or a test, has initialised."""

    def __init__(self) -> None:
        """All ranks must make theirs at the same time: it opens a group of its own."""
        self._rank, self._size = dist.get_rank(), dist.get_world_size()
        # Agreements go through gloo also where gradients go through NCCL: they must not wait for the GPU.
        self._control: Any = dist.new_group(backend="gloo", timeout=_WAIT)

    @property
    def rank(self) -> int:
        """This rank."""
        return self._rank

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self._size

    def wrap(self, model: nn.Module, forward: Forward) -> Forward:
        """The forward pass under DistributedDataParallel.

        Batch statistics stay those of a rank's share, as usual; `settle` makes the running ones common.
        """
        # Sending buffers round would overwrite what an earlier forward pass of the same step still needs.
        return DistributedDataParallel(
            _Forward(model, forward),
            broadcast_buffers=False,
            # Auxiliary heads get no gradient, nor does what lies behind the features of a loss that hears no
            # logits: without this, the second step waits for theirs and fails.
            find_unused_parameters=may_drop_outputs(model) or is_tapped(model),
        )

    def share(self, rows_B: Tensor) -> Share:
        """This rank's piece of the batch in order; the first ranks have a row more where it is uneven."""
        own_B = torch.tensor_split(rows_B, self._size)[self._rank]
        if len(own_B) == 0:  # every rank must go through forward and backward, or the others wait for ever
            return Share(rows_B[:1], 0.0)
        return Share(own_B, len(own_B) / len(rows_B))

    def sum(self, values_V: Tensor) -> Tensor:
        """The sum over ranks, in double precision in between."""
        total_V = values_V.detach().to("cpu", torch.float64, copy=True)
        dist.all_reduce(total_V, group=self._control)
        return total_V.to(values_V.dtype)

    def tell(self, document: Any) -> Any:
        """Rank 0's document, plain data, on every rank; what the others pass does not matter."""
        text = json.dumps(document).encode() if self._rank == 0 else b""
        length = torch.tensor([len(text)])
        dist.broadcast(length, 0, group=self._control)
        payload = torch.zeros(int(length), dtype=torch.uint8)
        if self._rank == 0:
            payload = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        dist.broadcast(payload, 0, group=self._control)
        return json.loads(payload.numpy().tobytes())


class _Forward(nn.Module):
    """A module of any callable that shares a model's weights: a compiled one is no module of its own."""

    def __init__(self, model: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.model = model
        self._call = forward if not isinstance(forward, nn.Module) else forward.__call__

    def forward(self, images: Tensor) -> Tensor:
        return self._call(images)


def any_rank(team: Team, flag: bool) -> bool:
    """Whether some rank says so; all must ask."""
    return flag if team.size == 1 else bool(team.sum(torch.tensor([float(flag)])))


def team_here() -> Team:
    """The team that this process belongs to."""
    together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return DdpTeam() if together else SOLO


def settle(model: nn.Module, team: Team) -> None:
    """Make buffers such as running batch statistics the mean over ranks; integers are the same anyway."""
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if team.size == 1 or not buffers:
        return
    mean_V = team.sum(torch.cat([buffer.flatten().float() for buffer in buffers])) / team.size
    means = torch.split(mean_V, [buffer.numel() for buffer in buffers])
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean.view_as(buffer))


def average_gradients(module: nn.Module, team: Team) -> None:
    """Make the gradients of a module that no rank has wrapped the mean over ranks."""
    if team.size == 1:
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad.copy_(team.sum(parameter.grad) / team.size)


def lost_a_rank(error: BaseException) -> bool:
    """Whether an error says that another rank is gone, rather than that something is wrong here."""
    # gloo's errors have no class of their own; their text begins with the place in its sources.
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
