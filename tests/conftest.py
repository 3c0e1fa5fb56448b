from __future__ import annotations

import zlib
from collections.abc import Iterator

import hypothesis
import pytest
import torch

from trainables.training import precision

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("any_machine", deadline=None)
hypothesis.settings.load_profile("any_machine")

ONE_OF = 8
ANSWERS = {"yes": [True], "no": [False], "both": [True, False]}
"""Whether the processor has bf16, as tests that take `either_bf16` are told; by what --bf16 says."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bf16", choices=list(ANSWERS), default="both", help="what either_bf16 runs a test with"
    )
    parser.addoption(
        "--some-variants",
        action="store_true",
        help=f"of each parametrised test every {ONE_OF}th variant, from another one on for each test",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--some-variants"):
        return
    variants: dict[str, list[pytest.Item]] = {}
    for item in items:
        variants.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {
        item.nodeid
        for test, of_test in variants.items()
        for item in of_test[zlib.crc32(test.encode()) % min(ONE_OF, len(of_test)) :: ONE_OF]
    }
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
    items[:] = [item for item in items if item.nodeid in kept]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "either_bf16" in metafunc.fixturenames:
        answers = ANSWERS[metafunc.config.getoption("--bf16")]
        names = ["bf16 fast" if answer else "bf16 absent" for answer in answers]
        metafunc.parametrize("either_bf16", answers, indirect=True, ids=names)


@pytest.fixture(autouse=True)
def _no_answer_of_this_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the integration tests nobody is told what this processor can do: results would depend on it."""

    def refuse() -> bool:
        pytest.fail("asks whether the processor has bf16: take the fixture either_bf16, for both answers")

    if "integration" not in request.path.parts:
        monkeypatch.setattr(precision, "cpu_has_bf16", refuse)


@pytest.fixture
def either_bf16(
    _no_answer_of_this_machine: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[bool]:
    """Whether the processor has bf16, by which the table of precisions decides."""
    fast, asked = bool(request.param), []

    def answer() -> bool:
        asked.append(fast)
        return fast

    monkeypatch.setattr(precision, "cpu_has_bf16", answer)
    yield fast
    assert asked, "nobody asked whether the processor has bf16: without either_bf16 this test runs once"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums in a fixed order, for all tests of a file and what they share."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
