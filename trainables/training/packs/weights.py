"""The weights of all lanes: one row a lane, and in a row what one network has."""

# L = lanes, P = numbers in the parameters of one network

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trainables.errors import TrialFailed


class LaneWeights:
    """Parameters (LxP, one tensor), and buffers (by name, L rows each), of networks of one architecture."""

    def __init__(self, model: nn.Module) -> None:
        """No lane yet; `model` is one of the networks, on the device.

        Raises:
            TrialFailed: it holds parts that lanes cannot have; the message says which.
        """
        _require_plain(model)
        parameters = dict(model.named_parameters())
        self._shapes = {name: tuple(value.shape) for name, value in parameters.items()}
        self._sizes = [math.prod(shape) for shape in self._shapes.values()]
        self._kept = list(model.state_dict())
        device = next(iter(parameters.values())).device
        self.values_LP = torch.empty(0, sum(self._sizes), device=device)
        self.buffers = {name: value.new_empty(0, *value.shape) for name, value in model.named_buffers()}

    def __len__(self) -> int:
        """Lanes."""
        return len(self.values_LP)

    @property
    def names(self) -> list[str]:
        """Of the parameters, in the network's order."""
        return list(self._shapes)

    @torch.no_grad()
    def append(self, model: nn.Module) -> None:
        """A lane more, with the weights of a network."""
        row_P = torch.cat([value.detach().flatten() for value in model.parameters()])
        self.values_LP = torch.cat([self.values_LP.detach(), row_P[None].to(self.values_LP.device)])
        own = dict(model.named_buffers())
        self.buffers = {
            name: torch.cat([rows, own[name].detach()[None].to(rows.device)])
            for name, rows in self.buffers.items()
        }

    @torch.no_grad()
    def keep(self, lanes: Sequence[int]) -> None:
        """Leave these lanes alone, in this order."""
        chosen = torch.tensor(lanes, dtype=torch.int64, device=self.values_LP.device)
        self.values_LP = self.values_LP.detach()[chosen]
        self.buffers = {name: rows[chosen] for name, rows in self.buffers.items()}

    def parameters(self, values_LP: Tensor | None = None) -> dict[str, Tensor]:
        """By name, L rows of each parameter's own shape: views, through which the gradient of a row flows."""
        pieces = torch.split(self.values_LP if values_LP is None else values_LP, self._sizes, dim=1)
        return {
            name: torch.unflatten(piece, 1, shape) if shape else piece[:, 0]
            for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)
        }

    def state_dict(self, lane: int) -> dict[str, Tensor]:
        """What the lane's network would give as its state: views."""
        rows = {**self.parameters(self.values_LP.detach()), **self.buffers}
        return {name: rows[name][lane] for name in self._kept}

    def by_parameter(self, row_P: Tensor) -> list[Tensor]:
        """A row that has a number for each of a network's, cut into the shapes of its parameters."""
        pieces = torch.split(row_P, self._sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, self._shapes.values(), strict=True)]

    def row(self, parts: Sequence[Tensor]) -> Tensor:
        """What `by_parameter` cut, as one row."""
        return torch.cat([part.flatten() for part in parts]).to(self.values_LP)


def _require_plain(model: nn.Module) -> None:
    whole = dict(model.named_parameters(remove_duplicate=False))
    problems: Mapping[str, bool] = {
        "no parameters": not whole,
        "parameters that several of its parts share": len(whole) > len(dict(model.named_parameters())),
        "parameters that are held": any(not value.requires_grad for value in whole.values()),
        "parameters that are not in fp32": any(value.dtype != torch.float32 for value in whole.values()),
        "a state beside parameters and buffers": any(
            name.endswith("_extra_state") for name in model.state_dict()
        ),
    }
    found = [what for what, is_so in problems.items() if is_so]
    if found:
        raise TrialFailed(f"the network has {', '.join(found)}, so it is trained alone")
