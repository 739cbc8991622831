"""Command line of lm-eval with the model type "repro" registered (its code is in `repro.evals.lm.adapter`).

    python -m repro.evals.lm_harness run --model repro --include_path my_tasks --tasks my_task \\
        --model_args ckpt=runs/mdlm@nano.text-s0,sampler=low_confidence

lm-eval releases that read the entry point `lm_eval.models` find the model type without this command.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Generator, Sequence
from typing import Any, Literal

from lm_eval.api.registry import register_model
from lm_eval.utils import simple_parse_args_string

from repro.core.cli import run
from repro.core.errors import nearest
from repro.core.lazy import torch
from repro.evals.likelihood.estimator_presets import default
from repro.evals.likelihood.estimator_presets import estimator as named_estimator
from repro.evals.lm.adapter import Adapter, Generation, Policy
from repro.evals.lm.prompts import Overlong
from repro.hub.release import Template
from repro.model import Precision, load
from repro.samplers.plan import cache as named_cache
from repro.samplers.presets import preset

NAMES = {
    "pretrained": "ckpt=DIR, a run folder, a folder of released weights or its name on the Hub",
    "model": "ckpt=DIR, a run folder, a folder of released weights or its name on the Hub",
    "dtype": "precision=float32, bfloat16 or int8",
    "mc_num": "estimator=llada_mc:draws=128",
    "gen_length": "no length: a task's max_gen_toks sets it",
    "remasking": "sampler=low_confidence or sampler=random",
    "cfg": "sampler=PRESET+guided:scale=0.5, and of likelihoods estimator=NAME+guided:scale=0.5",
    "chat_template": "template=own, none, seed or seed_readme",
}
"""Arguments of other lm-eval models (HFLM, LLaDA's harness) -> what the model type "repro" takes instead."""


@register_model("repro")
class Repro(Adapter):
    """A checkpoint as an lm-eval model, created by lm-eval's command line; `--model_args` takes the parameters of
    `__init__`.

    `ckpt`: a run folder, a folder of released weights, its name on the Hub, or oracle:RECIPE@SCALE (exact model of the
    recipe's synthetic language); `weights`: raw, ema (averaged) or auto (ema if there are any); `precision`, `template`
    (chat template; auto: the one that evals/checkpoints.toml lists): for released weights only; `sampler`: a preset,
    without which only likelihood tasks can be run; `tokens_per_step`: tokens decoded per step (default 1), or in its
    place `steps`: number of decoding steps of all blocks together; `block_length`: tokens per block; `cache`: KV cache,
    prefix or dual (default: none); `estimator`: name of the likelihood estimator. `policy`: whether the sampler's
    (suite) or the lm-eval task's (task) generation settings win where they differ; `overlong`: whether a prompt that is
    too long is an error or is truncated on the left; `seed`: of sampling and of the estimator; `batch_size`: largest
    number of rows in one forward; `max_batch_size` is refused; `device`: where the model runs. ValueError for an
    invalid value, and for a sampler or estimator that does not exist.
    """

    def __init__(
        self,
        ckpt: str,
        weights: Literal["auto", "raw", "ema"] = "auto",
        sampler: str | None = None,
        tokens_per_step: float | None = None,
        steps: int | None = None,
        block_length: int | None = None,
        cache: str | None = None,
        precision: Precision = "float32",
        template: Template | Literal["auto"] = "auto",
        estimator: str | None = None,
        policy: Policy = "suite",
        overlong: Overlong = "error",
        seed: int = 0,
        batch_size: int | str = 64,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        settings = {"tokens_per_step": tokens_per_step, "steps": steps, "block_length": block_length}
        for name, value in {**settings, "cache": cache}.items():
            if value is not None and sampler is None:
                raise ValueError(
                    f"{name}={value} is for generated text, which needs a sampler; add sampler=PRESET, or leave"
                    f" {name} out"
                )
            if name != "cache" and value is not None and not (isinstance(value, int | float) and value > 0):
                raise ValueError(f"{name}={value!r} is no positive number; give one in --model_args")
        if steps is not None and tokens_per_step is not None:
            raise ValueError("steps and tokens_per_step both say how many steps are taken; give one of them")
        policy_of_cache = None if cache is None else named_cache(cache)
        model = load(ckpt, weights, precision, template)
        for name, value, valid in (
            ("policy", policy, ("suite", "task")),
            ("overlong", overlong, ("error", "truncate")),
        ):
            if value not in valid:
                raise ValueError(
                    f"{name}={value!r} is not {' or '.join(valid)}; give one of them in --model_args"
                )
        # lm-eval passes cuda:0 by default, also on machines without CUDA
        if device is not None and (not device.startswith("cuda") or torch.cuda.is_available()):
            model.denoiser.to(device)
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ValueError(
                f"batch_size={batch_size!r} is not a positive integer; give one, for example 64 (results do not depend"
                " on it)"
            )
        if max_batch_size is not None:
            raise ValueError(f"max_batch_size={max_batch_size!r} has no effect with this model; leave it out")
        rule = named_estimator(default(model.recipe.process) if estimator is None else estimator)
        made = None
        if sampler is not None:
            rate = 1.0 if tokens_per_step is None else tokens_per_step
            made = Generation(preset(sampler), None, rate, policy, block_length, steps, policy_of_cache)
        super().__init__(model, rule, made, overlong, seed, int(batch_size))

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> Repro:
        """The model that the text of --model_args, `NAME=VALUE,...`, describes; `additional_config`: further arguments
        from lm-eval, such as the device. ValueError for an unknown name."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict | None = None) -> Repro:
        """The model that a dict of model_args, name -> value, describes; `additional_config`: further arguments from
        lm-eval, such as the device. ValueError for an unknown name."""
        valid = list(inspect.signature(cls).parameters)
        for name in arg_dict:
            if name in NAMES:
                raise ValueError(f"no model_arg {name!r}; this model takes {NAMES[name]}")
            if name not in valid:
                raise ValueError(f"no model_arg {name!r}; {nearest(name, valid)}")
        if "ckpt" not in arg_dict:
            raise ValueError(
                "no checkpoint given: pass --model_args ckpt=DIR (or ckpt=oracle:RECIPE@SCALE, the exact model of a"
                " synthetic corpus)"
            )
        given = {name: value for name, value in (additional_config or {}).items() if value is not None}
        return cls(**arg_dict, **given)


def main(argv: Sequence[str] | None = None) -> int:
    """Run lm-eval's command line with the arguments `argv` (None: those of the process), in which `--model repro` names
    a checkpoint of this suite; returns the exit status."""
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    setup_logging()
    with _arguments(argv):
        parser = HarnessCLI()
        parser.execute(parser.parse_args())
    return 0


@contextlib.contextmanager
def _arguments(argv: Sequence[str] | None) -> Generator[None]:
    """Context in which sys.argv has the arguments `argv`; lm-eval reads its arguments only from there."""
    before = sys.argv
    sys.argv = before if argv is None else [before[0], *argv]
    try:
        yield
    finally:
        sys.argv = before


if __name__ == "__main__":
    run(main, "repro.evals.lm_harness")
