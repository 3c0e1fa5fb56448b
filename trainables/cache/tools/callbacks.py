"""What the tools of a cache call while they work."""

from __future__ import annotations

from collections.abc import Callable

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps to do); a step is a file, or a row where one file is written."""
