"""Foreign code: bad input and code that never answers exit with 2 and one line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.certified import EXAMPLES, SMALL

from repro import certify
from repro.certify import foreign, isolated
from repro.certify.__main__ import main
from repro.certify.verdict import Certificate, Check
from repro.core.cli import run
from repro.core.files import ROOT

# --- bad input ----------------------------------------------------------------------------------------------


HEAD = "import torch\n"
TAIL = "\nf.claims, f.meaning = 'law', 'x0_mean'\n"
MASKS = "torch.full((n, space.length), space.mask)"


def here(target, noise, effort, told=False):
    """`isolated.isolated` in this process, which spares its start."""
    return certify(foreign.load(target), noise, effort)


@pytest.fixture
def line(tmp_path, monkeypatch, capsys):
    """`line(CODE)`: the single error line of `python -m repro.certify FILE.py:f` with exit code 2."""

    def of(code: str | None, *flags: str, name: str = "f") -> str:
        monkeypatch.setattr(isolated, "isolated", here)
        path = tmp_path / "theirs.py"
        if code is not None:
            path.write_text(HEAD + code)
        monkeypatch.setattr(sys, "argv", ["repro.certify", f"{path}:{name}", *flags])
        with pytest.raises(SystemExit) as end:
            run(main, "repro.certify")
        out, err = capsys.readouterr()
        assert (
            end.value.code == 2 and out == "" and err.startswith("repro.certify: ") and err.count("\n") == 1
        )
        return err

    return of


def test_bad_files_give_one_line(line):
    assert "No such file" in line(None)
    assert "has no 'f'; nearest is 'ff'" in line("def ff(space, n, steps, seed): pass")
    assert "import of" in line("import nothing_of_that_name") and "ModuleNotFoundError" in line("import nix")
    assert "raised SystemExit" in line("raise SystemExit(3)")
    said = line("def f(space, n, steps, seed): pass")
    assert "f.claims is missing; set, below the definition of f: f.claims = 'law' or 'mode';" in said
    assert said.rstrip().endswith("f.meaning = 'x0_mean' or 'leave_one_out' (docs/certify.md#an-adapter)")
    assert "f.draws is missing" in line(
        "def f(space, x0, seed): pass\nf.claims, f.meaning = 'bound', 'x0_mean'"
    )
    assert "'x0_mean' or 'leave_one_out'" in line(
        "def f(space, n, steps, seed): pass\nf.claims, f.meaning = 'law', 'mean'"
    )
    assert "for a sampler give 'law' or 'mode'" in line(
        "def f(space, n, steps, seed): pass\nf.claims, f.meaning = 'bound', 'x0_mean'"
    )
    assert "has an unknown signature" in line("def f(space, n): pass" + TAIL)
    assert "is not a function" in line("f = 3")
    assert "is too few to detect a bias" in line(
        f"def f(space, n, steps, seed): return {MASKS}" + TAIL, "--rows", "10"
    )


def test_bad_results_give_one_line(line):
    def of(body: str) -> str:
        return line(f"def f(space, n, steps, seed):\n    {body}" + TAIL, "--noise", "absorbing")

    assert "must return integer ids [25000, 3], not int64 [25000, 2]" in of(f"return {MASKS}[:, :2]")
    assert "not float32" in of(f"return {MASKS}.float()")
    assert "not int64 [0, 3]" in of(f"return {MASKS}[:0]")
    assert "ids [25000, 3], not NoneType (" in of("return None")
    assert "ids [25000, 3], not list (" in of("return [['a'] * 3] * n")
    assert "raised KeyError at line 3 of theirs.py: 'late'" in of(
        "return {'rest': 0}['late'] if seed > 1000 else torch.randint(3, (n, 3))"
    )
    assert "returned ids 7 to 7; valid: 0 to 3" in of(f"return {MASKS} + 4")
    assert "raised ZeroDivisionError at line 3 of theirs.py" in of("return 1 / 0")
    assert "raised SystemExit" in of("import sys; sys.exit(0)")
    assert "denoise takes t in [0, 1], 1 being pure noise, got 2" in of(f"return space.denoise({MASKS}, 2.0)")
    assert "denoise takes ids 0 to 3, got 9 to 9" in of(f"return space.denoise(0 * {MASKS} + 9, .5)")
    nan = "def f(space, x0, seed): return (space.mask * x0[:, 0] * torch.nan)\n"
    says = line(nan + "f.claims, f.meaning, f.draws = 'bound', 'x0_mean', 'exact'")
    assert "returned nan nats for the sentence [0, 0, 0]" in says


def test_slow_code_gives_one_line(line):
    slow = (
        f"def f(space, n, steps, seed):\n    for _ in range(20000): torch.rand(100)\n    return 0 * {MASKS}"
    )
    assert "give more than --seconds 0" in line(slow + TAIL, "--seconds", "0", "--noise", "absorbing")


def test_the_noise_is_inferred():
    def of(body):
        def f(space, n, steps, seed):
            return torch.zeros(n, space.length, dtype=torch.int64) + body(space)

        f.claims, f.meaning = "law", "x0_mean"
        return foreign.read(f, None, 60.0).noises

    assert of(lambda space: 0 * space.mask) == ("absorbing",)
    assert of(lambda space: 0) == ("uniform",)
    assert of(lambda space: 0 if space.noise == "uniform" else space.mask) == ("absorbing", "uniform")
    assert of(lambda space: 0 * space.mask if space.noise == "absorbing" else 1 / 0) == ("absorbing",)
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        of(lambda space: 1 // 0)


def test_notes_of_a_function_are_sentences():
    def f(space, n, steps, seed):
        raise NotImplementedError

    f.claims, f.meaning, f.notes = "law", "x0_mean", ["It was set so."]
    assert foreign.read(f, "uniform", 60.0).notes == ("It was set so.",)
    f.notes = "It was set so."
    with pytest.raises(ValueError, match=r"f.notes is 'It was set so.'; give a tuple of sentences"):
        foreign.read(f, "uniform", 60.0)


def test_foreign_output_goes_to_stderr(tmp_path, capfd):
    path = tmp_path / "loud.py"
    text = (
        (EXAMPLES / "losses.py")
        .read_text()
        .replace(
            "def masked_exact(space, x0, seed):", "def masked_exact(space, x0, seed):\n    print('hello')"
        )
    )
    path.write_text("print('hello')\n" + text)
    assert main([f"{path}:masked_exact", "--json"]) == 0
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert found["stands"] and found["checks"] and "does not" not in found["paragraph"] and "hello" in err
    assert main([f"{path}:dependent"]) == 1
    assert "DOES NOT STAND" in capfd.readouterr().out


RIGHT = """
import sys
from dataclasses import dataclass
import torch
sys.path.append({examples!r})

@dataclass
class Settings:
    weight: float = 1.0

buffer = torch.zeros(100_000, dtype=torch.float64)

def f(space, x0, seed):
    from losses import masked_exact  # a late import from the same folder
    out = buffer[: len(x0)]
    out.copy_(Settings().weight * masked_exact(space, x0, seed))
    return out

f.claims, f.meaning, f.draws, f.noises = "bound", "x0_mean", "exact", ["absorbing"]
"""


def test_dataclasses_late_imports_and_reused_buffers_are_right(tmp_path, capfd):
    """And each test is named on stderr as it begins, where that is wanted."""
    (tmp_path / "theirs.py").write_text(RIGHT.format(examples=str(EXAMPLES)))
    found = isolated.isolated(f"{tmp_path}/theirs.py:f", None, SMALL, told=True)
    assert found.stands, found.text()
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if re.match(r" *\d+ s  absorbing noise: ", line)]
    assert out == "" and len(lines) == 5, err


@pytest.mark.parametrize("flags", [[], ["--json"], ["--quiet"], ["--json", "--quiet"]])
def test_progress_goes_to_stderr_unless_it_is_not_wanted(flags, monkeypatch, capsys):
    """What is printed on stdout is the same."""

    def told_of(target, noise, effort, told):
        print("a test", file=sys.stderr) if told else None
        check = Check(name="law", stands=False, says="said nothing", false_alarm=0.0)
        return Certificate(
            subject="f", kind="sampler", claims="law", meaning="x0_mean", checks=(check,), evidence=(), notes=(),
            seconds=0.0,
        )  # fmt: skip

    monkeypatch.setattr(isolated, "isolated", told_of)
    assert main(["x.py:f", *flags]) == 1
    out, err = capsys.readouterr()
    assert err == ("" if "--quiet" in flags else "a test\n")
    assert ("--json" in flags) == out.startswith("{") and "a test" not in out


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "class S:\n    def __call__(self, a, b, c, d): pass\n"
            "    def __getattr__(self, n): raise OSError(n)\nf = S()\n",
            r"OSError: __name__\); give",
        ),
        (
            "import torch\ndef f(space, n, steps, seed):\n    return torch.zeros(n, space.length, dtype=torch.cfloat)\n"
            "f.claims, f.meaning = 'law', 'x0_mean'\n",
            "must return integer ids",
        ),
    ],
)
def test_odd_objects_and_types_are_one_line(tmp_path, code, says):
    (tmp_path / "theirs.py").write_text(code)
    with pytest.raises(ValueError, match=says):
        isolated.isolated(f"{tmp_path}/theirs.py:f", None, SMALL)


def test_code_that_closes_what_is_answered_to_has_no_verdict(tmp_path):
    (tmp_path / "theirs.py").write_text(
        "import os\nos.closerange(3, 60)\n" + RIGHT.format(examples=str(EXAMPLES))
    )
    with pytest.raises(isolated.Unfinished, match="the process of f ended by itself"):
        isolated.isolated(f"{tmp_path}/theirs.py:f", None, SMALL)


def test_a_process_that_is_slow_to_end_after_its_answer_is_judged_by_the_answer(tmp_path, monkeypatch):
    """On a busy machine the interpreter itself takes seconds to leave."""
    monkeypatch.setattr(isolated, "GRACE", -25.0)
    slow = "import atexit, time\natexit.register(time.sleep, 600)\n" + RIGHT.format(examples=str(EXAMPLES))
    (tmp_path / "theirs.py").write_text(slow)
    found = isolated.isolated(f"{tmp_path}/theirs.py:f", None, replace(SMALL, seconds=85.0))
    assert found.stands, found.text()


@pytest.mark.parametrize(
    ("name", "says"), [("exits", "ended by itself with exit code 0"), ("hangs", "was still running after")]
)
def test_code_that_never_answers_has_no_verdict(name, says, monkeypatch, capsys):
    """One line and exit code 2, as for code that raises an error."""
    monkeypatch.setattr(isolated, "GRACE", 2.0)
    target = f"{EXAMPLES / 'wrong_samplers.py'}:{name}"
    flags = ["--json", "--quiet", "--seconds", "30" if "ended by" in says else "1"]
    monkeypatch.setattr(sys, "argv", ["repro.certify", target, *flags])
    with pytest.raises(SystemExit) as end:
        run(main, "repro.certify")
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and err.count("\n") == 1
    assert name in err and says in err


def test_the_time_of_imports_is_not_that_of_the_code(tmp_path, monkeypatch):
    """On a busy machine torch alone may take half a minute to import; here the start takes longer than the limit."""
    monkeypatch.setattr(isolated, "GRACE", 0.0)
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(6)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "theirs.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=r"raised ZeroDivisionError at line 1 of theirs\.py"):
        isolated.isolated(f"{tmp_path}/theirs.py:f", None, replace(SMALL, seconds=5.0))


@pytest.mark.parametrize(
    "error", ["KeyboardInterrupt", "GeneratorExit", "SystemExit(0)", "BaseException('x')"]
)
def test_whatever_an_import_raises_is_one_line(error, line):
    assert f"raised {error.partition('(')[0]} at line 3 of" in line(f"def f(): pass\nraise {error}\n")


HANGS = """
import ctypes, os, pathlib
class hangs:
    def __init__(self): pathlib.Path({pid!r}).write_text(str(os.getpid())); {call}
hangs()
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("call", ["ctypes.CDLL(None).sleep(300)", "ctypes.PyDLL(None).sleep(300)"])
def test_the_child_ends_with_its_parent(sent, call, tmp_path):
    """Also where the call holds the interpreter's lock (PyDLL), so that no thread of the child can run."""
    pid = tmp_path / "pid"
    (tmp_path / "theirs.py").write_text(HANGS.format(pid=str(pid), call=call))
    parent = subprocess.Popen(
        [sys.executable, "-m", "repro.certify", f"{tmp_path}/theirs.py:hangs"],
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored in background jobs of a shell
    )
    wait_for(lambda: pid.exists() and pid.read_text())
    parent.send_signal(sent)
    assert parent.wait(10) == (130 if sent == signal.SIGINT else -sent)
    child = Path("/proc") / pid.read_text()
    wait_for(lambda: not child.exists() or "Z (zombie)" in (child / "status").read_text())


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_the_code_prints_does_not_spoil_the_answer(tmp_path, capfd):
    """By print, by the system call, and by C's buffered output."""
    loud = 'import ctypes, os\nprint("{")\nos.write(1, b"}")\n'
    loud += 'c = ctypes.CDLL(None)\nc.puts(b"[")\nc.fflush(None)\n'
    (tmp_path / "theirs.py").write_text(loud + RIGHT.format(examples=str(EXAMPLES)))
    assert isolated.isolated(f"{tmp_path}/theirs.py:f", None, SMALL).stands
    out, err = capfd.readouterr()
    assert out == "" and "{" in err


def test_a_certificate_runs_on_one_thread_unless_told_otherwise(tmp_path, monkeypatch):
    """Two threads that wait for each other on a busy machine made a certificate of 10 seconds run for minutes."""
    file = tmp_path / "mine.py"
    file.write_text("import torch\nraise ValueError(torch.get_num_threads())\n", "utf-8")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with pytest.raises(ValueError, match=r"raised ValueError at line 2 of mine\.py: 1$"):
        isolated.isolated(f"{file}:sample", None, SMALL)
