"""Tune's proxies without processes: what it asks of them, and in which order it is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trainables.slots.proxies import proxies_in_driver as module
from trainables.slots.proxies.proxies_in_driver import ProxiesInDriver, can_be_in_driver
from trainables.slots.proxies.proxy_calls import Proxy


class Trial:
    """What Tune would be given to try, as far as it is called here."""

    def __init__(self, config: dict[str, Any], storage: Any = None) -> None:
        if config.get("broken"):
            raise OSError("no room")
        self.config = config
        self.stopped = 0

    def save(self) -> dict[str, Any]:
        self.config["saved"] = True
        return self.config

    def fail(self) -> None:
        raise OSError("no room")

    def stop(self) -> None:
        self.stopped += 1


class Tune:
    """Tune's side: what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.made: list[Trial] = []
        self.proxies = ProxiesInDriver(self._make)  # type: ignore[arg-type]

    def _make(self, **kwargs: Any) -> Trial:
        self.made.append(Trial(**kwargs))
        return self.made[-1]

    def add(self, **config: Any) -> Proxy:
        return self.proxies.add_actor(
            None,
            {"config": config},
            None,
            on_start=lambda _: self.told.append(("started", None)),
            on_stop=lambda _: self.told.append(("stopped", None)),
            on_error=lambda _, error: self.told.append(("not made", str(error))),
        )

    def call(self, proxy: Proxy, method: str) -> None:
        self.proxies.schedule_actor_task(
            proxy,
            method,
            on_result=lambda _, result: self.told.append((method, result)),
            on_error=lambda _, error: self.told.append((f"{method} failed", str(error))),
        )

    def events(self) -> list[str]:
        while self.proxies.next(timeout=0):
            continue
        return [name for name, _ in self.told]


@pytest.fixture
def tune() -> Tune:
    return Tune()


def test_a_proxy_is_made_with_the_next_event_and_what_was_called_before_follows(tune: Tune) -> None:
    proxy = tune.add()
    tune.call(proxy, "save")
    assert (tune.proxies.num_pending_actors, tune.proxies.num_live_actors, tune.made) == (1, 0, [])
    assert tune.events() == ["started", "save"]
    assert (tune.proxies.num_pending_actors, tune.proxies.num_live_actors) == (0, 1)
    assert tune.proxies.is_actor_started(proxy)


def test_each_event_is_told_by_itself(tune: Tune) -> None:
    proxy = tune.add()
    assert tune.proxies.next(timeout=0)
    tune.call(proxy, "save")
    assert [name for name, _ in tune.told] == ["started"]
    assert tune.proxies.num_actor_tasks == 1


def test_tune_and_trial_share_no_object(tune: Tune) -> None:
    config: dict[str, Any] = {"lr": 0.1}
    proxy = tune.proxies.add_actor(None, {"config": config}, None)
    tune.call(proxy, "save")
    tune.events()
    [(_, result)] = tune.told
    assert (config, result) == ({"lr": 0.1}, {"lr": 0.1, "saved": True})
    assert result is not tune.made[0].config


def test_a_call_that_fails_is_told_as_failed(tune: Tune) -> None:
    proxy = tune.add()
    tune.call(proxy, "fail")
    assert tune.events() == ["started", "fail failed"]
    assert tune.proxies.is_actor_started(proxy)


def test_a_proxy_that_cannot_be_made_is_told_and_takes_no_calls(tune: Tune) -> None:
    proxy = tune.add(broken=True)
    assert tune.events() == ["not made"]
    tune.call(proxy, "save")
    assert tune.events() == ["not made"]
    assert tune.proxies.is_actor_failed(proxy)
    assert not tune.proxies.remove_actor(proxy)


def test_calls_whose_outcome_tune_gave_up_are_not_told(tune: Tune) -> None:
    one, other = tune.add(), tune.add()
    tune.events()
    tune.call(one, "save")
    tune.call(other, "save")
    tune.proxies.clear_actor_task_futures(one)
    assert tune.events() == ["started", "started", "save"]


def test_a_proxy_that_is_let_go_was_stopped_and_its_end_is_told(tune: Tune) -> None:
    proxy = tune.add()
    tune.events()
    tune.call(proxy, "save")
    tune.proxies.schedule_actor_task(proxy, "stop")
    assert tune.proxies.remove_actor(proxy)
    assert tune.events() == ["started", "stopped"]
    assert (tune.made[0].stopped, tune.proxies.num_total_actors) == (1, 0)


def test_a_proxy_that_is_let_go_before_it_was_made_is_never_made(tune: Tune) -> None:
    proxy = tune.add()
    assert not tune.proxies.remove_actor(proxy)
    assert tune.events() == []
    assert tune.made == []


def test_a_proxy_that_is_none_is_refused(tune: Tune) -> None:
    stranger = Proxy(None, None, None)
    with pytest.raises(ValueError, match="is no proxy of this search"):
        tune.call(stranger, "save")
    with pytest.raises(ValueError, match="is no proxy of this search"):
        tune.proxies.remove_actor(stranger)


def test_at_the_end_proxies_that_tune_left_are_stopped(tune: Tune) -> None:
    tune.add()
    tune.events()
    tune.proxies.cleanup()
    assert (tune.made[0].stopped, tune.proxies.num_total_actors) == (1, 0)


def test_this_version_of_tune_can_be_served() -> None:
    assert can_be_in_driver()


def test_a_tune_that_has_its_manager_elsewhere_keeps_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_controller", lambda: SimpleNamespace())
    assert not can_be_in_driver()
    monkeypatch.setattr(module, "_controller", lambda: None)
    assert not can_be_in_driver()


def test_a_tune_that_asks_more_than_is_served_keeps_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "self._actor_manager.add_actor(x); self._actor_manager.move_actor(x)"
    monkeypatch.setattr("inspect.getsource", lambda _: source)
    assert not can_be_in_driver()
