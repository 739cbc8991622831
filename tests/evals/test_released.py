"""`python -m repro.evals --ckpt FOLDER --samplers all` on tiny folders in five layouts: tasks, blocks and caches."""

from __future__ import annotations

import json

import pytest
from helpers import lm_worlds, released
from helpers.released import diffusion_gemma, dream, duo, llada, mdlm

from repro.evals.__main__ import main as evals
from repro.results.record import read_record
from repro.samplers.presets import PRESETS

tokenizer = released.tokenizer  # its fixture
CANVAS = released.GEMMA.canvas


def asked(write, tmp_path, tokenizer, monkeypatch, capsys):
    """A function of flags that runs a small folder and returns records and skips."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    folder = write(tmp_path / "release", tokenizer)[0]
    task = str(lm_worlds.tasks(tmp_path, rows=2)["writing"])

    def run(*flags):
        argv = ["--ckpt", str(folder), "--tasks", task, "--tokens-per-step", "2", "--json", *flags]
        assert evals(argv) == 0
        found = json.loads(capsys.readouterr().out)
        return list(map(read_record, found["records"])), found["skipped"]

    return run


@pytest.mark.parametrize(
    "write, sampler, kept",
    [
        (llada, "low_confidence", "dual"),
        (dream, "entropy", "prefix"),
        (mdlm, "ancestral", "dual"),
        (duo, "ancestral", "prefix"),
        (diffusion_gemma, "renoise", "prefix"),
    ],
)
def test_a_task_in_blocks_with_a_cache(write, sampler, kept, tmp_path, tokenizer, monkeypatch, capsys):
    run = asked(write, tmp_path, tokenizer, monkeypatch, capsys)
    block = str(CANVAS if write is diffusion_gemma else 4)
    ((record,), _) = run("--samplers", sampler, "--block-length", block, "--cache", kept)
    plan = record.question.plan
    assert (plan["block_length"], plan["cache"]["part"]) == (int(block), f"{kept}_cache")
    assert record.answer.nfe > 1


@pytest.mark.slow
@pytest.mark.parametrize("write", [llada, dream, mdlm, duo, diffusion_gemma])
def test_every_sampler(write, tmp_path, tokenizer, monkeypatch, capsys):
    """Without and with a cache: every preset of the process runs; the skips of others name their process."""
    run = asked(write, tmp_path, tokenizer, monkeypatch, capsys)
    noise = "uniform" if write in (duo, diffusion_gemma) else "absorbing"
    fits = {name for name, rule in PRESETS.items() if noise in rule.capabilities.processes}
    for flags in [], ["--cache", "dual"]:
        records, skipped = run("--samplers", "all", *flags)
        done = {record.labels.preset.split(",")[0] for record in records}
        same = {skip["what"].split(" for ")[0] for skip in skipped if "same question" in skip["reason"]}
        assert done | same == fits and done
        others = [skip for skip in skipped if "same question" not in skip["reason"]]
        assert all(f"this one is {noise}" in skip["reason"] for skip in others)
        assert {skip["what"] for skip in others} == PRESETS.keys() - fits


def test_a_plan_of_blocks(tmp_path, tokenizer, monkeypatch, capsys):
    """BD3-LM's network runs in its own blocks, planned or not; another block length is an error."""
    run = asked(released.bd3, tmp_path, tokenizer, monkeypatch, capsys)
    ((record,), _) = run("--samplers", "low_confidence")
    assert record.question.plan["block_length"] == 4
    task = str(tmp_path / "writing.yaml")
    argv = ["--ckpt", str(tmp_path / "release"), "--tasks", task, "--tokens-per-step", "2"]
    assert evals(["plan", *argv, "--samplers", "low_confidence", "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["questions"]
    assert ", block 4" in str(line)
    with pytest.raises(ValueError, match="blocks of 4 tokens, not 8; set block_length=4"):
        run("--samplers", "low_confidence", "--block-length", "8")
