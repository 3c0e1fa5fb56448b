"""Data: which images, and how train and selection are cut."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.config.base import Config, FactoryPath, FiniteFloat, Scalar


class DataName(StrEnum):
    """Data sets that Stillhouse reads by name."""

    DIGITS = "digits"
    FASHION_MNIST = "fashion_mnist"
    CIFAR10 = "cifar10"
    CIFAR100 = "cifar100"
    IMAGE_FOLDER = "image_folder"


class ImageLayout(StrEnum):
    """How the images of an image_folder lie below its root."""

    PARTS = "parts"
    CLASSES = "classes"
    MANIFEST = "manifest"
    PARQUET = "parquet"
    TARS = "tars"
    DATASETS = "datasets"


class Split(StrEnum):
    """Train fits weights, selection ranks students, test is read once at the end."""

    TRAIN = "train"
    SELECTION = "selection"
    TEST = "test"


NEEDS_ROOT = frozenset(DataName) - {DataName.DIGITS}
_TEST_FRACTION = 0.2
PerChannel = Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=4)]


class Normalisation(Config):
    """How pixels in [0, 1] become what a network reads: (pixel - mean) / std, per channel."""

    mean: PerChannel
    std: PerChannel

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"`mean` has {len(self.mean)} values and `std` {len(self.std)}; give both one per channel"
            )
        if min(self.std) <= 0:
            raise ValueError("`std` must be above 0 in each channel")
        return self


class UnlabelledConfig(Config):
    """Images without labels, which the teacher answers for; students learn from them beside labelled ones."""

    root: str | None = Field(None, description="folder with images, at any depth")
    factory: FactoryPath | None = Field(
        None, description='"module:function"; called as function(**arguments), gives a data set of images'
    )
    arguments: dict[str, Scalar] = Field({}, description="keyword arguments of the factory")
    rest: bool = Field(
        False,
        description="the training samples that `train_limit` and `imbalance` leave out, without their labels",
    )
    share: FiniteFloat = Field(
        0.5,
        gt=0,
        le=1,
        description="part of each batch that is unlabelled; 1: in the place of labelled images",
    )
    top_class_as_target: bool = Field(
        False,
        description="objectives whose teacher's term is about the label's class (dkd, aekt, and those with "
        "base dkd) take the teacher's most probable class for it; not from their papers",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [self.root is not None, self.factory is not None, self.rest].count(True) != 1:
            raise ValueError("give exactly one of `root`, `factory` and `rest: true`")
        if self.arguments and self.factory is None:
            raise ValueError("`arguments` are for a `factory`")
        return self

    @property
    def source(self) -> str:
        """Where the images come from, in words."""
        return self.root or self.factory or "training samples that are left out"

    def rows_of(self, batch_size: int, *, together: int = 1) -> int:
        """How many samples of a batch are unlabelled: its share; below 1 at least one, or one pair, of each.

        Raises:
            ValueError: one sample, or one pair (`together` is 2), cannot be of both kinds.
        """
        if self.share == 1:
            return batch_size
        if (count := batch_size // together) < 2:
            raise ValueError("a batch of one sample cannot hold a labelled and an unlabelled one")
        return together * min(max(round(self.share * count), 1), count - 1)


class DataConfig(Config):
    """A data set by name, or the user's own by `factory: "module:function"`."""

    name: DataName | None = Field(None, description="a data set that Stillhouse knows")
    factory: FactoryPath | None = Field(
        None,
        description='"module:function"; called as function(split=..., **arguments), gives a torch Dataset',
    )
    arguments: dict[str, Scalar] = Field({}, description="keyword arguments of the factory")
    root: str | None = Field(None, description="folder that holds the files")
    download: bool = Field(False, description="let torchvision fetch the files into `root`")
    image_size: int | None = Field(
        None,
        ge=4,
        le=1024,
        description="side in pixels after resizing; default: as they are, and of an image_folder what the "
        "teacher's library or folder states",
    )
    resize: Annotated[int, Field(ge=4, le=4096)] | Literal["stretch"] | None = Field(
        None,
        description="pixels to which the shorter side is scaled before the square of `image_size` in "
        "the middle is cut, or `stretch`: both sides are scaled to `image_size`; default: `image_size`, or "
        "the teacher's own rule, where `image_size` is left to it",
        exclude_if=lambda value: value is None,
    )
    memory_gb: FiniteFloat = Field(
        4.0,
        ge=0,
        description="image_folder: parts that take more than so many 10^9 bytes when decoded stay on disk; "
        "their images are decoded batch by batch",
        exclude_if=lambda value: value == 4,
    )
    skip_unreadable: bool = Field(
        False,
        description="image_folder: leave images out that cannot be decoded, instead of stopping",
        exclude_if=lambda value: not value,
    )
    layout: ImageLayout | None = Field(
        None,
        description="image_folder: how the images lie below `root`; only needed where it could be several: "
        "parts (train/<class>/ and test/ or val/), classes (<class>/), manifest (CSV or JSON lines), "
        "parquet, tars (as WebDataset has them), datasets (as its save_to_disk leaves them)",
        exclude_if=lambda value: value is None,
    )
    manifest: str | None = Field(
        None,
        description="image_folder: CSV or JSON lines below `root` with path, label and, if wanted, split",
        exclude_if=lambda value: value is None,
    )
    image_column: str | None = Field(
        None,
        description="image_folder: column of a manifest's paths or a table's images, where it is not plain",
        exclude_if=lambda value: value is None,
    )
    label_column: str | None = Field(
        None,
        description="image_folder: column of a manifest's or a table's labels, where it is not plain",
        exclude_if=lambda value: value is None,
    )
    test_fraction: FiniteFloat = Field(
        _TEST_FRACTION,
        gt=0,
        lt=0.9,
        description="image_folder: part of the images that is set apart to test where there is no test part",
        exclude_if=lambda value: value == _TEST_FRACTION,
    )
    train_limit: int | None = Field(
        None, ge=1, description="keep only so many training samples (the first by hashed id)"
    )
    imbalance: FiniteFloat = Field(
        1.0,
        ge=1,
        le=1e6,
        description="long tail: the first class of the training split keeps so many times the samples of the "
        "last, the others in between; 1 leaves all",
        exclude_if=lambda value: value == 1,
    )
    selection_fraction: FiniteFloat = Field(
        0.2, gt=0, lt=0.9, description="part of the training set that is held out to rank students"
    )
    mean: PerChannel | None = Field(None, description="per channel, of pixels in [0, 1]; default: measured")
    std: PerChannel | None = Field(None, description="per channel, of pixels in [0, 1]; default: measured")
    unlabelled: UnlabelledConfig | None = Field(
        None,
        description="images without labels, for objectives with a teacher",
        exclude_if=lambda unlabelled: unlabelled is None,
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.name is None) == (self.factory is None):
            raise ValueError("give exactly one of `name` and `factory`")
        if self.arguments and self.factory is None:
            raise ValueError("`arguments` are for a `factory`")
        if self.name in NEEDS_ROOT and self.root is None:
            raise ValueError(f"data set {self.name} needs `root`, the folder with its files")
        if self.resize is not None and self.image_size is None:
            raise ValueError("`resize` goes with `image_size`")
        if isinstance(self.resize, int) and self.resize < (self.image_size or 0):
            raise ValueError("`resize` must be at least `image_size`, which is cut from it")
        if self.skip_unreadable and self.name is not DataName.IMAGE_FOLDER:
            raise ValueError("`skip_unreadable` is for data set image_folder")
        if (self.mean is None) != (self.std is None):
            raise ValueError("give `mean` and `std` together or neither")
        rest = self.unlabelled is not None and self.unlabelled.rest
        if rest and self.train_limit is None and self.imbalance == 1:
            raise ValueError("`unlabelled.rest` is of what `train_limit` or `imbalance` leaves out: give one")
        self._refuse_layout()
        return self

    @property
    def labelled(self) -> Self:
        """The same without unlabelled images: what a teacher is trained on, and what is evaluated."""
        return self if self.unlabelled is None else self.model_copy(update={"unlabelled": None})

    def _refuse_layout(self) -> None:
        fields = ("layout", "manifest", "image_column", "label_column")
        given = [name for name in fields if getattr(self, name) is not None]
        given += ["test_fraction"] if self.test_fraction != _TEST_FRACTION else []
        if given and self.name is not DataName.IMAGE_FOLDER:
            raise ValueError(f"`{given[0]}` is for data set image_folder")
        if self.manifest is not None and self.layout not in {None, ImageLayout.MANIFEST}:
            raise ValueError(f"`manifest` is for layout manifest, and `layout` is {self.layout}")


class SourcePart(StrEnum):
    """The two parts that a data set comes in; the selection split is cut from its training part."""

    TRAIN = "train"
    TEST = "test"


class UnlabelledCounts(Config):
    """How many unlabelled images there are, and how many of their source were left out."""

    count: int = Field(ge=1)
    in_selection: int = Field(0, description="left out: the same image is in the selection split")
    in_test: int = Field(0, description="left out: the same image is in the test split")
    unreadable: int = Field(0, description="left out: they cannot be read")

    @property
    def left_out_in_words(self) -> str:
        """How many were left out, and why."""
        reasons = {
            "in the selection split too": self.in_selection,
            "in the test split too": self.in_test,
            "unreadable": self.unreadable,
        }
        told = ", ".join(f"{count:,} {why}" for why, count in reasons.items() if count)
        return f"left out: {told or 'none'}"


class UnlabelledFacts(UnlabelledCounts):
    """What is known of unlabelled images once they were read."""

    images_digest: str = Field(description="sha256 of the images and their ids")

    def in_words(self, config: UnlabelledConfig) -> str:
        """How many there are, what part of a batch they are, and how many were left out."""
        return (
            f"{self.count:,} unlabelled images of {config.source}, {config.share:g} of each batch of "
            f"objectives with a teacher; {self.left_out_in_words}"
        )


class SplitFacts(Config):
    """What a cache needs to know of a training split; it can be told without loading the data."""

    data_digest: str = Field(description="sha256 of the training images, labels and ids")
    ids_digest: str = Field(description="sha256 of the sample ids")
    n_train: int = Field(ge=1)
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int] = Field(description="channels, height, width")
    left_out: int = Field(0, description="unreadable images that are in neither training nor selection split")
    unlabelled: UnlabelledFacts | None = Field(
        None,
        description="of the images without labels that the teacher answers for too",
        exclude_if=lambda unlabelled: unlabelled is None,
    )

    @property
    def n_rows(self) -> int:
        """Samples that the teacher answers for: the training split, and unlabelled images behind it."""
        return self.n_train + (0 if self.unlabelled is None else self.unlabelled.count)
