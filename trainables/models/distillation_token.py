"""The two heads of a vision transformer with a distillation token (DeiT), found by their libraries' names."""

from __future__ import annotations

from typing import Final

from torch import nn

_HEADS: Final = (
    ("head", "head_dist"),  # timm's distilled networks, and the authors' own
    ("cls_classifier", "distillation_classifier"),  # transformers' DeiT
    ("classifier", "classifier_distill"),  # transformers' LeViT
)


def distillation_heads(module: nn.Module) -> tuple[str, str] | None:
    """Module paths of class head and distillation head, as in `named_modules`; None where there are none.

    The outputs of both are logits BxC. A network behind a layer that resizes is looked into.
    """
    for path, part in module.named_modules():
        for names in _HEADS:
            if all(isinstance(getattr(part, name, None), nn.Module) for name in names):
                of_class, distilled = (f"{path}.{name}" if path else name for name in names)
                return of_class, distilled
    return None
