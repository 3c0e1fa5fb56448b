"""A small task of a user's own whose parts can be exchanged for faulty ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

FEW = 5


def dataset(split: str) -> TensorDataset:
    """Grey 8x8 noise of four classes."""
    n_samples = {"train": 80, "test": 20}[split]
    generator = torch.Generator().manual_seed(n_samples)
    return TensorDataset(torch.rand(n_samples, 1, 8, 8, generator=generator), torch.arange(n_samples) % 4)


def wide(split: str) -> TensorDataset:
    """Of 8 rows and 12 columns."""
    images, labels = dataset(split).tensors
    return TensorDataset(torch.cat([images, images[..., :4]], dim=-1), labels)


def one_to_select_by(split: str) -> TensorDataset:
    """Of so few samples that the fraction 0.2 leaves one of them to the selection split."""
    images, labels = dataset(split).tensors
    return TensorDataset(images[:FEW], labels[:FEW])


def test_label_of_no_class(split: str) -> TensorDataset:
    data = dataset(split)
    if split == "test":
        data.tensors[1][-1] = 7
    return data


def labels_from_one(split: str) -> TensorDataset:
    images, labels = dataset(split).tensors
    return TensorDataset(images, labels + 1)


def outlier(split: str) -> TensorDataset:
    data = dataset(split)
    data.tensors[1][3] = 255
    return data


def drawn_anew(split: str) -> TensorDataset:
    generator = torch.Generator()
    generator.seed()
    n_samples = {"train": 80, "test": 20}[split]
    return TensorDataset(torch.rand(n_samples, 1, 8, 8, generator=generator), torch.arange(n_samples) % 4)


class Augmented(TensorDataset):
    """Mirrored at random whenever it is asked, with the global generator, and only in the training part."""

    def __getitem__(self, index: int) -> Any:
        image, label = (tensor[index] for tensor in self.tensors)
        return (image.flip(-1) if torch.rand(()) < 0.5 else image), label


def augmented(split: str) -> TensorDataset:
    data = dataset(split)
    return Augmented(*data.tensors) if split == "train" else data


def test_in_another_order(split: str) -> TensorDataset:
    data = dataset(split)
    order = torch.randperm(len(data)) if split == "test" else torch.arange(len(data))
    return TensorDataset(*(tensor[order] for tensor in data.tensors))


def shared_images(split: str) -> TensorDataset:
    """Three test images are in the training part too."""
    images, labels = dataset("train").tensors if split == "train" else dataset("test").tensors
    if split == "test":
        images = images.clone()
        images[:3] = dataset("train").tensors[0][:3]
    return TensorDataset(images, labels)


def no_test_part(split: str) -> TensorDataset:
    if split == "test":
        raise FileNotFoundError("no test.npz")
    return dataset(split)


class Raising(TensorDataset):
    """One of its samples cannot be read."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if index == 7:
            raise OSError("disk gone")
        return tuple(tensor[index] for tensor in self.tensors)


def raising_sample(split: str) -> TensorDataset:
    return Raising(*dataset(split).tensors)


class Named(TensorDataset):
    """Its classes have names."""

    classes: tuple[str, ...] = ("ant", "bee", "cat", "dog")


def other_names(split: str) -> Named:
    data = Named(*dataset(split).tensors)
    if split == "test":
        data.classes = ("bee", "ant", "cat", "dog")
    return data


def a_class_without_samples(split: str) -> Named:
    data = Named(*dataset(split).tensors)
    data.classes = (*data.classes, "eel")
    return data


def other_size(split: str) -> TensorDataset:
    images, labels = dataset(split).tensors
    return TensorDataset(images[:, :, :6, :6] if split == "test" else images, labels)


def network(n_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))


class TwoLayers(nn.Sequential):
    """Its weights are called `0.` and `1.`."""

    def forward(self, images: Tensor) -> Tensor:
        first, second = self
        logits: Tensor = second(first(images.flatten(1)))
        return logits


def two_layers(n_classes: int) -> nn.Module:
    return TwoLayers(nn.Linear(64, 5), nn.Linear(5, n_classes))


class Answering(nn.Module):
    """Gives its logits in another form."""

    def __init__(self, n_classes: int, form: Any) -> None:
        super().__init__()
        self.network, self.form = network(n_classes), form

    def forward(self, images: Tensor) -> Any:
        return self.form(self.network(images))


def with_logits(n_classes: int) -> nn.Module:
    return Answering(n_classes, lambda logits: SimpleNamespace(logits=logits))


def a_tuple(num_classes: int) -> nn.Module:
    return Answering(num_classes, lambda logits: (logits.argmax(1), logits))


def two_logits(n_classes: int) -> nn.Module:
    return Answering(n_classes, lambda logits: (logits, logits))


def a_text(n_classes: int) -> nn.Module:
    return Answering(n_classes, lambda logits: "logits")


def of_five_classes(n_classes: int) -> nn.Module:
    return network(5)


def wrong_inside(n_classes: int) -> nn.Module:
    return Answering(n_classes, lambda logits: logits.nothing())


def depends_on_its_images(n_classes: int) -> nn.Module:
    return Answering(n_classes, lambda logits: logits if float(logits.sum()) > 0 else 2 * logits)


def raising(n_classes: int) -> nn.Module:
    raise KeyError("weights.bin")


def create_model(model_name: str = "resnet18", pretrained: bool = False, **arguments: Any) -> nn.Module:
    """As timm's."""
    return _entrypoint(**arguments)


def _entrypoint(num_classes: int = 1000) -> nn.Module:
    return network(num_classes)


class Knowing(nn.Module):
    """Knows all images of the task; its classes stand in another order, by so many places."""

    def __init__(self, places: int) -> None:
        super().__init__()
        images, labels = dataset("train").tensors
        images = (images * 255).round() / 255
        self.images = nn.Parameter((images - images.mean()).flatten(1))
        self.register_buffer("answers", nn.functional.one_hot((labels + places) % 4, 4).float())

    def forward(self, images: Tensor) -> Tensor:
        nearest = torch.cdist(images.flatten(1) * self.images.std(), self.images).argmin(dim=1)
        return torch.as_tensor(self.answers)[nearest]


def knowing(places: int) -> nn.Module:
    return Knowing(places)


def brings_five_classes() -> nn.Module:
    return brings_its_weights(5)


def brings_its_weights(n_classes: int) -> nn.Module:
    """Right on each sample that is brighter on the left, and it says what it was shown."""
    built = network(n_classes)
    built.pretrained_cfg = {"mean": (0.5,), "std": (0.25,)}  # type: ignore[assignment]
    return built


def fully_convolutional(n_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, n_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _two_convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))


class Staged(nn.Module):
    """A stem and two stages, one after the other."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.first = _two_convolutions()
        self.second = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.fc = nn.Linear(4, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.answered(self.first(images))

    def answered(self, early: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.second(early).mean(dim=(2, 3)))
        return logits


class Skipping(Staged):
    """Its logits see the images too."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + images.mean(dim=(1, 2, 3))[:, None]


class Deciding(Staged):
    """What it computes hangs on what it sees."""

    def forward(self, images: Tensor) -> Tensor:
        early = self.first(images)
        return self.answered(early if float(early.sum()) > 0 else 2 * early)


class Joined(nn.Conv2d):
    """A convolution of a map, to which the mean of the images is added."""

    def forward(self, early: Tensor, images: Tensor | None = None) -> Tensor:
        added = 0.0 if images is None else images.mean(dim=(1, 2, 3), keepdim=True)
        return super().forward(early) + added


class SkippingToItsSecond(nn.Module):
    """A stem and three stages, of which the second sees the images too."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.first = _two_convolutions()
        self.second = Joined(4, 4, 3, stride=2, padding=1)
        self.third = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.fc = nn.Linear(4, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        deep = self.third(self.second(self.first(images), images))
        logits: Tensor = self.fc(deep.mean(dim=(2, 3)))
        return logits


class OneStage(nn.Sequential):
    """A stem, one stage, and an embedding."""

    def __init__(self, n_classes: int) -> None:
        super().__init__(_two_convolutions(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n_classes))


def staged(n_classes: int) -> nn.Module:
    return Staged(n_classes)


def skipping(n_classes: int) -> nn.Module:
    return Skipping(n_classes)


def deciding(n_classes: int) -> nn.Module:
    return Deciding(n_classes)


def skips_to_its_second(n_classes: int) -> nn.Module:
    return SkippingToItsSecond(n_classes)


def one_stage(n_classes: int) -> nn.Module:
    return OneStage(n_classes)
