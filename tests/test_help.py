"""Every command has a help text for each option and an example that it takes; `repro` lists and runs all commands."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import subprocess
import sys
import tomllib

import pytest

from repro import __main__ as listing
from repro.core import doctor
from repro.core.cli import Parser, fill, say
from repro.core.files import ROOT

FORMS = {
    "repro.core.doctor": ([],),
    "repro.recipes.__main__": (["duo"], ["ar_owt"]),
    "repro.sample": ([],),
    "repro.evals.listing": ([], ["samplers"]),
    "repro.evals.__main__": (
        [],
        ["plan"],
        ["cells"],
        ["cells", "--plan"],
        ["judge"],
        ["engine-check"],
        ["--engine", "openai:http://localhost:8000/v1"],
        ["list"],
        ["--suite", "flagship"],
        ["plan", "--suite", "flagship"],
    ),
    "repro.evals.engines.command": ([],),
    "repro.certify.__main__": ([],),
    "repro.checkpoint": ([],),
    "repro.results.__main__": ([],),
    "repro.results.reproduction": ([],),
    "repro.report": ([],),
    "repro.verify": ([],),
    "repro.data.sudoku": ([],),
    "repro.data.language": ([],),
    "paper_figures.__main__": ([],),
    "benchmarks.__main__": ([],),
    **{
        f"scripts.{path.stem}": ([],)
        for path in sorted((ROOT / "scripts").glob("*.py"))
        if "Parser(" in path.read_text("utf-8")
    },
}
"""Module with a command's `main` -> beginnings of its command line, each with a parser of its own."""


def parser_of(module, begin, monkeypatch):
    """The parser that a command uses for a command line that begins with the words `begin`."""
    found = []
    before = argparse.ArgumentParser.parse_known_args

    def record(self, *arguments, **named):
        if not isinstance(self, Parser):
            return before(self, *arguments, **named)
        found.append(self)
        raise SystemExit(0)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(argparse.ArgumentParser, "parse_known_args", record)
        importlib.import_module(module).main([*begin, "--help"])
    (parser,) = found
    return parser


def every(parser):
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from every(inner)


@pytest.mark.parametrize("module", FORMS)
def test_every_option_has_a_help_text_and_every_command_an_example(module, monkeypatch):
    for begin in FORMS[module]:
        whole = parser_of(module, begin, monkeypatch)
        for parser in every(whole):
            assert parser.description and parser.examples, parser.prog
            for action in parser._actions:
                where = f"{parser.prog} {'/'.join(action.option_strings) or action.dest}"
                if isinstance(action, argparse._SubParsersAction):
                    assert {each.dest for each in action._choices_actions} == set(action.choices), where
                else:
                    assert action.help and action.help is not argparse.SUPPRESS, f"{where} has no help text"
            for example in parser.examples:
                words, form = shlex.split(example), whole.prog.partition(" --")[0].split()
                assert words[: len(form)] == form and example in whole.format_help() + parser.format_help()
                whole.parse_args(words[len(form) :])


def test_every_command_of_the_package_is_listed_and_walked():
    """A module that runs a command line is in `COMMANDS` or, if it is for engineers, in FORMS; no other is."""
    modules = set()
    for path in (ROOT / "repro").rglob("*.py"):
        if "__main__" in (text := path.read_text("utf-8")) and "run(main" in text:
            modules.add(".".join(path.relative_to(ROOT).with_suffix("").parts))
    listed = {module for module, _ in listing.COMMANDS.values()}
    assert modules - {"repro.__main__"} == listed | {name for name in FORMS if name.startswith("repro.")}
    assert listed - set(FORMS) == {"repro.evals.lm_harness"}, "lm-eval has its own help"


def test_repro_lists_its_commands(monkeypatch, capsys):
    assert listing.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text and about in text for name, (_, about) in listing.COMMANDS.items())
    with pytest.raises(ValueError, match="no command 'smaple'; nearest is 'sample'"):
        listing.main(["smaple"])
    monkeypatch.setattr(sys, "argv", ["repro", "sample", "--ckp", "x"])
    with pytest.raises(SystemExit) as end:
        listing.command_line()
    said = capsys.readouterr().err
    assert end.value.code == 2 and said == "repro sample: no flag '--ckp'; nearest is '--ckpt'\n"
    assert listing.main(["--version"]) == 0 and capsys.readouterr().out.startswith("repro 0")


def test_listing_the_commands_imports_no_torch():
    probe = (
        "import sys, repro.__main__ as m; m.main([]); m.main(['recipes']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    "flag, shown",
    [
        ("--samplers", "arXiv 2502.09992"),
        ("--suite", "arXiv 2506.10892"),
        ("--tasks", "arXiv 2110.14168"),
        ("--estimator", "arXiv 2603.01367"),
    ],
)
def test_a_flag_lists_its_names_with_their_papers(flag, shown, capsys):
    evals = importlib.import_module("repro.evals.__main__")
    with pytest.raises(SystemExit) as end:
        evals.main([flag, "list"])
    assert end.value.code == 0 and shown in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as end:
        importlib.import_module("repro.sample").main(["--sampler", "list"])
    assert end.value.code == 0 and "psi_cap" in capsys.readouterr().out


def test_lines_are_broken_where_the_terminal_ends(monkeypatch, capsys):
    """Between words, never within a number; without a terminal or COLUMNS lines stay whole."""
    line = "  excess " + " ".join(f"{i / 7:.12f}" for i in range(20))
    monkeypatch.delenv("COLUMNS", raising=False)
    say([line])
    assert capsys.readouterr().out == line + "\n"
    monkeypatch.setenv("COLUMNS", "40")
    say([line])
    text = capsys.readouterr().out
    assert text.split() == line.split() and max(map(len, text.splitlines())) <= 40
    filled = fill("name  ", line)
    assert max(map(len, filled)) <= 40 and " ".join(filled).split() == ["name", *line.split()]


# --- doctor ---------------------------------------------------------------------------------------------------


def test_doctor_says_what_the_machine_can_do(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "new" / "runs"))
    monkeypatch.setattr(doctor, "SECONDS", 0.01)
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: pytest.fail("asked the network"))
    assert doctor.main([]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for said in ("cpu", "bfloat16 is", "cores", "GiB free; file locks work", "in the cache", "accelerate"):
        assert said in text
    assert not (tmp_path / "new").exists(), "nothing is created"


def test_doctor_looks_for_a_package_of_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    of_engineers = {"docs", "dev"}
    assert {extra for extra, _ in doctor.EXTRAS.values()} == set(extras) - of_engineers
    for package, (extra, _) in doctor.EXTRAS.items():
        assert any(requirement.startswith(package) for requirement in extras[extra])


def test_doctor_asks_the_hub_only_when_told(monkeypatch):
    def refuse(url, timeout):
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert "not asked whether it answers (--network)" in doctor._hub(False)
    assert "does not answer (no route)" in doctor._hub(True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in doctor._hub(True)


def test_doctor_says_what_does_not_work(monkeypatch, tmp_path):
    """A folder that cannot be written, a file system without locks, a package that is not installed."""
    monkeypatch.setattr("os.access", lambda *a: False)
    assert doctor._folder(tmp_path, "runs").endswith("it cannot be written")
    monkeypatch.undo()

    def unlocked(*arguments, **named):
        raise NotImplementedError("no locks")

    monkeypatch.setattr(doctor, "FileLock", unlocked)
    assert "file locks do not work (no locks): start processes by one launcher" in doctor._folder(
        tmp_path, "runs"
    )
    said = doctor._package("no_such_package", "gguf", "GGUF files")
    assert said == "not installed; pip install 'dlm-repro[gguf]' for GGUF files"


# --- 80 columns -----------------------------------------------------------------------------------------------

ORACLE = ["--ckpt", "oracle:mdlm@nano", "--tasks", "law", "--samples", "4"]
LAW = "nano/law/ancestral/1"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["recipes"],
        ["recipes", "duo", "--print"],
        ["recipes", "duo_owt", "--scale", "nano", "--set", "batch=64", "--print"],
        ["recipes", "llada_pretrain", "--plan", "--engine", "fsdp2", "--gpus", "64"],
        ["list"],
        ["evals", *ORACLE, "--tokens-per-step", "8"],
        ["evals", *ORACLE, "--samplers", "all", "--tokens-per-step", "all"],
        ["evals", *ORACLE, "--seeds", "0,1", "--samplers", "low_confidence+guided:scale=0.5+nucleus:p=0.9"],
        ["evals", "plan", "--suite", "silver"],
        ["evals", "plan", *ORACLE],
        ["evals", "cells", "duo.t5.mdlm", "--plan"],
        ["verify", "--cell", "duo.t5.mdlm.1024"],
        ["results", "explain", f"duo@{LAW}", f"mdlm@{LAW}"],
        ["results", "explain", "duo@nano", "mdlm@nano"],
        ["results", "flips", "a.jsonl", "b.jsonl"],
        ["results", "check"],
        ["certify", "--help"],
        ["results", "--help"],
        ["doctor"],
    ],
    ids=lambda words: "_".join(words[:3]) or "repro",
)
def test_twenty_command_lines_at_80_columns(words, tmp_path, monkeypatch, capsys):
    """No line is longer than the terminal, so that it would cut a number anywhere; and no table cuts one itself."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    monkeypatch.setattr(doctor, "SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    for name, values in (("a", (0.123456789, 1.0)), ("b", (0.987654321, 1.0))):
        item = {"filter": "none", "doc_hash": None, "prompt_hash": None}
        lines = [json.dumps({**item, "doc_id": i, "metrics": {"acc": v}}) for i, v in enumerate(values)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    try:
        assert listing.main(words) in (0, None)
    except SystemExit as end:  # --help
        assert end.code == 0
    out, err = capsys.readouterr()
    lines = [line for line in (out + err).splitlines() if str(tmp_path) not in line and "example" not in line]
    assert lines and not [line for line in lines if "\u2026" in line]
    long = [line for line in lines if len(line) > 80 and not line.startswith("  python -m ")]
    assert not long, long
