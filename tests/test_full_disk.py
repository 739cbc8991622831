"""A really full disk in each command that writes: one line, exit code 2, nothing lost or half written, and the same
command finishes once there is room. The room left is varied, so that different files are the ones that do not fit."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from helpers.disk import contents, fill, free, small_disk
from helpers.toy import overrides, toy

import paper_figures.__main__ as figures
from repro import report
from repro import sample as sampling
from repro.core.cli import run
from repro.core.files import WORKPLACE
from repro.evals.__main__ import main as evals
from repro.recipes.command import main as recipe_main
from repro.recipes.scale import by_name
from repro.results.store import RAW, collect, publish
from repro.training import checkpoint as checkpoints
from repro.training.loop import train


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path) as folder:
        yield folder


@pytest.fixture
def command(monkeypatch, capsys):
    """`command(MAIN, *arguments)`: exit code and stderr; MAIN is a recipe's name or a `main`."""

    def of(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            recipe_main(by_name(main)) if isinstance(main, str) else run(main, "program")
        return end.value.code, capsys.readouterr().err

    return of


def refused(said):
    code, text = said
    *before, last = text.splitlines()
    progress = all(re.search(r" step \d+ of \d+: loss | chunks$| \(\d+ of \d+\)$", line) for line in before)
    return code == 2 and progress and "the disk is full" in last and "run again" in last


def whole(disk):
    """The complete files by digest, without those that a run rewrites from the last checkpoint when it is resumed."""
    return {
        name: d for name, d in contents(disk).items() if not name.endswith((".jsonl", "recipe.json", "run"))
    }


def test_training(disk, command, tmp_path):
    """Wherever there is no more room, the last checkpoint stays, and the resumed run is the uninterrupted one."""
    pins = [word for pin in overrides("ar") for word in ("--set", pin)]
    arguments = ["--scale", "nano", *pins, "--out", disk / "run"]
    train(toy("ar"), seed=0, out=tmp_path / "whole", stop=None, resume=False)
    fill(disk, 0)
    assert refused(command("ar", *arguments)) and not whole(disk)
    free(disk)
    train(toy("ar"), seed=0, out=disk / "run", stop=5, resume=False)
    before = whole(disk)
    size = sum(file.stat().st_size for file in (disk / "run" / "step_00000005").iterdir())
    for room in (0, 4096, 8192, size // 4, size // 2, size - 4096):
        fill(disk, room)
        assert refused(command("ar", *arguments, "--resume")), room
        assert whole(disk) == before, room
    free(disk)
    assert command("ar", *arguments, "--resume")[0] == 0
    made, wanted = (checkpoints.open_checkpoint(at).files for at in (disk / "run", tmp_path / "whole"))
    assert made == wanted
    rows = (disk / "run" / "metrics.jsonl").read_text()
    assert rows.count("\n") == (tmp_path / "whole" / "metrics.jsonl").read_text().count("\n")


def test_evaluation_and_publishing(disk, command, tmp_path):
    """Chunks and records that are stored stay; the same command computes the rest."""
    arguments = ["--ckpt", "oracle:mdlm@nano", "--suite", "oracle", "--samplers", "ancestral,random"]
    arguments += ["--tokens-per-step", "4,8", "--samples", "300", "--out"]
    assert command(evals, *arguments, tmp_path / "whole")[0] == 0
    wanted = [record.answer for record in collect(tmp_path / "whole")]
    (disk / "out").mkdir()
    kept: list[str] = []
    for room in range(0, 1 << 20, 8192):
        fill(disk, room)
        code, said = command(evals, *arguments, disk / "out")
        if code == 0:
            break
        assert refused((code, said)), (room, said)
        found = [record.id for record in collect(disk / "out")] if list((disk / "out").glob("raw")) else []
        assert found[: len(kept)] == kept and not list(disk.rglob(f".*{WORKPLACE}"))
        kept = found
    assert room > 0
    assert [record.answer for record in collect(disk / "out")] == wanted
    free(disk)
    (disk / "published").mkdir()
    for room in (0, 4096):
        fill(disk, room)
        with pytest.raises(OSError, match="No space left"):
            publish(tmp_path / "whole", disk / "published")
        assert collect(disk / "published") == []  # the new lines of a file are written together or not at all
    free(disk)
    assert publish(tmp_path / "whole", disk / "published").added == len(wanted)


@pytest.mark.parametrize("name", ["report", "figures"])
def test_tables_and_figures(name, disk, command, tmp_path):
    """Each file is the old one or the new one."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in RAW.glob("*@nano-s0.nano.jsonl"):  # enough rows for tables of several pages of memory
        shutil.copy(path, raw)
    main, more = {"report": (report.main, []), "figures": (figures.main, ["vocabulary"])}[name]
    arguments = [*more, "--raw", raw, "--out", disk / "out"]
    fill(disk, 0)
    assert refused(command(main, *arguments))
    free(disk)
    assert command(main, *arguments)[0] == 0
    wanted = contents(disk)
    for path in (disk / "out").iterdir():
        path.write_text("old")
    old = contents(disk)
    for room in (0, 4096):
        fill(disk, room)
        assert refused(command(main, *arguments)), room
        for file, digest in contents(disk).items():
            assert digest in (old[file], wanted[file]), (room, file)
    free(disk)
    assert command(main, *arguments)[0] == 0 and contents(disk) == wanted


def test_a_trace_of_samples(disk, command):
    arguments = ["--ckpt", "oracle:mdlm@nano", "--sampler", "ancestral", "--trace", disk / "trace.json"]
    fill(disk, 0)
    assert refused(command(sampling.main, *arguments)) and not contents(disk)
    free(disk)
    assert command(sampling.main, *arguments)[0] == 0 and contents(disk).keys() == {"trace.json"}


def test_the_output_itself():
    """stdout on a full disk: one line, and no second error at the end of the interpreter."""
    command = [sys.executable, "-m", "repro.evals", "list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert refused((done.returncode, done.stderr))
