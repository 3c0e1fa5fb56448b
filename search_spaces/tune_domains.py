"""One domain of a space as Ray Tune's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ray import tune
from ray.tune.search.sample import Domain as TuneDomain
from ray.tune.search.sample import Float
from ray.tune.search.sample import Normal as NormalSampler

from search_spaces.domains import N_SD, Bell, Domain, Listed

_TUNE: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        "uniform": tune.uniform,
        "quniform": tune.quniform,
        "loguniform": tune.loguniform,
        "qloguniform": tune.qloguniform,
        "randint": tune.randint,
        "qrandint": tune.qrandint,
        "lograndint": tune.lograndint,
        "qlograndint": tune.qlograndint,
    }
)


class _NormalWithin(NormalSampler):
    """Draws again what lies too far out; Tune's own sampler has no bounds."""

    def sample(
        self, domain: TuneDomain, config: Any = None, size: int = 1, random_state: Any = None
    ) -> float | list[float]:
        values: list[float] = []
        while len(values) < size:
            value = float(random_state.normal(self.mean, self.sd))
            if abs(value - self.mean) <= N_SD * self.sd:
                values.append(value)
        return values if size > 1 else values[0]


def tune_domain(domain: Domain) -> Any:
    """What `tune.Tuner` takes for this domain."""
    if isinstance(domain, Listed):
        return tune.choice(list(domain.arguments))
    if isinstance(domain, Bell):
        bell = Float(None, None)
        bell.set_sampler(_NormalWithin(domain.mean, domain.sd))  # type: ignore[no-untyped-call]
        return bell
    return _TUNE[domain.kind](*domain.arguments)
