"""Networks: compact families of the literature, torchvision's classifiers, and a user's own.

Here too are their weights on disk, and what is found inside a network: its classifier and feature maps.
"""

from trainables.models.building import MODELS, build_model, check_logits

__all__ = ["MODELS", "build_model", "check_logits"]
