"""List the commands of the package, or run one: `repro NAME ARGUMENTS`, which is `python -m repro.NAME ARGUMENTS`.

repro                                    list all commands
repro sample --ckpt oracle:mdlm@nano     run one
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import NoReturn

from repro.core.cli import fill, run
from repro.core.commands import COMMANDS
from repro.core.errors import Usage, nearest


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, or list all commands; returns the exit code.

    Raises Usage (a ValueError) for an unknown command, with the most similar one.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print("\n".join(listing()))
        return 0
    if words[0] == "--version":
        print(f"repro {version('dlm-repro')}")
        return 0
    if words[0] not in COMMANDS:
        raise Usage(f"no command {words[0]!r}; {nearest(words[0], COMMANDS)}")
    return importlib.import_module(COMMANDS[words[0]][0]).main(words[1:])


def listing() -> Iterator[str]:
    """Lines of text with every command and what it does."""
    yield "usage: repro COMMAND ...    (or python -m repro.COMMAND ...)"
    yield ""
    wide = max(map(len, COMMANDS))
    for name, (_, about) in COMMANDS.items():
        yield from fill(f"  {name:<{wide}}  ", about)
    yield ""
    yield "example:"
    yield "  repro sample --ckpt oracle:mdlm@nano --n 4"
    yield "`repro COMMAND --help` shows the options of a command and examples, `repro list"
    yield "recipes` (or samplers, suites, tasks, ...) the names that commands take."


def command_line() -> NoReturn:
    """The console script `repro`: run `main` and exit, with errors as one line that names the command."""
    words = sys.argv[1:2]
    run(main, f"repro {words[0]}" if words and words[0] in COMMANDS else "repro")


if __name__ == "__main__":
    command_line()
