"""Cases of other projects' code: which peer is named, where it is, and files of a checkout that do what they like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fuzz import mutations
from fuzz.machine import Case
from fuzz.mutations import Spoil
from fuzz.spoilt import from_json

FOLDER = ("--out", "certificates")
NAMES = (
    *("", "=", ":", "zzz", "zzz=.", "LLaDA", "LLaDA=", "LLaDA=nowhere", "LLaDA=.", "LLaDA=/dev/null"),
    *("LLaDA=LLaDA/generate.py", "LLaDA:=LLaDA", "LLaDA:zzz=LLaDA", "LLaDA:random,=LLaDA", "llada=LLaDA"),
    *("LLaDA=\x1b[31m", "LLaDA=" + "a" * 5000, "LLaDA=é", "diffusers=.", "diffusers:zzz", "transformers=x"),
    *("LLaDA:random=loop", "LLaDA:random=empty", "a" * 5000, "\n", "LLaDA=/dev/zero", "duo=LLaDA", "LLaDA==LLaDA"),
)  # fmt: skip
CODE = {
    "a syntax error": "def generate(:\n",
    "no function": "x = 1\n",
    "a raise": "raise KeyError('no')\n",
    "an exit": "raise SystemExit(0)\n",
    "an exit of the process": "import os\nos._exit(0)\n",
    "a missing package": "import a_package_that_is_not_there\n",
    "a signal": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
    "an endless loop": "while True: pass\n",
    "a lot of memory": "x = bytearray(1 << 40)\n",
    "deep recursion": "def f(): f()\nf()\n",
    "another kind": "generate = 3\n",
    "printing": "print('x' * 100_000)\n\ndef generate(*a, **k):\n    return None\n",
    "a result of another kind": "def generate(*a, **k):\n    return 'text'\n",
    "a call that exits": "import os\n\ndef generate(*a, **k):\n    os._exit(0)\n",
    "bytes": "\x00\x01",
    "an encoding": "# -*- coding: zzz -*-\n",
}

HARMLESS = {
    "a syntax error",
    "no function",
    "a raise",
    "a missing package",
    "another kind",
    "bytes",
    "an encoding",
}
"""Those after which a process can go on."""


def cases(out: Path) -> Iterator[Case]:
    """Every case of a peer; `out`: folder of the worlds."""
    certify, bench = (
        ("repro.certify", "--seconds", "5", *FOLDER),
        ("benchmarks", "--repeats", "1", "--out", "bench"),
    )
    for text in NAMES:
        parts = [each for each in (text[:20], *text.replace(":", "=").split("=")) if each.strip()]
        for argv in (certify, bench):
            name = text.replace("LLaDA", "llada", 1) if argv is bench else text
            yield Case(
                "peers", f"{argv[0]} --peer {text[:30]!r}", "checkouts", (*argv, f"--peer={name}"),
                ("peer", "--peer", "File name too long", *parts), _others,
            )  # fmt: skip
    for what, text in CODE.items():
        argv = (*certify, "--peer=LLaDA:random=LLaDA")
        # what a checkout does wrong is the verdict of its row: exit code 1
        yield Case(
            "peers", f"certify: {what}", "checkouts", argv, ("generate",), _code(text), valid=True,
            writes=("certificates/peers.json", "LLaDA/*"),
        )  # fmt: skip
        if what in HARMLESS:  # benchmarks run a peer's file in their own process, and end with it
            measured = (*bench, "--peer=llada=LLaDA")
            named = ("generate", "llada", "LLaDA")
            yield Case("peers", f"bench: {what}", "checkouts", measured, named, _code(text))
    stored = (*certify, "--peer=LLaDA:random=LLaDA")
    for what, spoil in mutations.kinds("certificates/peers.json"):
        absent = what == "missing"  # then it is the first result
        yield Case(
            "peers", f"stored: {what}", "checkouts", stored, ("peers.json",), spoil, valid=absent,
            writes=("certificates/peers.json",),
        )  # fmt: skip
    report = ("repro.report", "--raw", "raw", "--out", "tables", "--certificates", "certificates")
    yield from from_json(
        "stored peers", out, "checkouts", "certificates/peers.json", report, writes=("tables*",)
    )


def _code(text: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "LLaDA" / "generate.py").write_text(text, "utf-8")

    return spoil


def _others(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to("loop")
