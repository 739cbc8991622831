"""Speed as ratios, side by side in one run: ours against the loop that the field runs, on one CPU thread.

    make bench                          -> a table, and results/bench/NAME.json (seconds, or what the row names)
    python -m repro.bench --rows decode --repeats 5

Both sides do the same work in turn, and the ratio is of medians: a machine that slows down slows both.
Sizes are pinned; weights are random, so caches that change tokens have no place here.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repro.command import Parser, natural, run
from repro.data.corpus import Data, Vocabulary
from repro.files import ROOT, write_text
from repro.parts import nearest

if TYPE_CHECKING:
    from torch import Tensor

    from repro.backbones.denoiser import Denoiser
    from repro.objectives.objective import Objective
    from repro.processes.process import Process


@dataclass(frozen=True)
class Row:
    """Median seconds of both sides (or what the row's name says), their ratio and its target, and how far the two
    results agree."""

    row: str
    ours: float
    opponent: float
    ratio: float
    target: float
    agreement: str


Side = Callable[[], object]


def interleaved(name: str, ours: Side, opponent: Side, target: float, repeats: int, agreement: str) -> Row:
    """Time both sides in turn after one warm-up each."""
    times: dict[str, list[float]] = {"ours": [], "opponent": []}
    for number in range(repeats + 1):
        for side, work in (("ours", ours), ("opponent", opponent)):
            began = time.perf_counter()
            work()
            if number:
                times[side].append(time.perf_counter() - began)
    mine, theirs = (statistics.median(times[side]) for side in ("ours", "opponent"))
    return Row(name, mine, theirs, theirs / mine, target, agreement)


@dataclass(frozen=True)
class Sizes(Data):
    """A vocabulary of `ids` tokens, with a mask id beyond them where there is one, and a row length: no corpus."""

    ids: int
    mask: int | None
    length: int

    def vocabulary(self) -> Vocabulary:
        total = self.ids + (self.mask is not None)
        return Vocabulary(size=self.ids, total=total, mask=self.mask, bos=None, eos=None, pad=None)

    def row_length(self) -> int:
        return self.length


def _llama(data: Sizes, process: Process, width: int, layers: int, ffn: int, heads: int) -> Denoiser:
    """A bidirectional Llama with random weights."""
    from repro.backbones.backbone import Role
    from repro.backbones.llama import Llama

    backbone = Llama(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        ffn=ffn,
        attention="bidirectional",
        rope_base=10_000.0,
        norm_eps=1e-5,
        learned_positions=0,
        tied=False,
        init_deviation=0.02,
    )
    role = Role(data, process.forbidden(data.vocabulary()), "x0_mean")
    return backbone.module(role, 0).eval()


def decoding(repeats: int) -> Row:
    """128 tokens in blocks of 32, one a step, V = 32k, against LLaDA's loop with its float64 Gumbel (spec B.4)."""
    from repro import rng
    from repro.lazy import torch
    from repro.processes.absorbing import Absorbing
    from repro.samplers.decode import decode
    from repro.samplers.plan import Plan
    from repro.samplers.presets import preset

    process, rule = Absorbing(), preset("low_confidence")
    sizes = Sizes(ids=32_000, mask=32_000, length=192)
    denoiser = _llama(sizes, process, width=512, layers=8, ffn=1376, heads=8)
    prompt = (rng.uniform(rng.keys(0, rng.SENTENCE, 0, 0), 64) * 32_000).long().tolist()
    plan = Plan(gen_length=128, block_length=32, steps=128)

    def ours() -> Tensor:
        return decode(denoiser, process, rule, plan, [prompt], seed=0, names=[0]).ids[0]

    def opponent() -> Tensor:
        with torch.no_grad():
            return _llada_loop(denoiser, prompt, 128, 32)

    equal = (ours() == opponent()).double().mean().item()
    name = "decoding, V=32k, prompt 64, block 32, gen 128, 128 steps, batch 1"
    return interleaved(name, ours, opponent, 2.0, repeats, f"{equal:.0%} of tokens equal")


def _llada_loop(denoiser: Denoiser, prompt: list[int], length: int, block: int) -> Tensor:
    """The published loop, step by step as spec B.4 states it: full logits, float64 noise at T = 0, full softmax."""
    from repro.backbones.attention import Mask
    from repro.lazy import torch

    mask = denoiser.vocabulary.mask
    assert mask is not None
    ids = torch.tensor([[*prompt, *[mask] * length]])
    for first in range(len(prompt), len(prompt) + length, block):
        for _ in range(block):
            masked = ids == mask
            logits = denoiser.head().logits(denoiser.encode(ids, t=None, attention=Mask()))
            logits[..., mask] = -torch.inf
            wide = logits.double()
            noise = (-torch.rand_like(wide).log()) ** 0.0
            token = (wide.exp() / noise).argmax(-1)
            confidence = logits.softmax(-1).gather(-1, token[..., None])[..., 0]
            confidence[:, first + block :] = -torch.inf
            confidence = torch.where(masked, confidence, -torch.inf)
            best = confidence[0].topk(1).indices
            ids[0, best] = token[0, best]
    return ids[0, len(prompt) :]


def masked_head(repeats: int) -> Row:
    """A training step at V = 50k, d = 256: `masked_ce` with its fused head, against log-softmax at every position."""
    from repro import rng
    from repro.backbones.attention import Mask
    from repro.lazy import torch
    from repro.objectives.masked_ce import Fresh, MaskedCE
    from repro.objectives.noise import Window
    from repro.objectives.objective import Batch, GlobalBatch
    from repro.processes.absorbing import Absorbing

    rows, length, vocabulary = 8, 128, 50_000
    process = Absorbing()
    sizes = Sizes(ids=vocabulary, mask=vocabulary, length=length)
    denoiser = _llama(sizes, process, width=256, layers=4, ffn=1024, heads=4).train()
    index = torch.arange(rows)
    batch = Batch(
        ids=(rng.uniform(rng.keys(0, rng.SENTENCE, 0, index), length) * vocabulary).long(),
        candidates=torch.ones(rows, length, dtype=torch.bool),
        attention=Mask(),
        index=index,
        step=0,
        seed=0,
        vocabulary=denoiser.vocabulary,
        step_examples=index,
        step_candidates=torch.full((rows,), length),
    )
    objective = MaskedCE(rate=Window(low=0.5, high=0.5), masks=Fresh(), group=GlobalBatch())

    def ours() -> Tensor:
        return objective(denoiser, process, batch).value

    def opponent() -> Tensor:
        masked = objective.chosen(batch)
        features = denoiser.encode(batch.ids.masked_fill(masked, vocabulary), t=None, attention=Mask())
        logp = denoiser.head().logits(features).float().log_softmax(-1)
        return -logp.gather(-1, batch.ids[..., None])[..., 0][masked].mean()

    def step(loss: Callable[[], Tensor]) -> float:
        denoiser.zero_grad()
        value = loss()
        value.backward()
        return value.item()

    off = abs(step(ours) - step(opponent))
    name = "training step, V=50k, d=256, 4 layers, B=8, L=128, half masked"
    agreement = f"loss differs by {off:.1e}"
    return interleaved(name, lambda: step(ours), lambda: step(opponent), 1.4, repeats, agreement)


class DuoStep:
    """One step on the seed's Duo terms at V = 50,368, forward and backward: recipe `duo`, and the script as written.

    The two differ in the reverse term (spec A.3); `duo_script`, whose loss is the script's, shows the agreement.
    """

    name = "Duo step, V=50,368, d=256, 2 layers, B=8, L=128"

    def __init__(self) -> None:
        from repro import registry, rng
        from repro.backbones.attention import Mask
        from repro.lazy import torch
        from repro.objectives.objective import Batch

        rows, length = 8, 128
        recipe = registry.recipe("duo")
        sizes = Sizes(ids=recipe.data.vocabulary().size, mask=None, length=length)
        self.loss, self.same, self.process = (
            recipe.objective,
            registry.recipe("duo_script").objective,
            recipe.process,
        )
        self.denoiser = _llama(sizes, self.process, width=256, layers=2, ffn=1024, heads=4).train()
        u = rng.uniform(rng.keys(0, rng.SENTENCE, 0, torch.arange(rows)), length)
        self.batch = Batch(
            ids=(u * sizes.ids).long(),
            candidates=torch.ones(rows, length, dtype=torch.bool),
            attention=Mask(),
            index=torch.arange(rows),
            step=0,
            seed=0,
            vocabulary=sizes.vocabulary(),
            step_examples=torch.arange(rows),
            step_candidates=torch.full((rows,), length),
        )

    def ours(self) -> float:
        return self.step(self.loss)

    def step(self, objective: Objective) -> float:
        self.denoiser.zero_grad()
        loss = objective(self.denoiser, self.process, self.batch).value
        loss.backward()
        return loss.item()

    def script(self) -> float:
        """The seed's step as spec A.2 and A.3 state it, at our noise levels; its constant subtracted at the end."""
        from torch.nn import functional

        from repro import rng
        from repro.backbones.denoiser import Soft
        from repro.lazy import torch
        from repro.objectives.sym_kl import SymKLScript

        assert isinstance(self.same, SymKLScript)
        self.denoiser.zero_grad()
        batch, noise, floor, count = self.batch, self.same.noise, self.same.floor, self.batch.vocabulary.size
        u = rng.uniform(rng.keys(batch.seed, rng.TIME, batch.step, batch.index)).float()
        t = (noise.low + (noise.high - noise.low) * u)[:, None]
        clean = functional.one_hot(batch.ids, count).float()
        signal = (1 - t)[..., None]
        latent = signal * clean + (1 - signal**2).sqrt() * torch.randn_like(clean)
        soft = (latent / self.same.temperature.tau(batch.step)).softmax(-1)
        features = self.denoiser.encode(Soft(None, soft), t=None, attention=batch.attention)
        logits = self.denoiser.head().logits(features)
        logp = logits.log_softmax(-1)
        forward = functional.kl_div(logp, clean, reduction="none").sum(-1)
        floored = (clean + floor).log()
        wrong = functional.kl_div(floored, logp.exp(), reduction="none", log_target=True).sum(-1)
        scale = t / (count * (1 - t) + t)
        mask = batch.candidates.float()
        loss = (scale * (forward + wrong) * mask).sum() / mask.sum()
        loss.backward()
        constant = (-math.log(floor) * (count - 1) * scale * mask).sum() / mask.sum()
        return (loss - constant).item()

    def agreement(self) -> str:
        """Of the script and `duo_script`: other noise, and float32 sums that hold a constant of 927,794 (spec A.3)."""
        one, other = self.step(self.same), self.script()
        return f"duo_script's loss differs by {abs(one / other - 1):.1e}"


def duo_step(repeats: int) -> Row:
    """Sparse soft tokens against one-hot, Gaussian, softmax and product over the whole vocabulary (spec I.1)."""
    step = DuoStep()
    return interleaved(step.name, step.ours, step.script, 3.0, repeats, step.agreement())


def duo_memory(repeats: int) -> Row:
    """What the same two steps hold at their peak beyond the weights, in MiB; one run of each tells."""
    step = DuoStep()
    agreement = step.agreement()
    ours, script = (peak_bytes(work) / 2**20 for work in (step.ours, step.script))
    return Row(
        f"{step.name}: peak memory beyond the weights, MiB", ours, script, script / ours, 12.0, agreement
    )


def peak_bytes(work: Side) -> int:
    """The most bytes alive at once in tensors that `work` makes; scratch inside an operator is not seen."""
    import weakref

    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    alive: dict[int, int] = {}
    peak = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal peak
            made = func(*args, **(kwargs or {}))
            given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            for tensor in tree_leaves(made):
                if isinstance(tensor, Tensor):
                    storage = tensor.untyped_storage()
                    key = storage._cdata
                    if key not in alive and key not in given:
                        alive[key] = storage.nbytes()
                        weakref.finalize(storage, alive.pop, key)
            peak = max(peak, sum(alive.values()))
            return made

    with Watch():
        work()
    return peak


ROWS = {
    "decode": decoding,
    "masked_head": masked_head,
    "duo_step": duo_step,
    "duo_memory": duo_memory,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("repro.bench", "Speed ratios, side by side (algorithmic, CPU).")
    parser.add_argument("--rows", default="all", help=f"all, or some of {','.join(ROWS)}")
    parser.add_argument("--repeats", type=natural, default=3)
    parser.add_argument("--out", type=Path, help="folder of the JSON files (default: results/bench)")
    args = parser.parse_args(argv)
    names = list(ROWS) if args.rows == "all" else args.rows.split(",")
    for name in names:
        if name not in ROWS:
            raise ValueError(f"no bench row {name!r}; {nearest(name, ROWS)}")
    if args.repeats < 1:
        raise ValueError("--repeats 0 times nothing; give 1 or more")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from rich.console import Console
    from rich.table import Table

    from repro.lazy import torch

    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
    }
    table = Table(title="algorithmic, CPU; seconds unless a row says otherwise", title_justify="left")
    for head in ("row", "ours", "opponent", "ratio", "target", "agreement"):
        table.add_column(head, justify="left" if head in ("row", "agreement") else "right")
    for name in names:
        row = ROWS[name](args.repeats)
        data = {"machine": machine, "rows": [asdict(row)]}
        write_text(
            (args.out or ROOT / "results" / "bench") / f"{name}.json", json.dumps(data, indent=1) + "\n"
        )
        cells = (f"{row.ours:.3f}", f"{row.opponent:.3f}", f"{row.ratio:.2f}x", f"{row.target:.1f}x")
        table.add_row(row.row, *cells, row.agreement)
    Console().print(table)
    return 0


if __name__ == "__main__":
    run(main, "repro.bench")
