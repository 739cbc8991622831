"""Samplers of other projects: adapters on fake checkouts with the same interfaces, messages, the stored table."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, replace

import pytest
import torch

from repro.certify import certify, isolated
from repro.certify.__main__ import main
from repro.certify.peers import catalogue, command
from repro.certify.peers.defects import DEFECTS
from repro.certify.peers.imports import StandIn, absent, peer_module, seeded
from repro.certify.space import Space, tiny
from repro.certify.verdict import SMOKE
from repro.results import certificates, certified_peers

SMALL = replace(
    SMOKE, rows=4_000, last_rows=10_000, call_rows=10_000, steps=(1, 4, 16), row_calls=10, small_calls=40
)
GENERATE = """
import torch

def generate(model, prompt, steps, gen_length, block_length, temperature=0.0, remasking="low_confidence", mask_id=0):
    assert prompt.shape[1] == 0 and steps <= gen_length == block_length
    n = len(prompt)
    x = torch.full((n, gen_length), mask_id)
    for _ in range(gen_length):  # one token a step
        p = model(x, attention_mask=None).logits.double().softmax(-1)
        drawn = torch.multinomial(p.view(-1, p.shape[-1]), 1).view(n, -1)
        if not temperature:
            drawn = p.argmax(-1)
        order = torch.rand(n, gen_length) if remasking == "random" else p.gather(2, drawn[..., None])[..., 0]
        place = order.masked_fill(x != mask_id, -1).argmax(1)
        x[torch.arange(n), place] = drawn[torch.arange(n), place]
    return x
"""
DIFFUSION = """
import flash_attn.layers.rotary
import hydra.utils
import lightning as L
import torch
import torchmetrics
from mamba_ssm.ops.selective_scan_interface import mamba_inner_fn

import noise_schedule


class NLL(torchmetrics.aggregation.MeanMetric):
  pass


@L.pytorch.utilities.rank_zero_only
def log():
  return "kept"


class Diffusion(L.LightningModule):
  def __init__(self, config, tokenizer):
    raise AssertionError("needs a network")

  def _sample(self, num_steps=None, eps=1e-5):
    assert log() == "kept" and self.config.noise.type == "loglinear" and not self.time_conditioning
    n, length = self.config.loader.eval_batch_size, self.config.model.length
    x = torch.full((n, length), self.mask_index, device=self.device)
    for i in range(num_steps):
      t, s = 1 - i / num_steps, 1 - (i + 1) / num_steps
      sigma = self.noise(torch.full((n,), min(t, 0.999)))
      p = self.backbone(x, sigma).double().softmax(-1)
      drawn = torch.multinomial(p.view(-1, self.vocab_size), 1).view(n, length)
      if self.config.sampling.predictor == "ddpm":  # a wrong one: too early
        shown = torch.rand(n, length) < 1
      else:
        shown = torch.rand(n, length) < (t - s) / t
      x = torch.where((x == self.mask_index) & shown, drawn, x)
    return x
"""
SCHEDULE = """
import torch

def get_noise(config):
  return lambda t: -torch.log1p(-t)
"""


@pytest.fixture
def llada(tmp_path):
    folder = tmp_path / "LLaDA"
    folder.mkdir()
    (folder / "generate.py").write_text(GENERATE)
    return folder


@pytest.fixture
def mdlm(tmp_path):
    folder = tmp_path / "mdlm"
    folder.mkdir()
    (folder / "diffusion.py").write_text(DIFFUSION)
    (folder / "noise_schedule.py").write_text(SCHEDULE)
    return folder


def test_an_order_of_confidence_is_refused_and_a_random_one_stands(llada):
    right = certify(catalogue.load(f"LLaDA:random={llada}"), effort=SMALL)
    assert right.stands and right.claims == "law" and right.subject == "random"
    wrong = certify(catalogue.load(f"LLaDA:low_confidence={llada}"), effort=SMALL)
    assert "law at 4 steps, absorbing" in {check.name for check in wrong.checks if not check.stands}
    assert certify(catalogue.load(f"LLaDA:default={llada}"), effort=SMALL).stands


def test_a_diffusion_class_is_called_without_constructor_and_absent_modules(mdlm):
    assert certify(catalogue.load(f"mdlm:ddpm_cache={mdlm}"), effort=SMALL).stands
    assert not certify(catalogue.load(f"mdlm:ddpm={mdlm}"), effort=SMALL).stands


def test_nothing_of_a_peer_stays_importable(mdlm, llada, monkeypatch):
    """Modules of two checkouts have one name; what is absent stays absent for other code."""
    path, finders, before = list(sys.path), list(sys.meta_path), set(sys.modules)
    catalogue.load(f"mdlm:ddpm={mdlm}")
    mine = peer_module(llada, "generate")
    other = llada.parent / "other"
    other.mkdir()
    (other / "generate.py").write_text("import no_such_module_at_all.part\nother = 1")
    assert peer_module(other, "generate", ["no_such_module_at_all"]).other == 1 and not hasattr(mine, "other")
    assert (sys.path, sys.meta_path) == (path, finders)
    left = {name for name in sys.modules.keys() - before if isinstance(sys.modules[name], StandIn)}
    assert not left | (sys.modules.keys() & {"generate", "diffusion", "noise_schedule"})
    with pytest.raises(ValueError, match=r"import of generate of other raised ModuleNotFoundError"):
        peer_module(other, "generate")


def test_an_error_is_reported_at_the_line_of_the_peer(mdlm):
    """MDLM's file has the name of our adapter's."""
    file = mdlm / "diffusion.py"
    file.write_text(DIFFUSION.replace("return x\n", "return None.ndim\n"))
    line = DIFFUSION.count("\n")
    with pytest.raises(ValueError, match=rf"ddpm raised AttributeError at line {line} of diffusion\.py"):
        certify(catalogue.load(f"mdlm:ddpm={mdlm}"), effort=SMALL)


def test_a_seed_decides_the_draws_and_the_global_generator_is_restored(llada):
    sample, space = catalogue.load(f"LLaDA:random={llada}"), Space("absorbing", tiny(3), "x0_mean")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = sample(space, 50, 3, 1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one, sample(space, 50, 3, 1)) and not torch.equal(one, sample(space, 50, 3, 2))
    with pytest.raises(KeyError), seeded(1):
        raise KeyError
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--peer", "LLaDa={folder}"], "no peer 'LLaDa'; nearest is 'LLaDA'"),
        (["--peer", "LLaDA:randm={folder}"], "LLaDA has no sampler 'randm'; nearest is 'random'"),
        (["--peer", "LLaDA"], "--peer LLaDA needs the folder of a checkout: --peer LLaDA=FOLDER (ML-GSAI/LLaDA)"),
        (["--peer", "duo={folder}"], "trainer_base.py is missing; give a checkout of s-sahoo/duo"),
        (["--peer", "diffusers={folder}"], "scheduling_discrete_ddim.py is missing; give a checkout of huggingface"),
        (["--peer", "transformers"], "--peer transformers: package transformers is not installed"),
        (["--peer", "LLaDA={folder}", "--rows", "100000"], "--rows has no effect with --peer; leave it out"),
        (["--presets", "greedy", "--seconds", "0"], "--seconds has no effect with --presets; leave it out"),
        (["--presets", "greedy", "--quiet"], "--quiet has no effect with --presets; leave it out"),
        (["--peer", "LLaDA={folder}", "--presets", "all"], "2 of FILE.py:NAME, --presets and --peer are given"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(arguments, says, llada, monkeypatch):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError) as error:
        main([argument.format(folder=llada) for argument in arguments])
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_sampler_that_fails_is_a_row_without_verdict_and_other_rows_stay(llada, tmp_path, capsys):
    (llada / "generate.py").write_text(
        "def generate(model, prompt, **how):\n    raise IndexError('no such block')\n"
    )
    out = tmp_path / "out"
    row = asdict_row("mdlm", "ddpm", stands=True)
    out.mkdir()
    (out / "peers.json").write_text(json.dumps([row]))
    assert command.certify_peers([f"LLaDA:random={llada}"], out, 60, False) == 1
    printed = capsys.readouterr().out
    assert (
        "LLaDA random" in printed
        and "could not be run: random raised IndexError at line 2 of generate.py" in printed
    )
    failed, kept = certified_peers.read_peers(out)
    assert failed["stands"] is None and "no such block" in failed["error"] and kept == row


def test_a_sampler_that_does_not_end_has_no_verdict(llada, tmp_path, monkeypatch):
    """A claim that was not tested does not fall."""

    def hangs(*_):
        raise isolated.Unfinished("random was still running")

    monkeypatch.setattr(command, "isolated", hangs)
    assert command.certify_peers([f"LLaDA:random={llada}"], tmp_path, None, False) == 1
    (row,) = certified_peers.read_peers(tmp_path)
    assert row["stands"] is None and row["error"] == "random was still running" and not row["refused_by"]


def asdict_row(peer, sampler, **given):
    """A stored row."""
    found = {one.name: asdict(one) for one in catalogue.PEERS[peer].samplers}[sampler]
    for name in ("name", "adapter", "law_level"):
        del found[name]
    return found | {
        "peer": peer,
        "repository": catalogue.PEERS[peer].repository,
        "version": "0123456789",
        "sampler": sampler,
        "defect": "",
        "stand_ins": [],
        "stands": None,
        "refused_by": [],
        "says": [],
        "total_variation": 0.01,
        "steps": 64,
        "notes": ["rare tokens were not tested"],
        "error": "",
        **given,
    }


def test_the_table_says_version_verdict_and_the_tests_that_see_it(tmp_path):
    refused = ["law at 4 steps, absorbing", "law at 16 steps, absorbing"]
    rows = [
        asdict_row("mdlm", "ddpm", stands=True),
        asdict_row("LLaDA", "low_confidence", stands=False, refused_by=refused, defect="the likeliest first"),
        asdict_row("remdm", "dfm", error="dfm raised AttributeError", defect="p_x0 is never set"),
        *(
            asdict_row("diffusers", name, version="0.42.1", notes=["steps"])
            for name in ("ddim", "entropy_bound")
        ),
    ]
    tables = certified_peers.peers_tables(rows)
    lines = {
        line.split("|")[1].strip(): line for line in tables["peers.md"].splitlines() if line.startswith("|")
    }
    assert "| 0123456 | ddpm" in " ".join(lines["mdlm"].split()) and "| stands" in lines["mdlm"]
    assert "**does not stand** | law " in lines["LLaDA"]
    assert "- LLaDA low_confidence: the likeliest first" in tables["peers.md"]
    assert "- remdm dfm: dfm raised AttributeError; p_x0 is never set" in tables["peers.md"]
    assert "- diffusers 0.42.1 ddim, entropy_bound: steps" in tables["peers.md"]
    assert "kuleshov-group/mdlm@c112c52" in tables["peers.csv"]
    assert certified_peers.peers_tables([]) == {} and certified_peers.read_peers(tmp_path) == []
    (tmp_path / "peers.json").write_text(json.dumps([{"peer": "mdlm"}]))
    with pytest.raises(ValueError, match=r"peers.json is no file of certificates of other projects"):
        certified_peers.read_peers(tmp_path)
    assert certificates.read(tmp_path) == []


def test_every_sampler_of_the_catalogue_has_a_stored_verdict_or_a_reason():
    """And each row is of the settings of today; a refused one says what the sampler does wrong."""
    stored = certified_peers.read_peers(certificates.FOLDER)
    found = {
        (row["peer"], row["sampler"]): tuple(
            row[name] for name in ("file", "function", "claims", "source", "settings")
        )
        for row in stored
    }
    assert found == {
        (peer, one.name): (one.file, one.function, one.claims, one.source, dict(one.settings))
        for peer, known in catalogue.PEERS.items()
        for one in known.samplers
    }
    for row in stored:
        assert row["version"] and (row["stands"] is not None) == (row["error"] == ""), row
        assert row["defect"] == DEFECTS.get((row["peer"], row["sampler"]), ""), row
        assert row["stands"] or re.search(r"\w/[\w-]+@\S+ \S+:\d", row["defect"]), row
    refused = {(row["peer"], row["sampler"]) for row in stored if not row["stands"]}
    assert refused == set(DEFECTS)


def test_only_absent_modules_get_a_stand_in():
    assert absent(["torch", "no_such_module_at_all"]) == ["no_such_module_at_all"]
