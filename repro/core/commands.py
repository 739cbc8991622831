"""Names of the commands, with their modules. `repro NAME ARGUMENTS` runs the function `main` of the module of NAME."""

COMMANDS = {
    "doctor": (
        "repro.core.doctor",
        "Say what this machine can do: device, precision, memory, disk, Hub, packages.",
    ),
    "list": (
        "repro.evals.listing",
        "List the names of recipes, samplers, suites, tasks, estimators and so on, each with its paper.",
    ),
    "recipes": (
        "repro.recipes.__main__",
        "Train a recipe by name, print its settings, or estimate what it needs.",
    ),
    "sample": ("repro.sample", "Generate texts with a checkpoint, or watch one being denoised."),
    "evals": ("repro.evals.__main__", "Score a checkpoint across samplers and tokens per step."),
    "lm_harness": (
        "repro.evals.lm_harness",
        "Run lm-eval's own command line on a checkpoint (--model repro).",
    ),
    "engine-check": (
        "repro.evals.engines.command",
        "Compare two engines (OpenAI-compatible servers), or one with our own decoding.",
    ),
    "certify": ("repro.certify.__main__", "Test whether a sampler or a loss is what it claims to be."),
    "checkpoint": ("repro.checkpoint", "Show, inspect, convert, compare or export checkpoints."),
    "results": (
        "repro.results.__main__",
        "Publish and check records, compare two of them, or show all as a page.",
    ),
    "report": ("repro.report", "Write the tables of stored records."),
    "verify": ("repro.verify", "Compare published numbers with stored records."),
}
"""Command -> module whose `main` runs it, and one sentence about it."""
