"""Sampling, for a notebook and for a terminal.

    python -m repro.sample --ckpt runs/llada@nano.sudoku-s0 --prompt ".3122....23.34..=" --watch
    python -m repro.sample --ckpt oracle:mdlm@nano --n 4 --sampler ancestral
    >>> sample(load("runs/mdlm@nano-s0"), n=4)

`--watch` shows the denoising as it happens: committed tokens appear in place, undecided ones as dots. Off a terminal
it prints one line a step.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from repro.command import Parser, natural, run
from repro.models import Model, load
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight
from repro.samplers.decode import decode, steps
from repro.samplers.plan import Plan, plan_for
from repro.samplers.presets import preset

if TYPE_CHECKING:
    from torch import Tensor


def default_preset(model: Model, prompted: bool) -> str:
    """The preset that a person means who names none: the best answer to a prompt, else draws from the model's law."""
    process = model.recipe.process
    if isinstance(process, LeftToRight):
        return "greedy" if prompted else "sample"
    return "low_confidence" if prompted and isinstance(process, Absorbing) else "ancestral"


def sample(
    model: Model,
    prompts: Sequence[str] | None = None,
    n: int = 1,
    sampler: str | None = None,
    gen_length: int | None = None,
    block_length: int | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> list[str]:
    """Texts that continue `prompts` (or `n` from nothing); `sampler`: a preset, as "low_confidence:temperature=1.0".

    Raises ValueError when preset, process, plan or prompt do not fit.
    """
    ids = _prompts(model, prompts, n)
    rule = preset(sampler or default_preset(model, prompts is not None))
    length = _length(model, ids, gen_length)
    plan = plan_for(rule, length, block_length, steps)
    process, names = model.recipe.process, range(len(ids))
    decoded = decode(model.denoiser, process, rule, plan, ids, seed=seed, names=names)
    return [model.data.decode(row) for row in decoded.ids.tolist()]


def _prompts(model: Model, prompts: Sequence[str] | None, n: int) -> list[list[int]]:
    if prompts is None:
        return [[] for _ in range(n)]
    return [model.data.prompt(text) for text in prompts]


def _length(model: Model, ids: list[list[int]], asked: int | None) -> int:
    longest, room = max(map(len, ids)), model.data.row_length()
    if longest >= room:
        raise ValueError(
            f"a prompt of {longest} ids leaves nothing to write: this model has {room} positions"
        )
    length = room - longest if asked is None else asked
    if not 1 <= length <= room - longest:
        raise ValueError(f"no gen_length {length}: after a prompt of {longest} it is 1 to {room - longest}")
    return length


def watch(model: Model, prompt: str | None, sampler: str, plan: Plan, seed: int, delay: float) -> str:
    """Show one decode step by step on the terminal; returns the text."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    ids = _prompts(model, None if prompt is None else [prompt], 1)
    shown = ""
    frames = steps(model.denoiser, model.recipe.process, preset(sampler), plan, ids, seed=seed, names=[0])
    with Live(console=console, auto_refresh=False, transient=False) as live:
        for decoder, frame in frames:
            row, fresh = frame.ids[0, decoder.start :], frame.changed[0, decoder.start :]
            shown = _text(model, row)
            if not console.is_terminal:
                console.print(shown, highlight=False, markup=False)
                continue
            line = Text()
            for token, new in zip(row.tolist(), fresh.tolist(), strict=True):
                line.append(_symbol(model, token), style="bold green" if new else "default")
            line.append(f"\n{int(frame.ledger.forwards[0])} forwards", style="dim")
            live.update(line, refresh=True)
            time.sleep(delay)
    return shown


def _symbol(model: Model, token: int) -> str:
    return "·" if token == model.data.vocabulary().mask else model.data.decode([token])


def _text(model: Model, row: Tensor) -> str:
    return "".join(_symbol(model, token) for token in row.tolist())


class _Callable(ModuleType):
    """`repro.sample` is a command (`python -m repro.sample`) and a function (`from repro import sample`): importing the
    module hides the function of the same name in the package, so the module answers calls itself."""

    def __call__(self, *arguments, **named):
        return sample(*arguments, **named)


sys.modules[__name__].__class__ = _Callable


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("repro.sample", "Sample from a checkpoint.")
    parser.add_argument("--ckpt", required=True, help="checkpoint folder, or oracle:RECIPE@SCALE")
    parser.add_argument("--weights", choices=["auto", "raw", "ema"], default="auto")
    parser.add_argument("--prompt", help="text to continue")
    parser.add_argument("--n", type=natural, default=1, help="samples (without --watch)")
    parser.add_argument("--sampler", metavar="PRESET", help="preset, or PRESET:field=value")
    parser.add_argument("--gen-length", type=natural)
    parser.add_argument("--block-length", type=natural)
    parser.add_argument("--steps", type=natural)
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--watch", action="store_true", help="show the denoising as it happens")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds between frames of --watch")
    args = parser.parse_args(argv)
    if args.n < 1:
        raise ValueError("--n 0 samples nothing; give 1 or more")
    if args.watch and args.n > 1:
        raise ValueError(f"--watch shows one sample; leave out --n {args.n}")
    rule = preset(args.sampler) if args.sampler else None  # before the slow part
    model = load(Path(args.ckpt) if not args.ckpt.startswith("oracle:") else args.ckpt, args.weights)
    name = args.sampler or default_preset(model, args.prompt is not None)
    prompts = None if args.prompt is None else [args.prompt] * args.n
    if args.watch:
        ids = _prompts(model, None if args.prompt is None else [args.prompt], 1)
        length = _length(model, ids, args.gen_length)
        plan = plan_for(rule or preset(name), length, args.block_length, args.steps)
        watch(model, args.prompt, name, plan, args.seed, args.delay)
        return 0
    options = (args.n, name, args.gen_length, args.block_length, args.steps, args.seed)
    for text in sample(model, prompts, *options):
        sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    run(main, "repro.sample")
