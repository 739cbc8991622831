"""Bad input is one line on stderr and exit code 2, never a traceback, and names the nearest valid thing."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.toy import overrides, toy

from repro import checkpoint as checkpoint_command
from repro import sample
from repro.__main__ import main as repro_command
from repro.core import registry
from repro.core.cli import Parser, natural, run
from repro.evals.__main__ import main as evals
from repro.recipes import __main__ as recipes
from repro.recipes.command import main as recipe_main
from repro.recipes.scale import by_name
from repro.samplers.presets import PRESETS
from repro.training.loop import train


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A toy run of mdlm, one step long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))
        return train(toy("mdlm"), seed=0, out=tmp_path_factory.mktemp("mdlm"), stop=1, resume=False)


@pytest.fixture
def line(monkeypatch, capsys):
    """`line(PROGRAM, *arguments)`: the single line on stderr of a command that exits with code 2."""
    mains = {
        "repro.evals": evals,
        "repro.sample": sample.main,
        "repro.checkpoint": checkpoint_command.main,
        "repro.recipes": recipes.main,
    }

    def of(program: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            if program in mains:
                run(mains[program], program)
            else:
                recipe_main(by_name(program.removeprefix("repro.recipes.")))
        out, err = capsys.readouterr()
        assert end.value.code == 2 and out == "" and err.startswith(f"{program}: ") and err.count("\n") == 1
        return err.removeprefix(f"{program}: ").rstrip("\n")

    return of


# --- arguments ------------------------------------------------------------------------------------------

MDLM, EVALS, SAMPLE = "repro.recipes.mdlm", "repro.evals", "repro.sample"
ORACLE = ("--ckpt", "oracle:mdlm@nano")
NANO = ("--scale", "nano")


@pytest.mark.parametrize(
    "program, arguments, message",
    [
        (EVALS, ("--ckpt", "oracle:mdml@nano"), "no recipe 'mdml'; nearest is 'mdlm'"),
        (SAMPLE, ("--ckpt", "oracle:ar@nano"), "no exact denoiser for ar@nano"),
        (MDLM, ("--scale", "nanno"), "no scale 'nanno'; nearest is 'nano'"),
        (EVALS, ("--ckpt", "oracle:mdlm@nano.sudok"), "no scale 'nano.sudok'; nearest is 'nano.sudoku'"),
        (
            EVALS,
            (*ORACLE, "--samplers", "low_confidense"),
            "no preset 'low_confidense'; nearest is 'low_confidence'",
        ),
        (SAMPLE, (*ORACLE, "--sampler", "randm"), "no preset 'randm'; nearest is 'random'"),
        (SAMPLE, (*ORACLE, "--sampler", "random:temp=1"), "no setting 'temp'; nearest is 'temperature'"),
        (EVALS, (*ORACLE, "--suite", "nanno"), "no suite 'nanno'; nearest is 'nano'"),
        (EVALS, (*ORACLE, "--tasks", "lawn"), "no task 'lawn' in suite 'nano'; nearest is 'law'"),
        (MDLM, ("--set", "optimiser.lr=1"), "no setting 'optimiser'; nearest is 'optimizer'"),
        (MDLM, ("--set", "steps=1", "--set", "steps=2"), "setting 'steps' is given twice; give it once"),
        (MDLM, ("--set", "steps=5.0"), "steps=5.0: expected int, got float"),
        (MDLM, ("--set", "steps=five"), 'steps="five": expected int, got str'),
        (MDLM, ("--set", "steps"), "'steps' is not NAME=VALUE"),
        (MDLM, ("--stepz", "5"), "no flag '--stepz'; nearest is '--steps'"),
        (MDLM, ("--step=5",), "no flag '--step'; nearest is '--steps'"),
        (EVALS, ("--sampler", "all"), "no flag '--sampler'; nearest is '--samplers'"),
        (SAMPLE, ("--ckp", "x"), "no flag '--ckp'; nearest is '--ckpt'"),
        ("repro.checkpoint", ("export", ".", "--fh", "x"), "no flag '--fh'; nearest is '--hf'"),
        (
            "repro.checkpoint",
            ("export", ".", "--hf=a", "--hf", "b"),
            "--hf is given twice; give it once",
        ),
        ("repro.checkpoint", ("exprt", "."), "invalid choice: 'exprt'; nearest is 'export'"),
        (MDLM, ("--seed", "1", "--seed", "2"), "--seed is given twice; give it once"),
        (MDLM, ("nano",), "unexpected argument 'nano'"),
        (MDLM, ("--steps", "-5"), "-5 is negative; give 0 or more"),
        (MDLM, ("--steps", "few"), "'few' is not an integer"),
        (MDLM, (*NANO, "--steps", "0"), "cannot stop at step 0: mdlm@nano has steps 1 to 2200"),
        (MDLM, (*NANO, "--steps", "2201"), "cannot stop at step 2201: mdlm@nano has steps 1 to 2200"),
        (MDLM, ("--json",), "--json goes with --print or --plan"),
        (MDLM, ("--print", "--plan"), "not allowed with argument --print"),
        (EVALS, (), "give --ckpt DIR"),
        (EVALS, ("jugde", "x.jsonl"), "no command 'jugde'; nearest is 'judge'"),
        (EVALS, ("list", "sampler"), "invalid choice: 'sampler'; nearest is 'samplers'"),
        (
            EVALS,
            (*ORACLE, "--tasks", "examples/newcomer/finsh.yaml"),
            "no file 'examples/newcomer/finsh.yaml'; nearest is 'examples/newcomer/finish.yaml'",
        ),
        (EVALS, (*ORACLE, "--tasks", "law,nowhere/my.yml"), "no file 'nowhere/my.yml'; give the path"),
        (
            SAMPLE,
            ("--ckpt", "mdlm@nano.lexicon"),
            "mdlm@nano.lexicon-s0; train it (python -m repro.recipes.mdlm --scale nano.lexicon)",
        ),
        (EVALS, ("plan", *ORACLE, "--suite", "nanno"), "no suite 'nanno'; nearest is 'nano'"),
        (EVALS, ("--plan",), "use `python -m repro.evals plan [--device DEVICE]`"),
        (EVALS, ("--cell=duo.t5.mdlm",), "use `python -m repro.evals cells NAMES`"),
        (EVALS, ("--rule", "duo"), "use `python -m repro.evals judge FILE.jsonl --judge CKPT`"),
        (EVALS, ("--samples", "x.jsonl"), "score its samples, use `python -m repro.evals judge FILE"),
        (EVALS, (*ORACLE, "--seeds", "x"), "'x' is not an integer"),
        (EVALS, (*ORACLE, "--weights", "exma"), "invalid choice: 'exma'"),
        (EVALS, (*ORACLE, "--tokens-per-step", "0"), "'0' is no positive number"),
        (SAMPLE, ("--prompt", "AB"), "the following arguments are required: --ckpt"),
        (SAMPLE, (*ORACLE, "--watch", "--delay", "-1"), "'-1' is no delay; give seconds from 0 to 3600"),
        (SAMPLE, (*ORACLE, "--watch", "--delay", "inf"), "'inf' is no delay"),
        (SAMPLE, (*ORACLE, "--watch", "--delay", "nan"), "'nan' is no delay"),
    ],
)
def test_arguments(program, arguments, message, line):
    assert message in line(program, *arguments)


# --- what does not fit the model ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--sampler", "greedy"), "'autoregressive' is for left_to_right models; this one is absorbing"),
        (("--sampler", "random", "--steps", "33"), "steps 33 exceed gen_length 32"),
        (("--sampler", "random", "--steps", "0"), "steps 0 must be a positive multiple"),
        (("--sampler", "random", "--block-length", "5"), "gen_length 32 is no multiple of block_length 5"),
        (
            ("--sampler", "random", "--block-length", "8", "--steps", "6"),
            "multiple of the number of blocks, 4",
        ),
        (
            ("--sampler", "threshold_0.9", "--steps", "8"),
            "'threshold' is adaptive: it takes no number of steps",
        ),
        (
            ("--prompt", "A" * 32),
            "a prompt of 32 ids leaves no room to generate: this model has 32 positions",
        ),
        (
            ("--prompt", "AB", "--gen-length", "31"),
            "gen_length=31: after a prompt of 2 ids this model, of 32 positions, has room for 30",
        ),
        (("--gen-length", "0"), "gen_length=0: "),
        (("--prompt", "a"), "no symbol 'a'"),
        (("--n", "0"), "--n 0 generates nothing"),
        (("--cache", "dul"), "no cache 'dul'; nearest is 'dual'"),
        (
            ("--cache", "dual:refresh=0"),
            "cache setting refresh=0 is no number of forward passes after which to recompute the KV cache; give 1",
        ),
        (
            ("--cache", "prefix", "--block-length", "8"),
            "does not support a KV cache; leave out the cache",
        ),
        (("--block-length", "5"), "gen_length 32 is no multiple of block_length 5"),
    ],
)
@pytest.mark.parametrize("watched", [(), ("--watch",)], ids=["", "watched"])
def test_sampling_that_cannot_be(arguments, message, watched, line):
    assert message in line(SAMPLE, *ORACLE, *arguments, *watched)


def test_a_preset_that_does_not_fit_the_process(line):
    said = line(EVALS, "--ckpt", "oracle:duo@nano", "--samplers", "low_confidence")
    fitting = [name for name, rule in PRESETS.items() if "uniform" in rule.capabilities.processes]
    assert fitting[0] == "ancestral" and "random" not in fitting
    assert (
        said
        == f"preset 'low_confidence' does not fit this model of uniform noise; presets that do: {', '.join(fitting)}"
    )


# --- checkpoints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [EVALS, SAMPLE, "repro.checkpoint"])
def test_a_checkpoint_that_does_not_load(program, trained, tmp_path, line):
    """Missing, empty, a pickle, a single file, truncated: one line each, from every command."""

    def of(path: Path) -> str:
        if program == "repro.checkpoint":
            return line(program, "export", path, "--hf", tmp_path / "hf")
        return line(program, "--ckpt", path)

    assert "no checkpoint at" in of(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "no step_* folder with a state.json" in of(tmp_path / "empty")
    (tmp_path / "pickled").mkdir()
    torch.save({"weight": torch.zeros(1)}, tmp_path / "pickled" / "model.pt")
    assert "model.pt is a pickle; only safetensors are read" in of(tmp_path / "pickled")
    assert "is a file, but a checkpoint is a folder" in of(tmp_path / "pickled" / "model.pt")
    broken = shutil.copytree(trained, tmp_path / "broken")
    for file in ("model.safetensors", "ema.safetensors"):
        path = broken / "step_00000001" / file
        path.write_bytes(path.read_bytes()[:-8])
    assert "truncated or changed" in of(broken)
    (broken / "step_00000001" / "state.json").write_text('{"format": 1}')
    assert "state.json: object missing required field 'recipe'" in of(broken)


def test_averaged_weights_that_are_not_there(trained, tmp_path, line):
    run = shutil.copytree(trained, tmp_path / "run")
    state = run / "step_00000001" / "state.json"
    state.write_text(state.read_text().replace("ema.safetensors", "gone.safetensors"))
    assert "holds no averaged weights; use --weights raw" in line(SAMPLE, "--ckpt", run, "--weights", "ema")


def test_resuming_what_is_not_this_run(trained, tmp_path, line):
    pins = [word for pin in overrides("mdlm") for word in ("--set", pin)]
    assert "cannot resume: no folder" in line(MDLM, *NANO, *pins, "--resume", "--out", tmp_path / "absent")
    assert "settings differ" in line(MDLM, *NANO, "--resume", "--out", trained)
    assert "settings differ" in line("repro.recipes.llada", *NANO, "--resume", "--out", trained)
    assert "--seed 0, not 1" in line(MDLM, *NANO, *pins, "--resume", "--seed", 1, "--out", trained)
    assert "holds a run already; go on with --resume" in line(MDLM, *NANO, *pins, "--out", trained)


def test_an_out_that_is_no_folder(tmp_path, line):
    (tmp_path / "file").write_text("")
    pins = [word for pin in overrides("mdlm") for word in ("--set", pin)]
    assert "exists" in line(MDLM, *NANO, *pins, "--out", tmp_path / "file").lower()


def test_no_network(tmp_path, monkeypatch, line):
    """A full recipe names what it could not fetch and a scale that needs no download."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = line("repro.recipes.duo", "--out", tmp_path / "run")
    assert said.startswith("cannot fetch ") and "(no network)" in said
    assert said.endswith("; a recipe at --scale nano.text needs no download")
    assert not (tmp_path / "run").exists()


# --- exit codes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, code, said",
    [
        (ValueError("two\n lines"), 2, "prog: two lines\n"),
        (ConnectionError("no network"), 2, "prog: no network\n"),
        (OSError(28, "No space left on device", "/runs/x"), 2, "prog: the disk is full (/runs/x)"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_errors_are_one_line_with_an_exit_code(error, code, said, capsys):
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as end:
        run(main, "prog")
    err = capsys.readouterr().err
    assert end.value.code == code and err.startswith(said) and err.count("\n") == (1 if code == 2 else 0)


def test_an_unexpected_error_keeps_its_traceback():
    def main(argv):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        run(main, "prog")


def test_one_thread_unless_the_environment_says_otherwise(monkeypatch):
    for given, expected in ((None, "1"), ("3", "3")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        with pytest.raises(SystemExit):
            run(lambda argv: 0, "prog")
        assert os.environ["OMP_NUM_THREADS"] == expected


def test_a_flag_that_may_be_repeated_is_no_error():
    parser = Parser("prog", "", ["prog --n 1"])
    parser.add_argument("--set", action="append")
    parser.add_argument("--n", type=natural)
    assert parser.parse_args(["--set", "a", "--set", "b", "--n=2"]).set == ["a", "b"]


# --- subprocesses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module, arguments, shown, light",
    [
        ("repro.evals", ["--help"], "--samplers", True),
        ("repro.sample", ["--help"], "--watch", True),
        ("repro.recipes.duo", ["--print"], "objective.temperature.steps", True),
        ("repro.recipes.llada", ["--plan"], "395,8", False),
    ],
)
def test_commands_that_only_print_are_light(module, arguments, shown, light):
    """Exit code 0; --help and --print do not import torch, which takes longer than a second."""
    known = {
        **os.environ
    }  # otherwise the child has the $COLUMNS that readline, which pytest loads, sets behind Python
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=known,
    )
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    imported = {
        row.rpartition("|")[2].strip() for row in done.stderr.splitlines() if row.startswith("import")
    }
    heavy = {"torch", "transformers", "datasets", "accelerate", "lm_eval"} & imported
    assert not heavy or not light


def test_a_wrong_flag_in_a_subprocess():
    """`python -m` itself: exit code 2, one line, nothing on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "repro.recipes.mdlm", "--scal", "nano"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "repro.recipes.mdlm: no flag '--scal'; nearest is '--scale'\n"


@pytest.mark.parametrize(
    "what, shown",
    [
        ("recipes", "mdlm MDLM, trained on its exact NELBO"),
        ("commands", "sample Generate texts"),
        ("samplers", "low_confidence absorbing commits the most confident"),
        ("processors", "nucleus absorbing"),
        ("suites", "flagship group What one 80 GB GPU"),
        ("tasks", "law law"),
        ("protocols", "owt.wrapped rows of 1024 s-sahoo/duo configs/data/openwebtext-split.yaml"),
        (
            "estimators",
            "llada_mc LLaDA's Monte Carlo estimator with unbiased rounding, from `draws` masked sets in passes of"
            " `batch`; LLaDA, arXiv 2502.09992",
        ),
    ],
)
def test_lists_name_what_can_be_chosen(what, shown, monkeypatch, capsys):
    """A line for each: name, kind, and purpose or source."""
    monkeypatch.setenv("COLUMNS", "1000")
    assert evals(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert repro_command(["list", what]) == 0 and capsys.readouterr().out.splitlines() == lines
    assert any(" ".join(line.split()).startswith(shown) for line in lines), lines
    assert all(len(line.split()) > 2 for line in lines)


def test_without_a_kind_the_list_has_names_alone(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert repro_command(["list"]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 60 and said.splitlines()[-1].startswith("repro list KIND says")
    words = re.findall(r"[^\s,]+", said)
    assert {*registry.RECIPES, *PRESETS} <= set(
        words
    ) and f"samplers    {len(PRESETS)}: low_confidence," in said


def test_texts_with_lines_of_their_own_are_told_apart(capsys):
    """A line with the number above each; texts of one line stand below each other, and a single text stands alone."""
    made = [{"text": "one\n\ntwo"}, {"text": "three"}]
    sample._write(made, False, None)
    assert capsys.readouterr().out == "--- 1 of 2 ---\none\n\ntwo\n--- 2 of 2 ---\nthree\n"
    sample._write(made[:1], False, None)
    assert capsys.readouterr().out == "one\n\ntwo\n"
    sample._write([{"text": "a"}, {"text": "b"}], False, None)
    assert capsys.readouterr().out == "a\nb\n"


def test_any_recipe_by_name(line, capsys):
    """`python -m repro.recipes NAME` names the nearest recipe; without a name it lists all."""
    assert "no recipe 'mdml'; nearest is 'mdlm'" in line("repro.recipes", "mdml")
    assert recipes.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[:2] == "  " and line[2] != " "] == [
        *registry.RECIPES,
        "python",
    ]
    assert "[MDLM, arXiv 2406.07524]" in " ".join(lines)
    assert recipes.main(["mdlm", "--print", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "mdlm"
