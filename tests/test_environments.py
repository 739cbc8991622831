"""The package as an installed wheel, and in poor environments: each command works or says in one line what it needs."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from helpers.disk import contents
from helpers.toy import overrides

from repro.core.cli import run
from repro.core.errors import one_line
from repro.core.files import ROOT, write_text
from repro.evals.runner import _commit
from repro.results.store import RAW

UNUSED = shutil.ignore_patterns("__pycache__")


def laid_out(site: Path) -> Path:
    """The files of the wheel, without building one: the package, and the data that pyproject.toml adds to it."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    for package in wheel["packages"]:
        shutil.copytree(ROOT / package, site / package, ignore=UNUSED)
    for source, target in wheel["force-include"].items():
        shutil.copytree(ROOT / source, site / target, ignore=UNUSED)
    return site


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """`installed(FOLDER, module, *arguments)`: a command outside of any checkout, in FOLDER, by read-only code."""
    site = laid_out(tmp_path_factory.mktemp("site packages ü"))
    before = contents(site)
    for path in site.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def of(folder, *arguments):
        environment = os.environ | {
            "PYTHONPATH": str(site),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("REPRO_RUNS", None)
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert contents(site) == before, arguments
        assert "Traceback" not in done.stderr, done.stderr
        return done

    yield of
    for path in site.rglob("*"):  # so that pytest can remove it
        path.chmod(0o755)


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    shutil.copy(min(RAW.glob("duo@nano-s0.*.jsonl"), key=lambda path: path.stat().st_size), folder)
    return folder


def test_installed_commands_work_on_given_folders(installed, raw, tmp_path):
    here = tmp_path / "working folder ü"
    done = installed(here, "repro.report", "--raw", raw, "--out", "tables")
    assert done.returncode == 0 and list((here / "tables").glob("*.md")), done.stderr
    done = installed(here, "repro.verify", raw)
    assert done.returncode in (0, 1) and "duo" in done.stdout


@pytest.mark.parametrize("module", ["repro.verify", "repro.data.sudoku"])
def test_installed_commands_say_what_they_need(module, installed, tmp_path):
    done = installed(tmp_path / "here", module)
    wanted = "git checkout" if module == "repro.data.sudoku" else "no folder results/raw; give one"
    assert done.returncode == 2 and wanted in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_every_installed_command(installed, tmp_path):
    """Help of each, and one that trains, evaluates, publishes and certifies in the working folder."""
    here = tmp_path / "working folder ü"
    for file in sorted((ROOT / "repro").rglob("*.py")):
        if 'run(main, "' in file.read_text("utf-8") or file.parent.name == "recipes":
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
            assert installed(here, module, "--help").returncode == 0, module
    pins = [word for pin in overrides("mdlm") for word in ("--set", pin)]
    ended = installed(here, "repro.recipes.mdlm", "--scale", "nano", *pins, "--out", "run")
    assert ended.returncode == 0, ended.stderr
    law = ["--samplers", "ancestral", "--tasks", "law:samples=40"]
    for arguments in (
        ["repro.sample", "--ckpt", "run", "--sampler", "ancestral"],
        ["repro.evals", "--ckpt", "run", *law, "--out", "out"],
        ["repro.evals", "--ckpt", "oracle:mdlm@nano", *law, "--out", "out"],
        ["repro.results", "check", "out"],
        ["repro.certify", "--presets", "random"],
    ):
        done = installed(here, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert {path.name for path in here.iterdir()} == {"run", "runs", "out", "results"}


@pytest.mark.slow
def test_a_built_wheel_holds_the_same_files(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        str(ROOT),
        "-w",
        str(tmp_path / "wheel"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("pip cannot fetch hatchling, which builds the wheel")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("repro/")}
    site = laid_out(tmp_path / "site")
    assert names == {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}


# --- poor environments --------------------------------------------------------------------------------------


def test_without_git_records_have_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert _commit() is None


def test_an_ascii_terminal_shows_escapes(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit) as end:
        run(lambda _: print("1 ± 2") or 0, "program")
    assert end.value.code == 0 and out.buffer.getvalue() == b"1 \\xb1 2\n"


def test_a_closed_pipe_ends_quietly():
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "repro.evals", "list"]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True, timeout=100)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_place_that_may_not_be_written_is_named(monkeypatch, tmp_path):
    def refuse(*given):
        raise PermissionError(13, "Permission denied", str(tmp_path / ".table.md.abc.repro-tmp"))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(PermissionError) as caught:
        write_text(tmp_path / "table.md", "")
    wanted = (
        f"{tmp_path}/table.md: Permission denied; choose a place that you may write (--out, or $REPRO_RUNS)"
    )
    assert one_line(caught.value) == wanted
