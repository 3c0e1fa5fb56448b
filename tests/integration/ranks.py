"""Runs a function in several processes that form one gloo group, as Ray Train's workers do."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn


def run_ranks(function: Callable[..., None], size: int, folder: Path, *arguments: Any) -> list[Any]:
    """What each rank kept with `keep`; `function(folder, *arguments)` runs in each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder.mkdir(parents=True, exist_ok=True)
    spawn(_rank, (function, size, port, folder, *arguments), nprocs=size)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(size)]


def keep(folder: Path, found: Any) -> None:
    """Keep what this rank found: numbers, text and tensors."""
    torch.save(found, folder / f"rank-{dist.get_rank()}.pt")


def _rank(
    rank: int, function: Callable[..., None], size: int, port: int, folder: Path, *arguments: Any
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    try:
        function(folder, *arguments)
    finally:
        dist.destroy_process_group()
