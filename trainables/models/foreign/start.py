"""A student that starts from weights of a file; a head that does not fit the classes stays fresh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from trainables.checkpoint_header import stated_classes
from trainables.config import StartWeights
from trainables.errors import CheckpointError
from trainables.local_files import file_sha256
from trainables.models.cosine import CosineClassifier
from trainables.models.weights import fitted_tensors, refuse_mismatch


def start_from(model: nn.Module, start: StartWeights, *, classes: Sequence[str]) -> tuple[str, ...]:
    """Puts the weights of a file into a student, and gives the names of those that stay fresh: its head.

    The head is taken too where it has the shape of the student's, unless the file says that it is of other
    classes, or of another order. All else must fit, or nothing changes.

    Raises:
        CheckpointError: the file cannot be read, was changed, or does not fit outside of the head.
    """
    path = Path(start.path)
    tensors = fitted_tensors(model, path)
    if file_sha256(path) != start.sha256:
        raise CheckpointError(
            f"student.checkpoint {path} was changed after the run began; put it back, or run again"
        )
    own, head = model.state_dict(), head_prefix(model, len(classes))
    is_other = stated_classes(path) not in (None, tuple(classes))
    of_head = {name for name in own if head and name.startswith(head)}
    in_file = {name for name in tensors if head and name.startswith(head)}
    fresh, dropped = _of_other_size(own, tensors, len(classes)), set[str]()
    if of_head != in_file or (_same_inputs(of_head, own, tensors) and (fresh & of_head or is_other)):
        fresh, dropped = fresh | of_head, in_file
    else:
        fresh -= of_head
    kept = {name: tensor for name, tensor in tensors.items() if name not in fresh | dropped}
    whole = kept | {name: own[name] for name in fresh}
    refuse_mismatch(model, whole, path)
    if not kept:
        raise CheckpointError(f"checkpoint {path} has nothing but a head for {type(model).__name__}")
    model.load_state_dict(whole)
    return tuple(name for name in own if name in fresh)


def _of_other_size(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], n_classes: int) -> set[str]:
    """Weights that are those of the file but for the number of classes; auxiliary heads too."""
    return {
        name
        for name, value in own.items()
        if name in tensors
        and value.dim() > 0
        and len(value) == n_classes
        and tensors[name].shape[1:] == value.shape[1:]
        and tensors[name].shape != value.shape
    }


def _same_inputs(names: set[str], own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    """Whether weights of both are of the same shape but, at most, for the number of classes."""
    return all(own[name].shape[1:] == tensors[name].shape[1:] for name in names)


def head_prefix(model: nn.Module, n_classes: int) -> str:
    """Before the names of the classifier's weights; empty where it is of no kind that is known."""
    found = ""
    for name, module in model.named_modules():
        if isinstance(module, CosineClassifier):
            found = name.rpartition(".")[0]  # with the projection before it
        elif isinstance(module, nn.Linear) and module.out_features == n_classes:
            found = name
    return f"{found}." if found else ""
