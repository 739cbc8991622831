"""Argument parser and exit codes of all commands: bad input gives one line on stderr, which names the nearest valid
flag, and exit code 2."""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn, TextIO

from repro.core.errors import LARGEST_COUNT, Stopped, Usage, nearest, one_line, out_of_memory


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help formatter that keeps the line breaks of descriptions and examples and wraps long lines between words, except
    those that begin with two spaces."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = [
            [line] if line.startswith("  ") else textwrap.wrap(line, width, break_on_hyphens=False) or [""]
            for line in text.splitlines()
        ]
        return "\n".join(indent + line for each in lines for line in each)


class Parser(argparse.ArgumentParser):
    """argparse.ArgumentParser without abbreviated flags; errors are ValueErrors (`Usage`) that name the nearest valid
    flag, and a repeated flag is an error.

    `examples`: command lines that this parser takes, printed at the end of --help.
    """

    def __init__(self, prog: str, description: str, examples: Sequence[str]) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog="\n".join([f"example{'s' * (len(examples) > 1)}:", *(f"  {each}" for each in examples)]),
            allow_abbrev=False,
            formatter_class=_Formatter,
        )
        self.examples = tuple(examples)

    def error(self, message: str) -> NoReturn:
        raise Usage(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise argparse's ArgumentError, which names the nearest choice, unless `value` is among the choices of the
        argument `action`, or `action` has no choices."""
        if action.choices is not None and value not in action.choices:
            near = nearest(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {near}")

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        """The parsed arguments (`args`, default sys.argv[1:]), as by argparse; ValueError for an unknown flag (the
        nearest one is named) or a flag that is given twice."""
        args = list(sys.argv[1:] if args is None else args)
        flags = {flag: action for action in self._options() for flag in action.option_strings}
        for before, word in zip(["", *args], args, strict=False):
            flag, equals, value = word.partition("=") if word.startswith("--") else (before, "", word)
            if (
                (equals or not word.startswith("--"))
                and (not value.strip() or value == "--")
                and flag != "--prompt"
            ):
                raise Usage(f"{flag if flag.startswith('--') else 'an argument'} is {value!r}; give a value")
        given = [a.partition("=")[0] for a in args if a.startswith("--")]
        for flag in given:
            if flag not in flags:
                raise Usage(f"no flag {flag!r}; {nearest(flag, [f for f in flags if f.startswith('--')])}")
            if given.count(flag) > 1 and not isinstance(flags[flag], argparse._AppendAction):
                raise Usage(f"{flag} is given twice; give it once")
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            raise Usage(f"unexpected argument {unknown[0]!r}; remove it, or see --help")
        return known

    def _options(self) -> Iterator[argparse.Action]:
        """The argparse actions (flags and arguments) of this parser and of its subcommands."""
        for action in self._actions:
            yield action
            if isinstance(action, argparse._SubParsersAction):
                for inner in dict.fromkeys(action.choices.values()):
                    yield from inner._options()


def width(otherwise: int = 120) -> int:
    """Width of printed lines in characters: $COLUMNS, else that of the terminal, else `otherwise`."""
    return shutil.get_terminal_size((otherwise, 24)).columns


def say(lines: Iterable[str], file: TextIO | None = None) -> None:
    """Print lines of text to `file` (None: stdout). A line wider than the terminal (or $COLUMNS) is wrapped between
    words. Its continuation lines are indented by 4 spaces more; if the line has two columns (a text, two spaces or
    more, another text), they begin below the second column."""
    room = width(sys.maxsize)
    for line in lines:
        print("\n".join(broken(line, room)), file=file)


def broken(line: str, room: int) -> list[str]:
    """The text `line` wrapped between words to lines of at most `room` characters. Lines after the first are indented
    by 4 spaces more, or begin below the second column if `line` has two columns (see `say`)."""
    if len(line) <= room:
        return [line]
    column = re.match(r"\s*\S.{0,30}?\s{2,}(?=\S)", line)
    head = column[0] if column else " " * (len(line) - len(line.lstrip()))
    return fill(head, line[len(head) :], 0 if column else 4, room)


def fill(head: str, text: str, further: int = 0, room: int | None = None) -> list[str]:
    """`head` followed by `text`, wrapped between words to lines of `room` (None: `width()`) characters; the lines after
    the first are indented by the length of `head` plus `further` spaces. If `head` takes more than 45 % of a line, or a
    word of `text` does not fit beside `head`, the text begins on the line below, indented by 4 spaces."""
    room = room or width()
    longest = max(map(len, text.split()), default=0)
    if head.strip() and (len(head) > 0.45 * room or len(head) + longest > room):
        return [head.rstrip(), *fill(" " * 4, text, 0, room)]
    return textwrap.wrap(
        text,
        room,
        initial_indent=head,
        subsequent_indent=" " * (len(head) + further),
        break_long_words=False,
        break_on_hyphens=False,
    )


def natural(text: str) -> int:
    """The integer from 0 to 2^53 (`LARGEST_COUNT`) that `text` denotes, for argparse's `type`; ArgumentTypeError for
    other text."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer; give a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; give 0 or more")
    if value > LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"{text[:40]} is too large; give at most {LARGEST_COUNT:,}")
    return value


def positive(text: str) -> int:
    """The integer from 1 to 2^53 that `text` denotes, for argparse's `type`; ArgumentTypeError for other text."""
    value = natural(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 is too few; give 1 or more")
    return value


def add_weights(parser: Parser) -> None:
    """Add to `parser` the flag --weights: whether the raw or the averaged (ema) weights of a run are loaded."""
    parser.add_argument(
        "--weights",
        choices=["auto", "raw", "ema"],
        default="auto",
        help="raw or averaged (ema) weights; auto: averaged if the checkpoint has them",
    )


def add_chat_template(parser: Parser) -> None:
    """Add to `parser` the flag --chat-template: the template in which prompts for released weights are written."""
    parser.add_argument(
        "--chat-template",
        choices=["auto", "none", "own", "seed", "seed_readme"],
        default="auto",
        help="chat template of released weights (auto: the one that evals/checkpoints.toml lists for their name)",
    )


def launched() -> tuple[int, int]:
    """Index of this process and the number of processes, as torchrun or `accelerate launch` sets them in the
    environment variables RANK and WORLD_SIZE; (0, 1) without a launcher. ValueError unless 0 <= RANK < WORLD_SIZE."""
    rank, world = (os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise ValueError(
            f"RANK={rank} of WORLD_SIZE={world} is no process number; unset both, or set 0 <= RANK < WORLD_SIZE"
        )
    return int(rank), int(world)


def first() -> bool:
    """Whether this process is the one that prints: rank 0 of a distributed launch, or the only process. ValueError
    unless 0 <= RANK < WORLD_SIZE (environment variables)."""
    return launched()[0] == 0


def run(main: Callable[[Sequence[str] | None], int], prog: str) -> NoReturn:
    """Run a command's `main` and exit with the code that it returns; bad input gives one line on stderr, which begins
    with the command's name `prog`, and code 2; Ctrl-C gives code 130, a closed pipe code 141, and code 143 means that
    SIGTERM or a time budget ended the command early (`Stopped`).

    Uses one thread unless OMP_NUM_THREADS is set: results on a CPU depend on the number of threads.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is imported
    try:
        first()  # a wrong RANK would otherwise fail after the work
        code = _printing(main)
    except BrokenPipeError:
        code = 141
    except KeyboardInterrupt:
        code = 130
    except Stopped as stop:
        print(f"{prog}: {one_line(stop)}", file=sys.stderr)
        code = 143
    except (ValueError, argparse.ArgumentTypeError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise  # torch raises RuntimeError when memory runs out
        print(f"{prog}: {one_line(error)}", file=sys.stderr)
        code = 2
    sys.exit(code)


def _printing(main: Callable[[Sequence[str] | None], int]) -> int:
    """The exit code of `main`; OSError if what it has printed cannot be written (a closed pipe, a full disk).

    Characters that the terminal's encoding lacks are printed as escapes.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return main(None)
    finally:
        try:
            if sys.stdout is not None:  # None where it is closed
                sys.stdout.flush()
        except OSError:  # discard it, or the interpreter would try again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise
