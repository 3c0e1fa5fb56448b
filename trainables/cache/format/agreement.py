"""What a folder is for when several experiments share it, and what of it one of them asks for."""

from __future__ import annotations

from typing import Final

from trainables.cache.format.identity import differences, plain_recipe, refuse
from trainables.cache.format.records import Origin
from trainables.config.cache import CLASSIFIER, is_whole_map

FOUND: Final = "what is found in the network"
PREPARED: Final = "prepared:"
"""Before the sha256 of what makes a feature, where the teacher was prepared with it."""


def merged_origin(uri: str, found: Origin | None, wanted: Origin) -> Origin:
    """What a folder is for that was found to be for one thing, and is wanted for another too.

    Raises:
        CacheError: both do not go together; it names each part that differs.
    """
    if found is None:
        return wanted
    clauses = differences(found.identity, wanted.identity)
    for bank, recipe in wanted.recipes.items():
        kept = found.recipes.get(bank, recipe)
        if kept != recipe:
            clauses.append(
                f"cache shows bank {bank} by recipe {plain_recipe(kept)}, "
                f"this experiment uses {plain_recipe(recipe)}"
            )
    there, asked = _tapped(found), _tapped(wanted)
    if there and asked and found.feature_precision is not wanted.feature_precision:
        clauses.append(
            f"cache keeps features as {found.feature_precision.value}, this experiment asks for "
            f"{wanted.feature_precision.value}"
        )
    for name in sorted(there & asked):
        by, own = found.made_by.get(name, FOUND), wanted.made_by.get(name, FOUND)
        # A teacher that is not prepared yet is planned for; one that was prepared anew gets new files.
        if by != own and not by.startswith(PREPARED):
            clauses.append(f"cache keeps as {name} {by}, this experiment says {own}")
    refuse(uri, clauses)
    return found.with_overrides(
        recipes={**wanted.plain()["recipes"], **found.plain()["recipes"]},
        features=features_of_both(found, wanted),
        made_by={
            **{name: path for name, path in wanted.made_by.items() if name not in there},
            **found.made_by,
            **{name: by for name, by in wanted.made_by.items() if by.startswith(PREPARED)},
        },
        feature_precision=(wanted if asked and not there else found).feature_precision,
        rows_per_map=(found if any(map(is_whole_map, there)) else wanted).rows_per_map,
    )


def _tapped(origin: Origin) -> set[str]:
    """The features by name; not the classifier, which is always kept in fp32, in one file."""
    return {name for names in origin.features.values() for name in names} - {CLASSIFIER}


def asked_of(folder: Origin, wanted: Origin) -> Origin:
    """What a folder is for, with the features that are wanted alone."""
    names = _tapped(wanted)
    return folder.with_overrides(
        features=wanted.features,
        made_by={name: by for name, by in folder.made_by.items() if name in names},
    )


def features_of_both(folder: Origin, origin: Origin) -> dict[str, tuple[str, ...]]:
    """The features of each bank, those of the folder in its order first."""
    return {
        bank: tuple(dict.fromkeys((*folder.features.get(bank, ()), *origin.features.get(bank, ()))))
        for bank in (*folder.features, *origin.features)
    }
