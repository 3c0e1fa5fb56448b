"""The live teacher: what it says about a view, and the shards made of that."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from trainables.cache.identity import bank_fingerprint
from trainables.cache.keeping import keep_logits
from trainables.cache.manifest import Origin, Shard, ShardRecord
from trainables.cache.shards import ShardRows, write_shard
from trainables.cache.storage import Place
from trainables.config import Recipe
from trainables.data import TrainingData
from trainables.errors import CacheError
from trainables.views.normalise import normalise
from trainables.views.showing import show

# B = rows, C = classes


class LiveTeacher:
    """A teacher in evaluation mode that answers for views of the training split."""

    def __init__(
        self, module: nn.Module, data: TrainingData, *, seed: int, batch_size: int, device: torch.device
    ) -> None:
        """Move the module to the device and put it in evaluation mode.

        `seed` is that of the views.
        """
        self._module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._module.eval()
        self._data = data
        self._seed = seed
        self._batch_size = batch_size
        self._device = device

    def logits(self, recipe: Recipe, view: int, rows_B: Tensor) -> Tensor:
        """BxC float32 logits, on the CPU, of these rows of the training split as the view shows them.

        Raises:
            CacheError: the teacher's output is not one logit per class.
        """
        # TF32 rounds every factor to eleven bits; over a deep network that costs more than fp16 in the cache.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            chunks = [self._forward(recipe, view, chunk) for chunk in torch.split(rows_B, self._batch_size)]
        return torch.cat(chunks)

    def _forward(self, recipe: Recipe, view: int, rows_B: Tensor) -> Tensor:
        images = show(self._data.train, rows_B, recipe, seed=self._seed, view=view, device=self._device)
        batch = normalise(images, self._data.mean, self._data.std)
        logits_BC: Tensor = self._module(batch.contiguous(memory_format=torch.channels_last))
        wanted = (len(rows_B), len(self._data.classes))
        if logits_BC.shape != wanted:
            raise CacheError(
                f"the teacher gives an output of shape {tuple(logits_BC.shape)} for {wanted[0]} images; "
                f"logits of shape {wanted} are needed, one per class of the data set"
            )
        return logits_BC.float().cpu()


class ShardProducer:
    """Computes shards and writes them; the same in an actor, a test or a notebook."""

    def __init__(self, place: Place, origin: Origin, teacher: LiveTeacher, data: TrainingData) -> None:
        self._place = place
        self._origin = origin
        self._teacher = teacher
        self._data = data

    def produce(self, shard: Shard) -> ShardRecord:
        """Run the teacher over a shard's rows, write the file and its commit record.

        Raises:
            CacheError: logits that cannot be kept, or a folder that cannot be written.
        """
        identity = self._origin.identity
        recipe = self._origin.recipes[shard.bank]
        rows_B = torch.arange(shard.first, shard.first + shard.rows)
        logits_BC = self._teacher.logits(recipe, shard.view, rows_B)
        ids_B = self._data.train.ids[rows_B].numpy()
        kept = keep_logits(
            logits_BC.numpy(), ids_B, identity.dtype, where=f"bank {shard.bank}, view {shard.view}"
        )
        labels_B = self._data.train.labels[rows_B].numpy().astype(np.int64)
        return write_shard(
            self._place,
            shard,
            ShardRows(ids_B, labels_B, kept),
            fingerprint=bank_fingerprint(identity, recipe),
            classes=self._origin.classes,
        )
