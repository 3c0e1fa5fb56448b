"""Files that are wrong in ways that nobody means: each is told in few short lines, at once, with place."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.config.loading import EXPERIMENTS_FOLDER, SPACES_FOLDER, load_experiment, load_space
from orchestrator.config.validation_messages import MAX_TOLD
from orchestrator.config.yaml_reader import MAX_BYTES, KeyPath, parse_yaml
from orchestrator.tracking.registry import require_model_name
from trainables.errors import ConfigError

DIGITS = (EXPERIMENTS_FOLDER / "digits.yaml").read_text()
LONG = 5000 * "a"
SEED = 11
LONGEST_LINE = 1500
"""Of a message; the longest list of allowed names has some 900 characters."""


def problems(folder: Path, text: str) -> tuple[str, ...]:
    path = folder / "my.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(path))
    assert all(line.startswith(f"{path}:") and "\n" not in line for line in caught.value.problems), (
        caught.value
    )
    return tuple(line.removeprefix(f"{path}:") for line in caught.value.problems)


def told(folder: Path, text: str) -> str:
    (line,) = problems(folder, text)
    return line


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("!!bool hello", "'hello' is no bool"),
        ("!!int ''", "'' is no int"),
        ("!!float '-'", "'-' is no float"),
        ('"\\U00110000"', "not YAML"),
        ('"\\UFFFFFFFF"', "not YAML"),
        ('"\\ud800"', "character #xd800 is not allowed in a text"),
        ('"\\0"', "character #x0000 is not allowed in a text"),
    ],
)
def test_a_value_that_is_not_what_its_tag_or_escape_says_is_told(
    tmp_path: Path, value: str, says: str
) -> None:
    assert told(tmp_path, f"name: a\nseed: {value}\n").startswith("2: " + says)


def test_brackets_without_end_in_a_checkpoint_are_told(tmp_path: Path) -> None:
    header = 200_000 * b"["
    (tmp_path / "t.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    text = DIGITS.replace("teacher:\n", "teacher:\n  checkpoint: t.safetensors\n")
    assert "an intact safetensors file; this one is damaged" in told(tmp_path, text)


def test_the_first_of_many_problems_are_told_and_the_others_counted(tmp_path: Path) -> None:
    lines = problems(tmp_path, DIGITS + "".join(f"k{i}: 1\n" for i in range(1000)))
    first = len(DIGITS.splitlines()) + 1
    assert len(lines) == MAX_TOLD + 1
    assert lines[0].startswith(f"{first}: k0: unknown key; allowed: name, out")
    assert lines[-1] == f"{first + MAX_TOLD}: and {1000 - MAX_TOLD} more problems from this line on"


def test_many_unknown_keys_take_work_in_proportion(tmp_path: Path) -> None:
    def calls(count: int) -> int:
        """Calls of functions: unlike seconds, the same on each machine."""
        text = DIGITS.replace("student:", "studnt:") + "".join(f"k{i}: 1\n" for i in range(count))
        counted = itertools.count()
        sys.setprofile(lambda *_: next(counted))
        try:
            problems(tmp_path, text)
        finally:
            sys.setprofile(None)
        return next(counted)

    calls(10)  # schemas are made once
    assert calls(2000) < 5 * calls(500)  # four times as many; where it was quadratic, sixteen


@pytest.mark.parametrize("above", ["", "teacher: ", "views: ", "training: "])
def test_a_long_key_is_shortened(tmp_path: Path, above: str) -> None:
    lines = problems(tmp_path, f"name: a\n{above and above + '{'}? {LONG}\n: 1\n{above and '}'}")
    assert any(f"{57 * 'a'}...: unknown key" in line for line in lines)
    assert all(len(line) < LONGEST_LINE for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        f"? {LONG}\n: 1\n? {LONG}\n: 2",
        f"? [{LONG}]\n: 1",
        f"a: !{LONG} 1",
        f"a: *{LONG}",
        f"space: {LONG}",
    ],
)
def test_whatever_is_long_is_shortened(tmp_path: Path, text: str) -> None:
    assert all(len(line) < LONGEST_LINE for line in problems(tmp_path, text))


def test_a_long_text_in_any_place_is_shortened(tmp_path: Path) -> None:
    document = parse_yaml(DIGITS, file="digits.yaml")
    for path, value in scalars(document.data):
        line = document.line(path) - 1
        lines = DIGITS.splitlines()
        lines[line] = lines[line].replace(str(value), LONG, 1)
        if LONG in lines[line]:
            (tmp_path / "my.yaml").write_text("\n".join(lines))
            try:
                load_experiment(str(tmp_path / "my.yaml"))
            except ConfigError as error:
                assert all(len(told) < LONGEST_LINE for told in error.problems), path


def scalars(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from scalars(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from scalars(child, (*path, index))
    else:
        yield path, value


def test_a_key_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    assert r"1: \x1b[31mred: unknown key" in "\n".join(problems(tmp_path, '"\\e[31mred": 1\n'))


def test_the_message_on_size_has_a_line(tmp_path: Path) -> None:
    line = told(tmp_path, DIGITS + (MAX_BYTES // 10) * "# comment\n\n")
    assert line.endswith(f"the file goes on; allowed: at most {MAX_BYTES} bytes, reached here")
    assert int(line.partition(":")[0]) > 100_000


def test_merged_keys_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    lines = ["x-0: &m0 {a: 1}"] + [f"x-{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}" for i in range(1, 30)]
    text = "\n".join([*lines, "views: {<<: *m29}"])
    assert "unfolds to more than 100000 values" in told(tmp_path, text)


def test_a_grid_of_countless_points_is_counted_and_not_made(tmp_path: Path) -> None:
    numbers = ", ".join(str(1 + i / 1000) for i in range(1000))
    names = ("temperature", "ce_weight", "kd_weight")
    domains = "".join(f"    {name}: {{grid_search: [{numbers}]}}\n" for name in names)
    (tmp_path / "space.yaml").write_text(
        f"name: s\nobjectives:\n  kd:\n{domains}search: {{algorithm: grid, points_to_evaluate: []}}\n"
    )
    text = "".join(line for line in DIGITS.splitlines(keepends=True) if not line.startswith("space:"))
    assert "has 1000000000 points" in told(tmp_path, f"{text}space: space.yaml\n")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("pick: {model_name: a/b}", "pick.model_name: found 'a/b'; the model registry cannot hold this name"),
        ("pick: {model_name: ''}", "pick.model_name: found ''; the model registry"),
        ("pick: {model_name: '  '}", "pick.model_name: found ' '; the model registry"),
        ("pick: {model_name: ..}", "pick.model_name: found '..'; the model registry"),
        ('pick: {model_name: "it\'s"}', "the model registry cannot hold this name"),
        ("record: {tracking_uri: ''}", "record.tracking_uri: found ''; it is empty; write sqlite:////"),
        ("record: {tracking_uri: 'javascript:alert(1)'}", "javascript is no store that Stillhouse writes to"),
        ("record: {tracking_uri: 'http://'}", "record.tracking_uri: found 'http://'; it names no server"),
        ("record: {tracking_uri: 'http://host:99999'}", "it names no server, or a port outside 1 to 65535"),
        ("record: {tracking_uri: 'http://['}", "it names no server"),
        ("record: {tracking_uri: 'http://a b'}", "it holds blanks or control characters"),
        ("record: {experiment_name: ''}", "record.experiment_name: found ''; allowed: text of 1 to 500"),
        ("out: ''", "out: found ''; allowed: text, at least 1 character"),
        ("out: '~nobody-of-that-name/out'", "begins with a user who has no home folder here"),
    ],
)
def test_what_would_fail_after_training_is_refused_with_its_line(
    tmp_path: Path, lines: str, says: str
) -> None:
    key = lines.partition(":")[0]
    kept, skipping = [], False
    for line in DIGITS.splitlines():
        skipping = line.startswith(f"{key}:") or (skipping and line.startswith(" "))
        if not skipping:
            kept.append(line)
    line = told(tmp_path, "\n".join([*kept, lines]))
    assert line.startswith(f"{len(kept) + 1}: ")
    assert says in line


def test_the_registry_has_the_same_rule() -> None:
    with pytest.raises(ConfigError, match=r"model name 'a/b': the model registry .* correct pick.model_name"):
        require_model_name("a/b")


@pytest.mark.parametrize("root", ["~nobody-of-that-name/x", LONG, "'a: b'"])
def test_a_folder_that_no_machine_can_have_is_told(tmp_path: Path, root: str) -> None:
    text = DIGITS.replace("  name: digits", f"  name: cifar10\n  root: {root}", 1)
    assert "data.root: " in told(tmp_path, text)


def test_whatever_is_flipped_or_cut_in_a_file_is_told_in_short_lines(tmp_path: Path) -> None:
    drawn = random.Random(SEED)
    path = tmp_path / "my.yaml"
    good = (SPACES_FOLDER / "one_objective" / "kd.yaml").read_bytes()
    for number in range(500):
        spoilt = bytearray(good)
        for _ in range(drawn.randint(1, 3)):
            spoilt[drawn.randrange(len(spoilt))] = drawn.choice(b"\0\t\n\"'#%&*!-:<>?@[]{}|~e9\xff\x80")
        path.write_bytes(spoilt[: drawn.randint(1, len(spoilt))] if number % 3 == 0 else spoilt)
        try:
            load_space(str(path))
        except ConfigError as error:
            assert all(line.startswith(f"{path}") and len(line) < LONGEST_LINE for line in error.problems)
