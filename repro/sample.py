"""Sample texts from a checkpoint, in a notebook or on the command line.

    python -m repro.sample --ckpt runs/llada@nano.sudoku-s0 --prompt ".3122....23.34..=" --watch
    python -m repro.sample --ckpt oracle:mdlm@nano --n 4 --sampler ancestral
    >>> sample(load("runs/mdlm@nano-s0"), n=4)

`--watch` shows the text in the terminal while it is denoised (repro.samplers.watch); `--trace FILE` writes the tokens
of every step to a JSON file (repro.samplers.trace).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from repro.core import parts, rng
from repro.core.arguments import checked
from repro.core.cli import Parser, add_chat_template, add_weights, natural, run
from repro.core.files import write_text
from repro.evals.cli import DEVICE, LISTED, Listing
from repro.evals.lm.prompts import encode_prompt
from repro.model import Model, load
from repro.samplers.decode import decode
from repro.samplers.decode import steps as steps_of
from repro.samplers.plan import Plan, ServedPlan, check, plan_for
from repro.samplers.plan import cache as named_cache
from repro.samplers.presets import default_preset, preset
from repro.samplers.stream import Stream
from repro.samplers.trace import Trace

if TYPE_CHECKING:
    from repro.samplers.decoded import Frame
    from repro.samplers.decoder import Decoder
    from repro.samplers.sampler import Sampler
    from repro.samplers.watch import Watch


LONGEST_DELAY = 3600
"""Longest `--delay` in seconds; far longer ones are beyond what a system's clock can wait."""


@checked
def sample(
    model: Model | str | Path,
    prompts: str | Sequence[str] | None = None,
    n: int = 1,
    sampler: str | None = None,
    gen_length: int | None = None,
    block_length: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    cache: str | None = None,
) -> list[str]:
    """Generated texts: `n` continuations of each of `prompts` (a string is one prompt), prompt by prompt, or `n` texts
    without a prompt.

    `model`: a loaded model, or a folder or name for `load`; `sampler`: a preset such as
    "low_confidence:temperature=1.0" (default: by the model's noise, `repro.samplers.presets.default_preset`);
    `gen_length`: tokens to generate (default: as many as the model has room for, in whole blocks if the network
    requires a block length), in blocks of `block_length` (default: one block, or what the network requires); `steps`:
    decoding steps over all blocks (default: one per token); `seed`: random seed; `cache`: "prefix", "dual" or
    "dual:refresh=4", an approximate KV cache (default: none).
    Raises ValueError if the sampler is not for the model's noise process, if lengths, steps and cache cannot be
    combined, or if a prompt is too long or cannot be encoded.
    """
    model = model if isinstance(model, Model) else load(model)
    rng.check_seeds(seed)
    given = [prompts] if isinstance(prompts, str) else prompts
    name = sampler or default_preset(model.recipe.process.noise, prompts is not None)
    options = (n, name, gen_length, block_length, steps, seed, cache)
    return [each["text"] for each in _samples(model, given, *options)]


def _samples(
    model: Model,
    prompts: Sequence[str] | None,
    n: int,
    sampler: str,
    gen_length: int | None,
    block_length: int | None,
    steps: int | None,
    seed: int,
    cache: str | None,
) -> list[dict[str, Any]]:
    """One JSON object per generated text, in the order of `sample` and with its arguments: prompt, text, ids, number of
    forward passes, and checkpoint, sampler, seed and plan (lengths, steps and cache)."""
    ids = _prompts(model, prompts, n)
    rule = preset(sampler)
    plan = _plan(model, rule, ids, gen_length, block_length, steps, cache)
    process, names = model.recipe.process, range(len(ids))
    decoded = decode(model.denoiser, process, rule, plan, ids, seed=seed, names=names)
    made = {"checkpoint": model.recipe.name, "digest": model.digest, "sampler": sampler, "seed": seed}
    made["plan"] = parts.canonical(plan)
    return [
        {
            "name": name,
            "prompt": None if prompts is None else prompts[name // n],
            "text": text_of(model, row),
            "ids": model.before_stop(row),
            "forwards": int(decoded.cost.forwards[name]),
            **made,
        }
        for name, row in enumerate(decoded.ids.tolist())
    ]


@checked
def stream(
    model: Model | str | Path,
    prompt: str | None = None,
    sampler: str | None = None,
    gen_length: int | None = None,
    block_length: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    cache: str | None = None,
) -> Stream:
    """The decoding of one text step by step, from `prompt` or without a prompt; a step is computed when it is read.

    Iterate over the `Stream` for ids, text and confidence after each step (`repro.samplers.stream.StreamStep`); in a
    notebook, the `Stream` shows all steps. The last text is that of `sample` with the same arguments, but not cut at
    the first id that ends a text.

    `model`: a loaded model, or a folder or name for `load`; `sampler`: a preset; `gen_length`: tokens to generate, in
    blocks of `block_length` tokens and `steps` steps over all blocks; `seed`: random seed; `cache`: an approximate KV
    cache. Values, defaults and errors are those of `sample`.
    """
    model = model if isinstance(model, Model) else load(model)
    rng.check_seeds(seed)
    ids = _prompts(model, None if prompt is None else [prompt], 1)
    rule = preset(sampler or default_preset(model.recipe.process.noise, prompt is not None))
    plan = _plan(model, rule, ids, gen_length, block_length, steps, cache)
    check(rule, model.recipe.process, plan)
    return Stream(model.data, _frames(model, rule, plan, ids, seed))


def _frames(
    model: Model, rule: Sampler, plan: Plan, ids: list[list[int]], seed: int
) -> Iterator[tuple[Decoder, Frame]]:
    return steps_of(
        model.denoiser, model.recipe.process, rule, plan, ids, seed=seed, names=[0], confidence=True
    )


def text_of(model: Model, ids: Sequence[int]) -> str:
    """The text of the generated token ids `ids`; for released weights only the text before EOS or the end of a turn."""
    return model.data.text(model.before_stop(ids) if model.stop_ids else ids)


def _plan(
    model: Model,
    rule: Sampler,
    ids: list[list[int]],
    gen_length: int | None,
    block_length: int | None,
    steps: int | None,
    cache: str | None,
) -> Plan:
    kv_cache = None if cache is None else named_cache(cache)
    length = _gen_length(model, ids, gen_length)
    block = model.denoiser.required_block_size if block_length is None else block_length
    plan = plan_for(rule, length, block, steps, kv_cache)
    if not model.stop_ids:
        return plan
    pins = {"gen_length": plan.gen_length, "block_length": plan.block_length, "steps": plan.steps}
    return ServedPlan(**pins, cache=kv_cache, stop=model.stop_ids)


def _prompts(model: Model, prompts: Sequence[str] | None, n: int) -> list[list[int]]:
    if n < 1 or (prompts is not None and not prompts):
        raise ValueError(
            f"n={n}, prompts={prompts}: nothing to generate; give n of 1 or more, and a prompt or more, or prompts=None"
        )
    if prompts is None:
        return [[] for _ in range(n)]
    added = model.recipe.process.causal and model.data.vocabulary().bos_rule == "row"
    return [ids for text in prompts for ids in [encode_prompt(model, text, "chat")[added:]] * n]


def _gen_length(model: Model, ids: list[list[int]], wanted: int | None) -> int:
    longest, room = max(map(len, ids)), model.data.row_length()
    if longest >= room:
        raise ValueError(
            f"a prompt of {longest} ids leaves no room to generate: this model has {room} positions; shorten the prompt"
        )
    block = model.denoiser.required_block_size or 1
    if wanted is None and room - longest < block:
        raise ValueError(
            f"a prompt of {longest} ids leaves no room for a block of {block} tokens: this model has {room} positions;"
            " shorten the prompt"
        )
    length = (room - longest) // block * block if wanted is None else wanted
    if not 1 <= length <= room - longest:
        raise ValueError(
            f"gen_length={length}: after a prompt of {longest} ids this model, of {room} positions, has room for"
            f" {room - longest}; give 1 to {room - longest}"
        )
    return length


def follow(
    model: Model,
    prompt: str | None,
    sampler: Sampler,
    plan: Plan,
    seed: int,
    watch: Watch | None,
) -> Trace:
    """Decode one text by `sampler`, from `prompt` or (None) without a prompt, and return its trace: which token was
    written at which step.

    `plan`: lengths, steps and cache; `watch`: live display that is updated after each step (None: no display).
    """
    trace = Trace(model.data)
    ids = _prompts(model, None if prompt is None else [prompt], 1)
    for decoder, frame in _frames(model, sampler, plan, ids, seed):
        step = trace.add(decoder, frame)
        if watch is not None:
            watch.show(trace, step)
    return trace


class _Callable(ModuleType):
    """Module class that makes `repro.sample` callable like its function `sample`.

    `repro.sample` is a command (`python -m repro.sample`) and a function (`from repro import sample`); importing the
    module replaces the function of the same name in the package.
    """

    def __call__(self, *arguments, **named):
        return sample(*arguments, **named)


sys.modules[__name__].__class__ = _Callable


def _seconds(text: str) -> float:
    """The number of seconds, from 0 to an hour, that `text` denotes, for argparse's `type`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= LONGEST_DELAY:
        raise argparse.ArgumentTypeError(f"{text!r} is no delay; give seconds from 0 to {LONGEST_DELAY}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        "python -m repro.sample",
        "Generate texts with a checkpoint and print them.",
        [
            "python -m repro.sample --ckpt oracle:mdlm@nano --n 4 --sampler ancestral",
            "python -m repro.sample --ckpt runs/mdlm@nano.text-s0 --n 100 --out samples.jsonl",
            'python -m repro.sample --ckpt runs/llada@nano.sudoku-s0 --prompt ".3122....23.34..=" --watch',
        ],
    )
    parser.add_argument(
        "--ckpt",
        required=True,
        help="checkpoint folder, Hub name, RECIPE@SCALE (its run in runs/), or oracle:RECIPE@SCALE (exact model of its"
        " synthetic language)",
    )
    add_weights(parser)
    add_chat_template(parser)
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "int8"],
        default="float32",
        help="precision of released weights; int8 quantises the layers (extra: quantise)",
    )
    parser.add_argument("--device", help=DEVICE)
    parser.add_argument("--prompt", help="text to continue")
    parser.add_argument("--n", type=natural, default=1, help="number of texts (1 with --watch or --trace)")
    parser.add_argument(
        "--sampler",
        action=Listing,
        kinds=LISTED["--samplers"],
        metavar="PRESET",
        help="PRESET or PRESET:field=value (default: depends on noise and prompt); list: print all",
    )
    parser.add_argument(
        "--gen-length", type=natural, help="tokens to generate (default: all that the model has room for)"
    )
    parser.add_argument("--block-length", type=natural, help="tokens per block (default: one block)")
    parser.add_argument("--steps", type=natural, help="steps over all blocks (default: one per token)")
    parser.add_argument(
        "--cache",
        help="approximate KV cache: prefix or dual; dual:refresh=4 recomputes it every 4 forward passes",
    )
    parser.add_argument("--seed", type=natural, default=0, help="seed of the random draws")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object a text: prompt, text, ids, forwards, settings",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.jsonl",
        help="write these objects to a file, which `python -m repro.evals judge FILE.jsonl` scores",
    )
    parser.add_argument(
        "--watch", action="store_true", help="show the text in the terminal while it is denoised"
    )
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="write the tokens of every step to this JSON file"
    )
    parser.add_argument(
        "--delay", type=_seconds, default=0.05, help="seconds to wait after each step of --watch"
    )
    args = parser.parse_args(argv)
    if args.n < 1:
        raise ValueError("--n 0 generates nothing; give --n 1 or more")
    if (args.json or args.out) and (args.watch or args.trace):
        raise ValueError(
            "--json and --out write finished texts, --watch and --trace the steps of a text; leave out either pair"
        )
    if args.n > 1 and (args.watch or args.trace):
        raise ValueError(f"--watch and --trace show a single text; leave out --n {args.n}")
    # wrong names are errors before the weights are loaded
    if args.sampler:
        preset(args.sampler)
    if args.cache is not None:
        named_cache(args.cache)
    model = load(args.ckpt, args.weights, args.precision, args.chat_template, args.device)
    name = args.sampler or default_preset(model.recipe.process.noise, args.prompt is not None)
    prompts = None if args.prompt is None else [args.prompt]
    if not (args.watch or args.trace):
        options = (args.n, name, args.gen_length, args.block_length, args.steps, args.seed, args.cache)
        _write(_samples(model, prompts, *options), args.json, args.out)
        return 0
    rule = preset(name)
    ids = _prompts(model, prompts, 1)
    plan = _plan(model, rule, ids, args.gen_length, args.block_length, args.steps, args.cache)
    if args.watch:
        from repro.samplers.watch import Watch

        with Watch(model.data, plan, args.delay) as watch:
            trace = follow(model, args.prompt, rule, plan, args.seed, watch)
    else:
        trace = follow(model, args.prompt, rule, plan, args.seed, None)
        sys.stdout.write(text_of(model, trace.row) + "\n")
    if args.trace:
        made_by = {"checkpoint": model.digest, "recipe": model.recipe.name}
        found = trace.json(made_by, rule, plan, args.seed, args.prompt)
        write_text(args.trace, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return 0


def _write(samples: list[dict[str, Any]], as_json: bool, out: Path | None) -> None:
    """Print texts, or with `as_json` JSON objects, one a line; with `out` write the objects to this file. If there are
    several texts and any has several lines, each text begins below a line with its number."""
    lines = [json.dumps(each, ensure_ascii=False) for each in samples]
    if out is not None:
        write_text(out, "\n".join([*lines, ""]))
        print(f"{len(samples)} samples in {out}; score them: python -m repro.evals judge {out} --judge CKPT")
        return
    texts = [each["text"] for each in samples]
    if len(texts) > 1 and any("\n" in text for text in texts):
        texts = [f"--- {i} of {len(texts)} ---\n{text}" for i, text in enumerate(texts, start=1)]
    for line in lines if as_json else texts:
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    run(main, "repro.sample")
