"""Command line `python -m repro.certify`: does a sampler draw from the law that it claims, does a loss bound -log p?"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from repro.certify.verdict import FULL
from repro.core.cli import Parser, fill, natural, run, say, width
from repro.core.errors import nearest
from repro.core.files import write_text
from repro.results.certificates import FOLDER, file_name

NOISES = ["absorbing", "uniform"]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of the command with the arguments `argv` (None: those of the process): 0 if every claim stands, else 1.
    Raises ValueError (exit code 2) for bad input and for tested code that does not run to its end."""
    parser = Parser(
        "python -m repro.certify",
        "Test whether a sampler or a loss is what it claims to be; exit code 1 if it is not.",
        [
            "python -m repro.certify examples/certify/ancestral.py:sample",
            "python -m repro.certify --presets ancestral,psi_cap --out certificates",
            "python -m repro.certify --peer LLaDA=../LLaDA --peer diffusers",
        ],
    )
    parser.add_argument("target", nargs="?", metavar="FILE.py:NAME", help="a sampler or a loss")
    parser.add_argument("--noise", choices=NOISES, help="noise (default: inferred from what it reads)")
    parser.add_argument(
        "--rows", type=natural, help=f"sentences at the largest number of steps ({FULL.last_rows:,})"
    )
    parser.add_argument("--steps", type=natural, help=f"largest number of steps ({FULL.steps[-1]})")
    parser.add_argument("--seconds", type=natural, help=f"limit of wall time ({FULL.seconds:g})")
    parser.add_argument("--json", action="store_true", help="print the certificate as JSON")
    parser.add_argument(
        "--quiet", action="store_true", help="say nothing on stderr of the tests of FILE.py:NAME as they run"
    )
    parser.add_argument(
        "--presets", metavar="all|NAME,...", help="certify the suite's own samplers and store the results"
    )
    parser.add_argument(
        "--peer",
        action="append",
        metavar="NAME[:SAMPLER,...][=FOLDER]",
        help="certify the samplers of another project: a checkout with its folder, an installed package by name alone",
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the stored results (default results/certificates)"
    )
    args = parser.parse_args(argv)
    given = 3 - [args.target, args.presets, args.peer].count(None)
    if given != 1:
        raise ValueError(
            f"{given or 'none'} of FILE.py:NAME, --presets and --peer are given; give one of FILE.py:NAME,"
            " --presets all and --peer NAME=FOLDER"
        )
    if args.target is None:
        many = "--presets" if args.presets is not None else "--peer"
        unread = {"--noise": args.noise, "--rows": args.rows, "--steps": args.steps, "--quiet": args.quiet}
        if args.presets is not None:
            unread["--seconds"] = args.seconds
        for flag, value in unread.items():
            if value is not None and value is not False:
                raise ValueError(f"{flag} has no effect with {many}; leave it out")
        if args.presets is not None:
            return _presets(args.presets, args.out or FOLDER, args.json)
        from repro.certify.peers.command import certify_peers

        return certify_peers(args.peer, args.out or FOLDER, args.seconds, args.json)
    if args.out is not None:
        raise ValueError(
            "--out is for --presets and --peer only; leave it out: a certificate of FILE.py:NAME is printed"
        )
    effort = FULL
    if args.rows is not None:
        if args.rows < FULL.rows:
            raise ValueError(f"--rows {args.rows} is too few to detect a bias; give {FULL.rows} or more")
        effort = replace(effort, last_rows=args.rows)
    if args.steps is not None:
        if args.steps <= FULL.steps[-2]:
            raise ValueError(
                f"--steps {args.steps} is too few for a claim about many steps; give more than {FULL.steps[-2]}"
            )
        effort = replace(effort, steps=(*FULL.steps[:-1], args.steps))
    if args.seconds is not None:
        effort = replace(effort, seconds=float(args.seconds))
    from repro.certify.isolated import isolated

    certificate = isolated(args.target, args.noise, effort, told=not args.quiet)
    if args.json:
        print(certificate.json())
    else:
        *lines, paragraph = certificate.text().splitlines()
        say(lines)
        print("\n".join(fill("", paragraph, room=width(sys.maxsize))))
    return 0 if certificate.stands else 1


def _presets(wanted: str, folder: Path, as_json: bool) -> int:
    from repro.certify.presets import certify_preset, names

    valid = names()
    chosen = valid if wanted == "all" else wanted.split(",")
    for name in chosen:
        if name not in valid:
            raise ValueError(f'no preset {name!r}; {nearest(name, valid)} ("all" certifies every preset)')
    good = True
    for name in chosen:
        found = certify_preset(name)
        write_text(folder / file_name(name), json.dumps(found, indent=1) + "\n")
        for verdict in found["verdicts"]:
            good = good and verdict["stands"]
            line = f"{name:<34} {verdict['noise']:<14} {verdict['says']}"
            print(
                f"{'ok  ' if verdict['stands'] else 'FAIL'} {line}",
                file=sys.stderr if as_json else sys.stdout,
                flush=True,
            )
        if as_json:
            print(json.dumps(found), flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    run(main, "repro.certify")
