"""Which cache an experiment needs, and what may be used to build it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from trainables.cache.format.agreement import PREPARED
from trainables.cache.format.identity import folder_name, make_identity
from trainables.cache.format.records import Origin
from trainables.config import (
    CacheConfig,
    CacheIdentity,
    Config,
    DataConfig,
    KeptNetwork,
    KeptTeacher,
    ModelConfig,
    ViewsConfig,
)
from trainables.config.data import SplitFacts
from trainables.errors import CacheError
from trainables.models.features.feature_tap import ENERGY
from trainables.models.features.search import LAST
from trainables.models.features.stages import STAGE
from trainables.teacher.autocast import autocast_digest


def stated_features(kept: KeptTeacher) -> Mapping[str, str]:
    """What the experiment file says of a teacher's features: module paths by name."""
    model = kept.model if isinstance(kept, KeptNetwork) else None
    return {} if model is None else model.features


def stated_parts(paths: Mapping[str, str], kept: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Of features that are kept, by bank, those that `paths` say, with what follows from it, by name.

    The last map is that of the last stage that is named, and a map's energy is of the map.
    """
    stages = {int(name.removeprefix(STAGE)): name for name in paths if name.removeprefix(STAGE).isdigit()}
    if stages and LAST not in paths:
        paths = {**paths, LAST: paths[stages[max(stages)]]}
    bare = {name: name.removeprefix(ENERGY) for names in kept.values() for name in names}
    return {name: paths[of] for name, of in bare.items() if of in paths}


class CacheRequest(Config):
    """Which cache, and what may be used to build it."""

    data: DataConfig
    facts: SplitFacts
    teacher: KeptTeacher | None = Field(description="none when only its logits are known")
    unmade: ModelConfig | None = Field(
        None, description="the teacher's network, where it is not made yet; tells how large its features are"
    )
    teacher_digest: str = Field(description="sha256 of its architecture and weights, or of imported logits")
    views: ViewsConfig
    banks: tuple[str, ...] = Field(min_length=1, description="banks that the experiment needs")
    view_seed: int
    cache: CacheConfig
    asked: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="features of the teacher that objectives ask for, by bank"
    )
    asks_classifier: bool = Field(
        False, description="whether an objective asks for the weights of the teacher's last layer"
    )
    folder: str = Field(description="caches lie below it by fingerprint, when cache.uri is not given")
    actors: int = Field(1, ge=1, description="teachers that run side by side")
    cpus_per_actor: float = Field(0, ge=0, description="0 runs beside slots that hold all CPUs")
    gpus_per_actor: float = Field(0, ge=0)
    threads_per_actor: int = Field(1, ge=1, description="of torch, in each actor")

    @property
    def identity(self) -> CacheIdentity:
        """What the cache is made from."""
        digest = self.teacher_digest
        return make_identity(
            autocast_digest(digest) if self.cache.autocast else digest,
            self.facts,
            seed=self.view_seed,
            precision=self.cache.precision,
            top_k=self.cache.top_k,
        )

    @property
    def origin(self) -> Origin:
        """What the cache's folder is for."""
        return Origin(
            identity=self.identity,
            n_rows=self.facts.n_rows,
            classes=self.facts.classes,
            rows_per_shard=self.cache.rows_per_shard,
            recipes={bank: self.views.bank(bank).recipe for bank in self.banks},
            features=self.features,
            feature_precision=self.cache.feature_precision,
            made_by=self.made_by,
            rows_per_map=self.cache.rows_per_map,
        )

    @property
    def features(self) -> dict[str, tuple[str, ...]]:
        """The features that are kept beside the logits, by bank; below `teacher` its classifier."""
        return self.cache.kept_features(self.banks, self.asked, classifier=self.asks_classifier)

    @property
    def made_by(self) -> dict[str, str]:
        """What makes each feature that is kept, where that is not the network as it is built."""
        if not isinstance(self.teacher, KeptNetwork):
            return stated_parts(self.unmade.features if self.unmade else {}, self.features)
        names = dict.fromkeys(name for names in self.features.values() for name in names)
        prepared = {
            name: f"{PREPARED}{part.sha256}"
            for name in names
            for part in self.teacher.prepared
            if part.gives(name)
        }
        return stated_parts(stated_features(self.teacher), self.features) | prepared

    @property
    def uri(self) -> str:
        """Where the cache lies: cache.uri, or a folder named by all that the answers depend on."""
        if self.cache.uri is not None:
            return self.cache.uri
        recipes = {"weak": self.views.weak.recipe, "strong": self.views.strong.recipe}
        return (
            f"{self.folder.rstrip('/')}/{folder_name(self.identity, recipes, self.cache.feature_precision)}"
        )

    @property
    def network(self) -> KeptTeacher:
        """The teacher, and the file with its weights.

        Raises:
            CacheError: its logits were imported, so nothing can be computed.
        """
        if self.teacher is None:
            raise CacheError(
                f"{self.uri} lacks answers, and its teacher has no network here: its logits were imported; "
                "bring them again, which writes only what is missing: stillhouse cache import FILE EXPERIMENT"
            )
        return self.teacher
