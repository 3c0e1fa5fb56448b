"""Networks: compact families of the literature, torchvision's classifiers, and a user's own."""

from trainables.models.building import MODELS, build_model, check_logits

__all__ = ["MODELS", "build_model", "check_logits"]
