"""Cases of foreign code given to `python -m repro.certify FILE.py:NAME`: what cannot be imported, what is no sampler
and no loss, and what fails, ends, hangs or takes all memory while it is imported or called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fuzz import mutations
from fuzz.machine import Case

ARGV = ("repro.certify", "mine.py:sample", "--seconds", "2")
SOUND = """\
import torch


def sample(space, n, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(space.vocab, (n, space.length), generator=generator)


sample.claims = "law"
sample.meaning = "x0_mean"
sample.noises = ("uniform",)
"""
"""A sampler that ignores the denoiser, so that its claim does not stand."""
IMPORTS = {
    "syntax error": "def sample(:\n",
    "indentation": " x = 1\n  y = 2\n",
    "tab and spaces": "if 1:\n\tx = 1\n        y = 2\n",
    "unknown encoding": "# -*- coding: nothing -*-\n",
    "no such module": "import no_such_module_at_all\n",
    "no such name": "from torch import no_such_name\n",
    "relative import": "from . import sibling\n",
    "imports itself": "import mine\nmine.sample\n",
    "raises": "raise RuntimeError('first\\nsecond line')\n",
    "raises without text": "raise ValueError\n",
    "raises with a long text": "raise ValueError('x' * 10**6)\n",
    "raises with surrogates": "raise ValueError('\\ud800')\n",
    "raises an unprintable error": "class E(Exception):\n    def __str__(self): raise E\n\nraise E\n",
    "assertion": "assert False\n",
    "division": "1 / 0\n",
    "recursion": "def f(): f()\n\nf()\n",
    "deep nesting": "x = " + "(" * 5000 + ")" * 5000 + "\n",
    "sys.exit": "import sys; sys.exit(0)\n",
    "sys.exit with text": "import sys; sys.exit('text')\n",
    "keyboard interrupt": "raise KeyboardInterrupt\n",
    "generator exit": "raise GeneratorExit\n",
    "base exception": "class Odd(BaseException): pass\nraise Odd('x')\n",
    "no names": "x = 1\n",
    "reads input": "input()\n",
}
"""Name -> a file whose import fails, or that has no function `sample`: bad input."""
ENDS = {
    "os._exit(0)": "import os; os._exit(0)\n",
    "os._exit(2)": "import os; os._exit(2)\n",
    "kills itself": "import os; os.kill(os.getpid(), 9)\n",
    "segfault": "import ctypes; ctypes.string_at(0)\n",
    "abort": "import os; os.abort()\n",
    "memory error": "raise MemoryError\n",
    "huge list": "x = [0] * 10**11\n",
    "huge bytes": "x = bytearray(10**12)\n",
    "huge tensor": "import torch; x = torch.zeros(10**12)\n",
    "grows": "x = 'x'\nwhile True: x += x\n",
    "closes its output": "import os\nfor i in range(3, 60):\n    try: os.close(i)\n    except OSError: pass\n",
    "infinite loop": "while True: pass\n",
    "sleeps": "import time; time.sleep(10**6)\n",
    "catches everything": "while True:\n    try: raise KeyboardInterrupt\n    except BaseException: pass\n",
    "ignores signals": "import signal\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass\n",
    "waits for a lock": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()\n",
}
"""Name -> a file that ends or hangs the process that imports it: the verdict says so."""
OBJECTS = {
    "a number": "sample = 3\n",
    "None": "sample = None\n",
    "a string": "sample = 'f'\n",
    "a module": "import os as sample\n",
    "a class": "class sample: pass\n",
    "a built-in": "sample = print\n",
    "a built-in without signature": "sample = dict\n",
    "no arguments": "def sample(): pass\n",
    "one argument": "def sample(x): pass\n",
    "five arguments": "def sample(a, b, c, d, e): pass\n",
    "only keywords": "def sample(*, a, b, c): pass\n",
    "any arguments": "def sample(*a, **b): pass\n",
    "a coroutine": "async def sample(space, n, steps, seed): pass\n",
    "a tensor": "import torch; sample = torch.zeros(3)\n",
    "a mock": "from unittest.mock import Mock; sample = Mock()\n",
    "odd attributes": "class S:\n    def __getattr__(self, n): raise OSError(n)\n"
    "    def __call__(self, a, b, c, d): 1\nsample = S()\n",
    "odd comparison": "class S:\n    def __eq__(self, o): raise OSError\n    __hash__ = None\n"
    "def sample(a, b, c, d): 1\nsample.claims = S()\nsample.meaning = S()\n",
}
"""Name -> a file whose `sample` is no sampler and no loss."""
ATTRIBUTES = ("claims", "meaning", "noises")
WRONG = ("None", "1", "''", "'zzz'", "[]", "{}", "('law', 'mode')", "float('nan')", "b'law'", "object()")
BODIES = {
    "None": "None",
    "a number": "3",
    "a string": "'ids'",
    "floats": "torch.zeros(n, space.length)",
    "NaN": "torch.full((n, space.length), float('nan'))",
    "bools": "torch.zeros(n, space.length, dtype=torch.bool)",
    "complex numbers": "torch.zeros(n, space.length, dtype=torch.complex64)",
    "a transposed shape": "torch.zeros(space.length, n, dtype=torch.int64)",
    "one row": "torch.zeros(1, space.length, dtype=torch.int64)",
    "no rows": "torch.zeros(0, space.length, dtype=torch.int64)",
    "negative ids": "torch.full((n, space.length), -1)",
    "large ids": "torch.full((n, space.length), 10**9)",
    "lists": "[[0] * space.length for _ in range(n)]",
    "ragged lists": "[[0] * (i % 3) for i in range(n)]",
    "meta tensor": "torch.zeros(n, space.length, dtype=torch.int64, device='meta')",
    "sparse tensor": "torch.zeros(n, space.length, dtype=torch.int64).to_sparse()",
    "a coroutine": "(lambda: (yield))()",
    "an error": "1 // 0",
    "an unknown attribute": "space.nothing",
    "a huge tensor": "torch.zeros(n, 10**11)",
    "exit": "__import__('os')._exit(0)",
    "an infinite loop": "next(x for x in iter(int, 1) if x)",
    "wrong calls of denoise": "space.denoise('x', 2)",
    "a wrong time": "space.denoise(torch.zeros(n, space.length, dtype=torch.int64), torch.full((n,), 7.0))",
    "ids out of range to denoise": "space.denoise(torch.full((n, space.length), 10**6), torch.ones(n))",
    "changes the space": "setattr(space, 'vocab', 0)",
}
"""Name -> what `sample` returns: bad input, or a verdict."""
TARGETS = (
    "mine.py",
    ":sample",
    "mine.py:",
    "mine:sample",
    "nothing.py:sample",
    "mine.py:nothing",
    "mine.py:a.b",
)
TARGETS = (*TARGETS, "/dev/zero:x", "/dev/zero.py:x", ".:x", "..py:x", "mine.txt:x", "a" * 300 + ".py:x")


def cases(out: Path) -> Iterator[Case]:
    """Every case of foreign code."""
    yield from _bytes()
    for what, text in IMPORTS.items():
        yield _case(f"import: {what}", text, ("mine.py", "sample"), valid=False)
    for what, text in ENDS.items():
        yield _case(f"import: {what}", text + SOUND, ("mine.py", "sample"), valid=True)
    for what, text in OBJECTS.items():
        yield _case(f"sample is {what}", text, ("sample", "not a function"), valid=False)
    for name in ATTRIBUTES:
        for value in WRONG:
            text = f"{SOUND}sample.{name} = {value}\n"
            yield _case(f"{name}={value}", text, (f"sample.{name}",), valid=False)
    for what, text in BODIES.items():
        body = SOUND.replace("torch.randint(space.vocab, (n, space.length), generator=generator)", text)
        yield _case(f"returns {what}", body, ("sample",), valid=True)
    for target in TARGETS:
        yield Case(
            "certify",
            f"target {target[:30]}",
            "functions",
            ("repro.certify", target),
            (target[:30], target.rpartition(":")[0][:30] or target, "no file"),
        )


def _bytes() -> Iterator[Case]:
    argv = ("repro.certify", "losses.py:diffusion_bound", *ARGV[2:])
    for what, spoil in (*mutations.kinds("losses.py"), *mutations.texts("losses.py")):
        valid = what in ("BOM", "junk at the end")
        yield Case("certify", f"file: {what}", "functions", argv, ("losses.py",), spoil, valid=valid)


def _case(what: str, text: str, named: tuple[str, ...], *, valid: bool) -> Case:
    def spoil(folder: Path) -> None:
        (folder / "mine.py").write_text(text, "utf-8")

    return Case("certify", what, "functions", ARGV, named, spoil, valid=valid)
