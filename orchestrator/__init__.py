"""What happens, in which order: from an experiment file to a champion."""

__version__ = "0.1.0"
