"""Channels of a network's stages when its first stage is made narrower or wider."""

from __future__ import annotations

from collections.abc import Sequence


def scaled(channels: Sequence[int], *, first: int, width: int | None) -> tuple[int, ...]:
    """The channels times width / `first`, rounded to whole channels, at least 1; as they are without a width.

    `first` is what the first stage has in the paper, so that it gets exactly `width`.
    """
    if width is None:
        return tuple(channels)
    return tuple(max(1, round(count * width / first)) for count in channels)
