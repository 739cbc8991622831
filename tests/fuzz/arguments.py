"""Cases of arguments: every flag of every command with wrong values, every setting of every part, wrong environments,
and the arguments of the Python functions."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

from fuzz.machine import Case, main_of
from fuzz.worlds import toy_pins

from repro.core import parts
from repro.core.cli import Parser
from repro.recipes.scale import by_name

SIZE = ("--gen-length", "4", "--steps", "2")
ORACLE = "oracle:mdlm@nano"
COMMANDS: dict[str, tuple[str, ...]] = {
    "repro.sample": ("--ckpt", ORACLE, *SIZE),
    "repro.evals": (
        "--ckpt",
        ORACLE,
        "--tasks",
        "law",
        "--samplers",
        "ancestral",
        "--samples",
        "20",
        "--tokens-per-step",
        "all",
    ),
    "repro.evals plan": ("--ckpt", ORACLE, "--tasks", "law", "--samplers", "ancestral"),
    "repro.evals cells": ("duo.t5.mdlm.1024", "--plan"),
    "repro.evals list": ("samplers",),
    "repro.evals judge": ("samples.jsonl", "--judge", "judge", "--rule", "duo:length=40,chunk=40"),
    "repro.report": ("--raw", "raw", "--out", "tables"),
    "repro.verify": ("raw",),
    "repro.results check": ("raw",),
    "repro.results explain": ("a", "b", "--raw", "raw"),
    "repro.results export": ("--every-eval-ever", "--raw", "raw", "--out", "exported"),
    "repro.results factors": ("out",),
    "repro.results page": ("--raw", "raw", "--certificates", "certificates", "--out", "page"),
    "repro.results flips": ("a.jsonl", "b.jsonl"),
    "repro.results publish": ("raw",),
    "repro.checkpoint show": ("run",),
    "repro.checkpoint inspect": ("weights",),
    "repro.checkpoint diff": ("run", "run"),
    "repro.checkpoint export": ("run", "--hf", "hf"),
    "repro.checkpoint convert": ("pickled/last.ckpt", "--out", "out"),
    "repro.checkpoint parity": ("weights", "--fixture", "fixture"),
    "repro.certify": ("--presets", "greedy", "--out", "out"),
    "repro.certify losses.py:masked_exact": ("--quiet",),
    "repro.evals engine-check": ("weights", "weights", "--length", "2", "--draws", "0"),
    "python:engine repro.evals --engine": ("openai:URL", "--tasks", "writing.yaml", "--limit", "1"),
    "python:engine repro.evals engine-check": ("openai:URL", "openai:URL", "--length", "2", "--draws", "0"),
    "benchmarks": ("--rows", "none"),
    "repro.recipes.mdlm": ("--plan",),
    "repro.recipes.duo": ("--scale", "nano", "--print"),
    "repro.recipes.ar": ("--plan", "--engine", "ddp", "--gpus", "1"),
    "repro.recipes.llada": ("--scale", "nano", "--plan"),
}
"""Command -> arguments with which it succeeds soon, or fails because the file is not there; no row of `benchmarks` is
soon measured, so that only its arguments are read."""
WORLD = {
    **{"repro.report": "records", "repro.verify": "records", "repro.certify": "functions"},
    "repro.certify losses.py:masked_exact": "functions",
    **{f"repro.results {name}": "records" for name in ("check", "explain", "export", "flips", "publish")},
    **{f"repro.checkpoint {name}": "mdlm_run" for name in ("show", "diff", "export")},
    **{
        "repro.checkpoint inspect": "duo",
        "repro.checkpoint convert": "pickled",
        "repro.checkpoint parity": "parity",
    },
    "repro.evals judge": "judge",
    "repro.evals engine-check": "llama",
    "python:engine repro.evals --engine": "engine",
    "python:engine repro.evals engine-check": "engine",
    "repro.results factors": "crossed",
    "repro.results page": "page",
    "benchmarks": "checkouts",
}
TEXTS = (
    *("", " ", "-1", "0", "1.5", "nan", "inf", "-inf", "1e400", "0x10", "1_0", "99999999999999999999", "zzz", "../.."),
    *("/", "/dev/zero", "/dev/null", "/proc/self/mem", "a" * 5000, "é\u202e", "[1]", '{"a": 1}', "null", "true", ","),
    *(";", ":", "=", "a:b=c", "x=1", "\x1b[31m", "@", "a@b", "~", "*", "%s", "{}", "\n", "--", "-"),
)  # fmt: skip
NUMBER = re.compile(r"\d{1,12}")
"""Texts that a flag of a whole number may take."""
WRITTEN = {"--out", "--hf", "--trace", "--csv", "--json"}
"""Flags that name what is written: a case must not write outside of its folder."""
OTHERWISE = (
    "export",
    "would share a row",
    "no packing or perplexity protocol",
    "Input/output error",
    "no bench row",
    "has no 'step'",
)
"""Parts of messages about what a value does to another flag, or about the file that it leads to."""
OUTSIDE = ("../..", "/", "/dev/zero", "/dev/null", "/proc/self/mem", "~")


def cases() -> list[Case]:
    return [*_flags(), *_words(), *_settings(), *_presets(), *_tasks(), *_environment(), *_python()]


class _Caught(Exception):
    def __init__(self, parser: Parser) -> None:
        self.parser = parser


def parser(program: str, words: list[str]) -> Parser:
    """The argument parser that a command uses."""

    def caught(self: Parser, args: Any = None, namespace: Any = None) -> Any:
        raise _Caught(self)

    plain = Parser.parse_args
    from repro.evals.cli import _Parser

    if program.startswith("python:"):
        program, *words = words

    inner = _Parser.parse_args
    Parser.parse_args, _Parser.parse_args = caught, caught  # type: ignore[method-assign]
    try:
        main_of(program)[0](words)
    except _Caught as found:
        return found.parser
    finally:
        Parser.parse_args, _Parser.parse_args = plain, inner  # type: ignore[method-assign]
    raise AssertionError(f"{program} reads no arguments")


def _flags() -> Iterator[Case]:
    """Every flag of every command with each of `TEXTS`, twice, and without a value."""
    for command, words in COMMANDS.items():
        program, *sub = command.split()
        world = WORLD.get(command, "")
        area = f"flags of {command.removeprefix('python:engine ').split()[0]}"
        flags = [
            a for a in parser(program, [*sub, *words])._options() if a.option_strings and a.dest != "help"
        ]
        for flag in dict.fromkeys(action.option_strings[0] for action in flags):
            action = next(a for a in flags if a.option_strings[0] == flag)
            kept = _without(words, flag)
            argv = (program, *sub, *kept)
            yield Case(
                area,
                f"{command} {flag} twice",
                world,
                (*argv, flag, "1", flag, "1"),
                (flag, "'1'", *OTHERWISE),
            )
            yield Case(area, f"{command} {flag} misspelt", world, (*argv, f"{flag}x", "1"), (flag,))
            if action.nargs == 0:
                yield Case(area, f"{command} {flag}=1", world, (*argv, f"{flag}=1"), (flag,))
                continue
            for text in TEXTS:
                if flag in WRITTEN and text in OUTSIDE:
                    continue
                shown = text[:20]
                named = (flag, flag.strip("-"), shown.strip() or flag, *_tokens(text), *OTHERWISE)
                yield Case(
                    area, f"{command} {flag} {shown!r}", world, (*argv, f"{flag}={text}"), named,
                    valid=True, writes=("*",),
                )  # fmt: skip


def _tokens(text: str) -> tuple[str, ...]:
    """Parts of a value by which a message may name it."""
    parts = [each for each in re.split(r"[,;:=]", text) if each]
    return (*(each for each in parts if len(each) > 1), *map(repr, parts), repr(text), json.dumps(text))


def _without(words: tuple[str, ...], flag: str) -> tuple[str, ...]:
    if flag not in words:
        return words
    at = words.index(flag)
    more = at + 1 < len(words) and not words[at + 1].startswith("--")
    return (*words[:at], *words[at + 1 + more :])


def _words() -> Iterator[Case]:
    """Positional arguments and subcommands that do not exist."""
    for command in COMMANDS:
        program, *sub = command.split()
        for text in TEXTS:
            if text.startswith("-"):
                continue
            named = (text[:20].strip() or "argument", *_tokens(text), "give", "checkpoint", "no ", "required")
            yield Case(
                "words",
                f"{command} {text[:20]!r}",
                WORLD.get(command, ""),
                (program, *sub, text),
                named,
                valid=True,
                writes=("*",),
            )


SETTINGS = (
    "null",
    "true",
    "-1",
    "0",
    "1.5",
    "1e30",
    "1e400",
    "NaN",
    '"zzz"',
    "zzz",
    "[]",
    "{}",
    '{"part": "zzz"}',
    "",
    "[[[[1]]]]",
)


def _settings() -> Iterator[Case]:
    """Every setting of a recipe with wrong values, planned and printed."""
    from repro.recipes.command import select

    for name in ("mdlm", "duo", "llada", "ar", "duo_owt_distilled"):
        recipe = select(by_name(name), "nano", [])
        for pin in parts.leaves(recipe):
            for value in SETTINGS:
                argv = (f"repro.recipes.{name}", "--scale", "nano", "--plan", "--set", f"{pin}={value}")
                yield Case(
                    "settings",
                    f"{name} {pin}={value}",
                    "",
                    argv,
                    (pin, pin.rpartition(".")[2], value),
                    valid=True,
                )


def _presets() -> Iterator[Case]:
    """Every setting of every sampler preset with wrong values."""
    from repro.samplers.presets import PRESETS, preset

    for name in PRESETS:
        rule = preset(name)
        fits = rule.capabilities.processes
        recipe = "mdlm" if "absorbing" in fits else "duo" if "uniform" in fits else "ar"
        fitting = f"oracle:{recipe}@nano"
        fields = [f.name for f in dataclasses.fields(rule)] if dataclasses.is_dataclass(rule) else []
        for field in fields:
            for value in ("-1", "0", "1.5", "NaN", "zzz", "[]", "null", "true", "1e30"):
                text = f"{name}:{field}={value}"
                argv = ("repro.sample", "--ckpt", fitting, "--gen-length", "4", "--sampler", text)
                yield Case("presets", text, "", argv, (field, value, name), valid=True)


REQUESTS = (
    *("law:samples=-1", "law:samples=1e9,name=x", "law:", "law:x", "a,b", "law,law", "0", "-1", "nan"),
    *(
        "dual:refresh=0",
        "dual:refresh=x",
        "prefix:x=1",
        "levels:n=0",
        "subsets;subsets",
        "x.yaml",
        "../x.yaml",
    ),
    *("sotu:a=b", "x/y:split=", "a/b/c", "1,1", "1,,2", "all,all", "nano.toml", "flagship", "../suites/nano"),
)
VARIABLES = (
    *(
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "REPRO_RUNS",
        "OMP_NUM_THREADS",
        "ACCELERATE_USE_FSDP",
        "FSDP_VERSION",
    ),
    *("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_MIXED_PRECISION", "MASTER_PORT", "HF_HUB_OFFLINE", "COLUMNS"),
)


def _tasks() -> Iterator[Case]:
    base = COMMANDS["repro.evals"]
    for name in ("--tasks", "--estimator", "--cache", "--suite", "--tokens-per-step", "--seeds", "--corpus"):
        kept = _without(base, name)
        for text in REQUESTS:
            yield Case(
                "tasks",
                f"{name} {text}",
                "",
                ("repro.evals", *kept, f"{name}={text}"),
                (text, *_tokens(text), *text.split(",")),
                valid=True,
                writes=("runs*",),
            )


def _environment() -> Iterator[Case]:
    for name in VARIABLES:
        for value in ("", "x", "-1", "1.5", "99999999999999999999", "/dev/null"):
            for argv in (
                ("repro.sample", *COMMANDS["repro.sample"]),
                ("repro.recipes.mdlm", "--scale", "nano", "--steps", "1", "--out", "run", *toy_pins()),
            ):
                yield Case(
                    "environment",
                    f"{argv[0]} {name}={value}",
                    "",
                    argv,
                    (name, value or name),
                    environment={name: value},
                    valid=True,
                    writes=("run*", "*"),
                )


def _python() -> Iterator[Case]:
    values = [None, True, -1, 0, 1.5, 10**9, "zzz", "", [], {}, [None], "/dev/zero"]

    def case(
        function: str, given: list[Any], named: dict[str, Any], what: str, texts: tuple[str, ...]
    ) -> Case:
        argv = (f"python:{function}", json.dumps(given), json.dumps(named))
        return Case("Python functions", f"{function} {what}", "", argv, texts, valid=True, writes=("runs*",))

    for value in values:
        yield case("load", [value], {}, repr(value), (str(value), "checkpoint"))
        for name in ("weights", "precision", "template"):
            yield case("load", [ORACLE], {name: value}, f"{name}={value!r}", (name, repr(value), str(value)))
        for name in ("prompts", "n", "sampler", "gen_length", "block_length", "steps", "seed", "cache"):
            yield case(
                "sample",
                [ORACLE],
                {"gen_length": 4, "steps": 2, name: value},
                f"{name}={value!r}",
                (name, repr(value), str(value)),
            )
        for name in (
            "samplers",
            "tasks",
            "samples",
            "seeds",
            "limit",
            "suite",
            "tokens_per_step",
            "out",
            "batch",
        ):
            named = {"tasks": ["law"], "samplers": ["ancestral"], "samples": 20, name: value}
            yield case("score", [ORACLE], named, f"{name}={value!r}", (name, repr(value), str(value)))
