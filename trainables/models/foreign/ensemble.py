"""Several networks as one, whose answer is the mean of theirs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.config import Combine

# B = samples, C = classes, M = members


class Ensemble(nn.Module):
    """The weighted mean of what its members say, as logits in float32.

    Of probabilities it is the logarithm of their mean, log sum_m w_m softmax(z_m), at temperature 1 and in
    log space: a softmax of these logits is that mean. Of logits it is sum_m w_m z_m.
    """

    _log_shares_M: Tensor

    def __init__(self, members: Sequence[nn.Module], shares: Sequence[float], combine: Combine) -> None:
        """Wrap networks, which keep their weights; the shares sum to one."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.combine = combine
        log_shares_M = torch.tensor(shares, dtype=torch.float64).log().float()
        self.register_buffer("_log_shares_M", log_shares_M, persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """BxC logits."""
        logits_MBC = torch.stack([member(images_BCHW).float() for member in self.members])
        log_shares_M11 = self._log_shares_M[:, None, None]
        with torch.autocast(images_BCHW.device.type, enabled=False):
            if self.combine is Combine.LOGITS:
                return (log_shares_M11.exp() * logits_MBC).sum(dim=0)
            return (log_shares_M11 + logits_MBC.log_softmax(dim=-1)).logsumexp(dim=0)
