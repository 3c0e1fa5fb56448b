"""Features by name: where in a network they are found, and how they are read off a call of it.

Networks of ours state their stages; those of others are run once, on a copy, to see which maps they make.
"""

from trainables.models.features.extended import Extended, Extra
from trainables.models.features.feature_tap import FeatureTap, Tapped, is_tapped, untapped
from trainables.models.features.points import Point

__all__ = ["Extended", "Extra", "FeatureTap", "Point", "Tapped", "is_tapped", "untapped"]
