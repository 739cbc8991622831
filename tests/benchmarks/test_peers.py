"""Benchmarks against peers' own files: imported as they are, commits stored, results that differ reported."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from helpers.checkouts import checkout, rows_of

from benchmarks import __main__ as bench
from benchmarks import peer_decoding, peer_harness, peer_likelihood, peers
from benchmarks.peer_decoding import Case
from benchmarks.peer_harness import Questions
from repro.certify.peers.imports import peer_module

CASE = Case(40, 6, 8, 4, width=16, layers=2, ffn=24, heads=2)
LOOP = '''
import torch
{imports}

def fill(network, prompt, length, block, mask, choose):
    """One token per step in blocks, the most confident first; `choose` gives logits of the whole row."""
    x = torch.cat([prompt, torch.full((1, length), mask)], 1)
    forwards = 0
    for first in range(prompt.shape[1], x.shape[1], block):
        cache = None
        for _ in range(block):
            logits, cache = choose(network, x, first, block, cache)
            forwards += 1
            p, token = logits.softmax(-1).max(-1)
            p[x != mask] = -1
            p[:, first + block:] = -1
            best = int(p.argmax())
            x[0, best] = token[0, best] {change}
    return x, forwards

def whole(network, x, first, block, cache):
    return network(x).logits, None

@torch.no_grad()
def generate(network, prompt, steps, gen_length, block_length, mask_id):
    x, forwards = fill(network, prompt, gen_length, block_length, mask_id, whole)
    return {returned}
'''
CACHED = """
def prefix(network, x, first, block, cache):
    if cache is None:
        found = network(x, use_cache=True)
        return found.logits, [tuple(each[:, :, :first] for each in pair) for pair in found.past_key_values]
    new = network(x[:, first:], past_key_values=cache, use_cache=True).logits
    return torch.cat([new.new_zeros(1, first, new.shape[2]), new], 1), cache

def dual(network, x, first, block, cache):
    if cache is None:
        found = network(x, use_cache=True)
        return found.logits, found.past_key_values
    replaced = torch.zeros_like(x, dtype=torch.bool)
    replaced[:, first:first + block] = True
    new = network(x[:, first:first + block], past_key_values=cache, use_cache=True, replace_position=replaced).logits
    full = new.new_zeros(1, x.shape[1], new.shape[2])
    full[:, first:first + block] = new
    return full, cache

@torch.no_grad()
def generate_with_prefix_cache(network, prompt, steps, gen_length, block_length, mask_id):
    return fill(network, prompt, gen_length, block_length, mask_id, prefix)

@torch.no_grad()
def generate_with_dual_cache(network, prompt, steps, gen_length, block_length, mask_id):
    return fill(network, prompt, gen_length, block_length, mask_id, dual)
"""
HARNESS = """
import torch
from generate import generate, generate_with_dual_cache

class LLaDAEvalHarness:
    def generate_until(self, requests):
        return [self.answer(*request.args) for request in requests]

    def answer(self, text, arguments):
        prompt = torch.tensor([self.tokenizer(text)["input_ids"]])
        loop = generate_with_dual_cache if self.dual_cache else generate
        ids, _ = loop(self.model, prompt, self.steps, self.gen_length, self.block_length, self.mask_id)
        written = self.tokenizer.decode(ids[0, prompt.shape[1]:], skip_special_tokens=False) {change}
        return written.split(arguments["until"][0])[0]
"""
LIKELIHOOD = '''
import torch

@torch.no_grad()
def get_log_likelihood(network, prompt, answer, mc_num, batch_size, mask_id):
    """The bound by uniformly drawn numbers of masked positions."""
    total = 0.0
    for _ in range(mc_num):
        count = int(torch.randint(1, len(answer) + 1, ()))
        chosen = torch.randperm(len(answer))[:count] + len(prompt)
        clean = torch.cat([prompt, answer])
        x = clean.clone()
        x[chosen] = mask_id
        logp = network(x[None]).logits[0].log_softmax(-1)
        total += float(logp[chosen, clean[chosen]].sum()) * len(answer) / count
    return total / mc_num {change}
'''


def llada_files(change="", shift=""):
    return {
        "generate.py": LOOP.format(imports="", change=change, returned="x"),
        "get_log_likelihood.py": LIKELIHOOD.format(change=shift),
    }


@pytest.fixture
def small(monkeypatch):
    """All cases at a vocabulary of 40."""
    monkeypatch.setattr(peer_likelihood, "LLADA", {CASE: 1.0})
    count = peer_likelihood.monte_carlo
    monkeypatch.setattr(
        peer_likelihood, "monte_carlo", lambda f, case, n: count(f, Case(40, 6, 15, 15, 16, 2, 24, 2), n)
    )
    whole = peer_decoding.fast_dllm
    asked = Questions(2, 12, 8, 4, width=16, layers=2, ffn=24, heads=2)
    fast = replace(
        peers.PEERS["fast_dllm"],
        measure=lambda m, n: [
            *whole(m, n, CASE, CASE),
            *peer_harness.fast_harness(m["llada/eval_llada.py"], n, asked),
        ],
    )
    monkeypatch.setitem(peers.PEERS, "fast_dllm", fast)


def test_equal_tokens_of_checkouts_are_stored_with_their_commits(tmp_path, small, capsys):
    """A peer's rows replace its own rows only; an absent third-party module that a file imports gets a stand-in."""
    llada, fast, out = (tmp_path / name for name in ("a", "b", "out"))
    commit = checkout(llada, llada_files())
    assert bench.main(["--peer", f"llada={llada}", "--repeats", "1", "--out", str(out)]) == 0
    first = rows_of(out)
    assert [row["commit"] for row in first] == [commit, commit] and all(row["equal"] for row in first)
    assert first[0]["agreement"].startswith("100% of tokens equal; our rewritten loop: 100% of tokens equal")
    imports = "from model.modeling_llada import LLaDAModelLM"
    loops = LOOP.format(imports=imports, change="", returned="x, forwards") + CACHED
    model = "from einops import rearrange\n\nclass LLaDAModelLM:\n    pass\n"
    files = {"llada/generate.py": loops, "llada/model/modeling_llada.py": model}
    other = checkout(fast, files | {"llada/eval_llada.py": HARNESS.format(change="")})
    assert bench.main(["--peer", f"fast_dllm={fast}", "--repeats", "1", "--out", str(out)]) == 0
    rows = rows_of(out)
    assert rows[:2] == first and [row["commit"] for row in rows[2:]] == [other] * 7
    agreements = [row["agreement"].partition("; ")[0] for row in rows[2:]]
    assert agreements == ["100% of tokens equal"] * 5 + ["2 of 2 texts equal"] * 2
    assert all("; 8 and 8 forwards; " in row["agreement"] for row in rows[2:7])
    assert "model" not in sys.modules and list(out.iterdir()) == [out / "peers.json"]


def test_other_texts_of_a_harness_are_reported(tmp_path):
    loops = LOOP.format(imports="", change="", returned="x, forwards") + CACHED
    checkout(tmp_path, {"generate.py": loops, "eval_llada.py": HARNESS.format(change="+ '!'")})
    asked = Questions(2, 12, 8, 4, width=16, layers=2, ffn=24, heads=2)
    found = list(peer_harness.fast_harness(peer_module(tmp_path, "eval_llada"), 1, asked))
    assert [each.equal for each in found] == [False, False]
    assert all(each.row.agreement.startswith("0 of 2 texts equal") for each in found)


def test_different_results_are_reported(tmp_path, small, capsys):
    """The last token of a changed loop differs, and the file is not the committed one."""
    checkout(tmp_path / "a", llada_files())
    change = "if forwards < length else (token[0, best] + 1) % 40"
    for name, text in llada_files(change, "+ 100").items():
        (tmp_path / "a" / name).write_text(text)
    out = tmp_path / "out"
    assert bench.main(["--peer", f"llada={tmp_path / 'a'}", "--repeats", "1", "--out", str(out)]) == 1
    rows = rows_of(out)
    assert [row["equal"] for row in rows] == [False, False]
    assert all(row["commit"].endswith("+") for row in rows)
    assert rows[0]["agreement"].startswith("88% of tokens equal, the first that differs is number ")
    assert capsys.readouterr().out.count("results differ") == 2


def test_hflm_gives_the_same_log_likelihoods():
    case = Case(40, 24, 6, 0, width=16, layers=2, ffn=24, heads=2)
    found = list(peer_likelihood.hflm({}, 1, case))
    assert len(found) == 2 and all(each.equal for each in found), found
    assert peers.Checkout.read("lm_eval").commit().startswith("lm_eval ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lada=x", "no peer 'lada'; nearest is 'llada'"),
        ("llada", "peer llada needs its checkout; give --peer llada=FOLDER"),
        ("llada={}", "{} holds no generate.py"),
        ("lm_eval={}", "peer lm_eval is the installed package lm_eval; give --peer lm_eval"),
    ],
)
def test_wrong_peers_are_one_line(tmp_path, text, message):
    with pytest.raises(ValueError) as error:
        bench.main(["--peer", text.format(tmp_path)])
    assert message.format(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_folders_without_commit_or_with_broken_files(tmp_path):
    for name in ("generate.py", "get_log_likelihood.py"):
        (tmp_path / name).write_text("import no_such_module\n")
    read = peers.Checkout.read(f"llada={tmp_path}")
    with pytest.raises(ValueError, match="is no git checkout of the peer"):
        read.commit()
    said = f"import of generate of {tmp_path.name} raised ModuleNotFoundError"
    with pytest.raises(ValueError, match=said):
        peer_module(tmp_path, "generate")
