"""Python functions as commands: each takes its arguments as JSON texts, and a ValueError is the one line."""

from __future__ import annotations

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
