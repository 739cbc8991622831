"""Whatever text a parser is given, it returns a value or raises ValueError with a message; tests/fuzz gives bad files
and flags to whole commands."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from repro.core import parts
from repro.core.errors import LONGEST, one_line
from repro.core.files import ROOT
from repro.core.reading import parse_json
from repro.evals import cli, suites
from repro.evals.lm.task_selection import registered_task
from repro.evals.text_quality.external_samples import read_samples
from repro.recipes.scale import by_name
from repro.results import store
from repro.samplers.presets import LOGITS_PROCESSORS, PRESETS, preset

SOME = settings(deadline=None, derandomize=True, database=None, max_examples=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
TEXT = st.text(max_size=30)
SAID = st.one_of(JSON.map(json.dumps), TEXT)
"""What may stand where a value is expected."""


def parses(parser: Callable[..., Any], *given: Any) -> None:
    """Assert that the parser returns, or raises ValueError with a message that fits in a line."""
    try:
        parser(*given)
    except ValueError as error:
        assert 0 < len(one_line(error)) <= LONGEST + 5


@cache
def record_file() -> bytes:
    return (ROOT / "results" / "raw" / "ar@nano.text-s1.nano.text.jsonl").read_bytes().split(b"\n")[0] + b"\n"


def spliced(data: bytes, at: float, length: int, new: bytes) -> bytes:
    """Bytes with `length` of them, from a share `at` of the way on, replaced."""
    start = int(at * len(data))
    return data[:start] + new + data[start + length :]


SPLICES = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 9), st.binary(max_size=9))


@SOME
@given(st.one_of(SAID, st.binary(max_size=40), st.text('{}[]",:0-9eE.\\u" truefalsn', max_size=40)))
def test_json(text):
    parses(parse_json, text, Any, "x.json")


@SOME
@given(SPLICES)
def test_lines_of_records(splice):
    parses(store._parse, Path("x.jsonl"), spliced(record_file(), *splice))


@SOME
@given(st.data())
def test_records_with_another_value(data):
    """A record whose fields are replaced, not its characters."""
    found = json.loads(record_file())
    holder = found
    key = data.draw(st.sampled_from(sorted(holder)))
    while isinstance(holder[key], dict) and holder[key] and data.draw(st.booleans()):
        holder = holder[key]
        key = data.draw(st.sampled_from(sorted(holder)))
    holder[key] = data.draw(JSON)
    parses(store._parse, Path("x.jsonl"), json.dumps(found).encode() + b"\n")


def in_file(parser: Callable[[Path], Any], name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        parses(parser, path)


@SOME
@given(SPLICES, st.sampled_from(["nano", "nano.text", "speed.sudoku"]))
def test_suites(splice, name):
    content = (suites.SUITES / f"{name}.toml").read_bytes()
    before = suites.SUITES

    def read(path: Path) -> None:
        suites.SUITES = path.parent
        try:
            suites.read_suite(path.stem)
        finally:
            suites.SUITES = before

    in_file(read, "mine.toml", spliced(content, *splice))


@SOME
@given(
    st.lists(st.dictionaries(st.sampled_from(["text", "ids", "x"]), JSON, max_size=2), max_size=4), SPLICES
)
def test_files_of_samples(rows, splice):
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    in_file(read_samples, "samples.jsonl", content)
    in_file(read_samples, "samples.jsonl", spliced(content, *splice))


@SOME
@given(st.sampled_from(["mdlm", "duo", "llada", "ar"]), st.data(), SAID, TEXT)
def test_pins_of_recipes(name, data, value, other):
    recipe = by_name(f"{name}@nano")
    pin = data.draw(st.sampled_from(sorted(parts.leaves(recipe))))
    for text in (f"{pin}={value}", f"{pin}{other}={value}", f"{pin}.{other}={value}", other):
        parses(lambda text=text: parts.derive(recipe, parts.parse_overrides([text])))


@SOME
@given(st.data(), SAID, TEXT)
def test_samplers_with_settings(data, value, other):
    name = data.draw(st.sampled_from(sorted(PRESETS)))
    shape = data.draw(st.sampled_from(sorted(LOGITS_PROCESSORS)))
    fields = [field.name for field in dataclasses.fields(PRESETS[name])] or ["x"]
    field = data.draw(st.sampled_from(fields))
    for text in (f"{name}:{field}={value}", f"{name}+{shape}:{other}", f"{name}+lookahead:{other}", other):
        parses(preset, text)
        parses(cli._presets, text)


@SOME
@given(st.sampled_from(["law:samples", "heldout:rows", "owt:limit", ""]), SAID, TEXT)
def test_tasks_with_settings(name, value, other):
    for text in (f"{name}={value}", f"{name}{other}", other):
        parses(registered_task, text)


@SOME
@given(
    st.one_of(st.integers().map(str), st.floats().map(str), TEXT, st.text("0123456789.,-eE_ ", max_size=9))
)
def test_numbers_of_flags(text):
    for parser in (cli._rate, cli._hours, cli._names):
        parses(parser, text)
