"""What makes two caches the same, and how to say in which part they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from trainables.config import CacheIdentity, Precision, Recipe, digest_of
from trainables.config.cache import CLASSIFIER, LOGITS, FeaturePrecision
from trainables.config.data import SplitFacts
from trainables.errors import CacheError

SCHEMA_VERSION: Final = 1
"""Goes up when the files change their format, or when a drawn view or a kept value changes its meaning."""


def make_identity(
    teacher: str, facts: SplitFacts, *, seed: int, precision: Precision, top_k: int | None = None
) -> CacheIdentity:
    """The identity of the cache of a teacher (given by its digest) over a training split.

    `seed` is that of the views; `top_k` counts for precision topk alone.

    Raises:
        CacheError: a top-k that would keep every class.
    """
    return CacheIdentity(
        schema_version=SCHEMA_VERSION,
        teacher=teacher,
        data=facts.data_digest,
        split=facts.ids_digest,
        preprocessing=digest_of(facts.model_dump(mode="json", include={"mean", "std", "input_shape"})),
        seed=seed,
        n_classes=len(facts.classes),
        dtype=precision,
        top_k=require_top_k(top_k, len(facts.classes)) if precision is Precision.TOPK else None,
        unlabelled=None if facts.unlabelled is None else facts.unlabelled.images_digest,
    )


def require_top_k(top_k: int | None, n_classes: int) -> int:
    """K, which must be below the number of classes.

    Raises:
        CacheError: it is not.
    """
    if top_k is None or not 1 <= top_k < n_classes:
        raise CacheError(
            f"cache.top_k is {top_k}, but the data set has {n_classes} classes; allowed: "
            f"1 to {n_classes - 1}, or another cache.precision"
        )
    return top_k


def bank_fingerprint(identity: CacheIdentity, recipe: Recipe) -> str:
    """Hex sha256 of all that a shard of a bank depends on besides its place in the bank."""
    return digest_of({"identity": identity.plain(), "recipe": plain_recipe(recipe)})


def part_fingerprint(
    identity: CacheIdentity,
    recipe: Recipe,
    part: str,
    precision: FeaturePrecision,
    made_by: str | None = None,
) -> str:
    """The same of a shard of any part: features that are kept as fp32 differ from those in fp16.

    `made_by` says what makes a feature where that is not the network as it is built. The weights of the
    classifier depend on no recipe, and are always fp32.
    """
    if part == CLASSIFIER:
        return digest_of({"identity": identity.plain(), "part": part})
    differs: dict[str, str] = {} if precision is FeaturePrecision.FP16 else {"features": precision.value}
    differs |= {} if made_by is None else {"made by": made_by}
    if part == LOGITS or not differs:
        return bank_fingerprint(identity, recipe)
    return digest_of({"identity": identity.plain(), "recipe": plain_recipe(recipe), **differs})


def folder_name(
    identity: CacheIdentity,
    recipes: Mapping[str, Recipe],
    precision: FeaturePrecision = FeaturePrecision.FP16,
) -> str:
    """The name of the folder of a cache that is addressed by what it holds, whatever the number of views.

    `precision` is that of features, all of which a folder keeps alike.
    """
    banks = {bank: plain_recipe(recipe) for bank, recipe in recipes.items()}
    features = {} if precision is FeaturePrecision.FP16 else {"features": precision.value}
    return digest_of({"identity": identity.plain(), "recipes": banks, **features})[:16]


def plain_recipe(recipe: Recipe) -> list[dict[str, Any]]:
    """A recipe as plain data."""
    return [step.model_dump(mode="json") for step in recipe]


def short(digest: str) -> str:
    """The beginning of a digest, for messages."""
    return f"{digest[:8]}…"


def _unlabelled(digest: str | None) -> str:
    return "no unlabelled images" if digest is None else f"unlabelled images {short(digest)}"


_CLAUSES: Final[Mapping[str, Callable[[Any, Any], str]]] = MappingProxyType(
    {
        "schema_version": lambda a, b: f"cache has format {a}, this version reads format {b}",
        "teacher": lambda a, b: f"cache was written by teacher {short(a)}, this experiment uses {short(b)}",
        "data": lambda a, b: f"cache was made from data {short(a)}, this experiment has {short(b)}",
        "split": lambda a, b: f"cache covers training split {short(a)}, this experiment trains on {short(b)}",
        "preprocessing": lambda a, b: (
            f"cache was made with preprocessing (mean, std, image size) {short(a)}, "
            f"this experiment uses {short(b)}"
        ),
        "seed": lambda a, b: f"cache shows views of seed {a}, this experiment uses seed {b}",
        "n_classes": lambda a, b: f"cache has {a} classes, this experiment has {b}",
        "dtype": lambda a, b: f"cache keeps {a.value}, this experiment asks for {b.value}",
        "top_k": lambda a, b: f"cache keeps the largest {a} logits, this experiment asks for {b}",
        "unlabelled": lambda a, b: (
            f"cache holds answers to {_unlabelled(a)}, this experiment uses {_unlabelled(b)}"
        ),
    }
)


def differences(found: CacheIdentity, wanted: CacheIdentity) -> list[str]:
    """The parts in which two identities differ, one clause each, in the order of the fields."""
    pairs = ((name, getattr(found, name), getattr(wanted, name)) for name in CacheIdentity.model_fields)
    return [_CLAUSES[name](a, b) for name, a, b in pairs if a != b]


def require_identity(uri: str, found: CacheIdentity, wanted: CacheIdentity) -> None:
    """Refuse a cache that was made for something else.

    Raises:
        CacheError: naming each part that differs.
    """
    refuse(uri, differences(found, wanted))


def refuse(uri: str, clauses: Iterable[str]) -> None:
    """Raise when there is any difference to tell.

    Raises:
        CacheError: with the clauses and the next step.
    """
    text = "; ".join(clauses)
    if text:
        raise CacheError(f"{uri}: {text}; point cache.uri elsewhere or remove it")
