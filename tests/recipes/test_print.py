"""`--print` in a narrow terminal: every setting, value and source, indented below its part."""

import re

import pytest

from repro.core import registry
from repro.core.cli import broken
from repro.recipes.command import command, listing, select
from repro.recipes.scale import by_name

ROOM = 80


def settings(lines):
    """Dotted path -> value and source without blanks, read back from indented lines of `listing`."""
    found, path, last = {}, [], None
    for line in lines:
        mark, name = line[:2], re.match(r"[* ] ((?:  )*)([a-z]\w*)(?:$|  )", line)
        if name and len(name[1]) < 12:
            depth = len(name[1]) // 2
            path = [*path[:depth], name[2]]
            last = ".".join(path)
            found[last] = (mark, "".join(line[len(name[0]) :].split()))
        else:
            found[last] = (found[last][0], found[last][1] + "".join(line.split()))
    return found


@pytest.mark.parametrize("name", registry.RECIPES)
def test_an_indented_list_holds_what_the_wide_one_holds(name):
    recipe = by_name(name)
    wide, narrow = list(listing(recipe, recipe)), list(listing(recipe, recipe, ROOM))
    assert max(map(len, narrow[1:])) <= ROOM, "the first line is broken by `say`"
    plain = {line.split()[0]: (line[:2], "".join(line.split()[1:])) for line in wide[1:]}
    end = next(i for i, line in enumerate(narrow) if line.startswith("An indented name"))
    assert settings(narrow[1:end]) == plain
    assert len(narrow) < sum(len(broken(line, ROOM)) for line in wide)


def test_the_terminal_decides(monkeypatch, capsys):
    """Dotted paths where they fit and in a pipe; else indented, with the mark of what was set."""
    recipe = by_name("mdlm")
    words = ["--scale", "nano.text", "--set", "optimizer.lr=0.1", "--print"]
    for columns, row in (
        ("400", r"\* optimizer\.lr +0\.1 +--set"),
        ("80", r"\*   lr +0\.1 +--set \(was 0\.002\)"),
    ):
        monkeypatch.setenv("COLUMNS", columns)
        assert command(recipe, words) == 0
        assert re.search(rf"^{row}", capsys.readouterr().out, re.M)
    changed = select(recipe, "nano.text", ["optimizer.lr=0.1"])
    said = " ".join(listing(changed, recipe, ROOM))
    assert "An indented name goes with those above it: --set data.documents.heldout_stride=VALUE" in said
    unchanged = select(recipe, "nano.text", [])
    assert list(listing(changed, unchanged))[-1] == "* changed by --set: 1 setting of mdlm@nano.text"
