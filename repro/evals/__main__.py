"""Command line: score a checkpoint on a suite of tasks, with every sampler that fits it and several numbers of tokens
per step. Prints one table and stores records beside the checkpoint.

python -m repro.evals --ckpt runs/mdlm@nano-s0 --samplers all
python -m repro.evals --ckpt oracle:mdlm@nano --samplers ancestral,random --tokens-per-step 1,2,4
python -m repro.evals --ckpt runs/mdlm@nano.text-s0 --corpus FILE.txt
accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.evals --ckpt DIR     # processes share the work
python -m repro.evals --suite flagship --max-hours 6    # a suite group; the same command continues
python -m repro.evals list samplers                     # or processors, suites, tasks, protocols, estimators
python -m repro.evals plan --device h100 --ckpt GSAI-ML/LLaDA-8B-Instruct --suite fast_dllm
python -m repro.evals cells duo.t5.mdlm                 # the evaluations that reproduce these published numbers
python -m repro.evals judge FILE.jsonl --judge runs/ar@nano.text-s0 --rule every_token:length=64
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from repro.core.cli import run
from repro.core.errors import Usage, nearest
from repro.evals.commands import COMMANDS, score


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that the first argument names (list, plan, cells or judge); without one, score a checkpoint.

    Returns the exit status. Raises Usage (a ValueError) for a subcommand that does not exist.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0].startswith("-"):
        return score(words)
    if words[0] not in COMMANDS:
        raise Usage(f"no command {words[0]!r}; {nearest(words[0], COMMANDS)}")
    return COMMANDS[words[0]](words[1:])


if __name__ == "__main__":
    run(main, "repro.evals")
