"""Which cache an experiment needs, and what may be used to build it."""

from __future__ import annotations

from pydantic import Field

from trainables.cache.format.identity import folder_name, make_identity
from trainables.cache.format.manifest import Origin, Part
from trainables.cache.format.planning import Plan
from trainables.config import (
    CacheConfig,
    CacheIdentity,
    Config,
    DataConfig,
    KeptNetwork,
    KeptTeacher,
    ViewsConfig,
)
from trainables.config.data import SplitFacts
from trainables.errors import CacheError
from trainables.models import build_model
from trainables.models.embedding import embedding_width_of
from trainables.teacher.autocast import autocast_digest


class CacheRequest(Config):
    """Which cache, and what may be used to build it."""

    data: DataConfig
    facts: SplitFacts
    teacher: KeptTeacher | None = Field(description="none when only its logits are known")
    teacher_digest: str = Field(description="sha256 of its architecture and weights, or of imported logits")
    views: ViewsConfig
    banks: tuple[str, ...] = Field(min_length=1, description="banks that the experiment needs")
    view_seed: int
    cache: CacheConfig
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
            embedding=self.cache.embedding,
        )

    @property
    def uri(self) -> str:
        """Where the cache lies: cache.uri, or a folder named by all that the answers depend on."""
        if self.cache.uri is not None:
            return self.cache.uri
        recipes = {"weak": self.views.weak.recipe, "strong": self.views.strong.recipe}
        return f"{self.folder.rstrip('/')}/{folder_name(self.identity, recipes)}"

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


def embedding_width(request: CacheRequest, plan: Plan) -> int | None:
    """Numbers in an embedding of the teacher, where a plan still needs embeddings.

    Raises:
        CacheError: the teacher has no linear classifier.
    """
    if request.teacher is None or all(shard.part is Part.LOGITS for shard in plan.missing):
        return None
    if not isinstance(request.teacher, KeptNetwork):
        raise CacheError("several teachers have no one embedding; set cache.embedding to false")
    classes = request.teacher.classes
    if request.teacher.model is None:
        raise CacheError(
            f"the teacher {request.teacher.weights} has no embedding that could be kept, since its network "
            "is an ONNX file; set cache.embedding to false"
        )
    n_outputs = classes.n_outputs if classes else len(request.facts.classes)
    model = build_model(request.teacher.model, n_classes=n_outputs, in_channels=request.facts.input_shape[0])
    return embedding_width_of(model, n_outputs)
