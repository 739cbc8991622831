"""Python functions as commands: each takes its arguments as JSON texts, and a ValueError is the one line."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def _arguments(argv: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    return json.loads(argv[0]), json.loads(argv[1])


def load(argv: Sequence[str]) -> int:
    from repro import load

    given, named = _arguments(argv)
    load(*given, **named)
    return 0


def sample(argv: Sequence[str]) -> int:
    from repro import load, sample

    given, named = _arguments(argv)
    print(sample(load(*given), **named))
    return 0


def score(argv: Sequence[str]) -> int:
    from repro import load, score

    given, named = _arguments(argv)
    score(load(*given), **named)
    return 0


def read(argv: Sequence[str]) -> int:
    """Read a file by one of the package's readers."""
    from repro.evals import suites
    from repro.evals.perplexity import catalogue as corpora
    from repro.evals.published import suite_group
    from repro.hub import catalogue
    from repro.results import reproduction

    kind, path = argv[0], Path(argv[1])
    if kind == "checkpoints":
        catalogue.read(path)
    elif kind == "corpora":
        corpora.read_catalogue(path)
    elif kind == "reproduction":
        reproduction.cells(path)
    elif kind == "suite":
        suites.SUITES = path.parent
        suites.read_suite(path.stem)
    elif kind == "group":
        suites.SUITES = path.parent
        suite_group.read_suite_group(path.stem)
    return 0


def engine(argv: Sequence[str]) -> int:
    """Run a command about a server, PROGRAM ARGUMENTS, while the server of this folder runs (`fuzz.servers`)."""
    from fuzz import servers
    from fuzz.machine import main_of

    from repro.evals.engines import command
    from repro.evals.engines.http import Limits

    limits = command._limits

    def hasty(args: Any) -> Limits:  # tries again at once, so that a case is quick
        return dataclasses.replace(limits(args), wait=0.001, longest_wait=0.01)

    command._limits = hasty
    program, *arguments = argv
    with servers.Server(Path()) as url:
        return main_of(program)[0]([word.replace(servers.URL, url) for word in arguments])


def canvas(argv: Sequence[str]) -> int:
    """Decode with a denoiser behind the server of this folder."""
    from fuzz import servers
    from helpers import lm_worlds

    from repro import sample
    from repro.evals.engines.canvas import remote
    from repro.evals.engines.http import Limits
    from repro.processes.prediction import Role

    with servers.Server(Path()) as url:
        limits = Limits(timeout=2.0, wait=0.001, longest_wait=0.01)
        like = lm_worlds.diffusion()
        role = Role(like.data, like.recipe.process.forbidden(like.data.vocabulary()), "x0_mean")
        like.recipe.role = lambda: role
        model = remote(like, url, None, top=5, most_tail=0.05, limits=limits)
        print(sample(model, sampler="random", gen_length=4, steps=2, n=1))
    return 0


def launch(argv: Sequence[str]) -> int:
    """Read a launch file as `accelerate launch` does, and print the engine that its variables request."""
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import launch as launchers

    from repro.core.reading import foreign
    from repro.training.engines.launcher import requested_engine

    parser = launch_command_parser()
    with foreign(Path(argv[0]), "launch file of accelerate"):
        given = ["--config_file", argv[0], "-m", "repro.recipes.mdlm"]
        args = _validate_launch_command(parser.parse_args(given))[0]
        args.deepspeed_fields_from_accelerate_config = []
        several = args.multi_gpu or args.use_fsdp
        if args.use_deepspeed:
            found = launchers.prepare_deepspeed_cmd_env(args)[1]
        elif several:
            found = launchers.prepare_multi_gpu_env(args)
        else:
            found = launchers.prepare_simple_launcher_cmd_env(args)[1]
    os.environ.update(found)
    os.environ["WORLD_SIZE"] = "8" if several or args.use_deepspeed else "1"
    engine = requested_engine().__name__
    print(engine, FullyShardedDataParallelPlugin().reshard_after_forward if engine == "Fsdp2" else "")
    return 0
