"""Cases of files: each world with one of its files spoilt, read by the commands that read that file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fuzz import mutations, worlds
from fuzz.machine import Case
from fuzz.mutations import Spoil
from fuzz.spoilt import fields, from_json, resealed, whole

SAMPLE = ("repro.sample", "--ckpt", "weights", "--gen-length", "4", "--n", "1")
INSPECT = ("repro.checkpoint", "inspect", "weights")


def cases(out: Path) -> Iterator[Case]:
    """Every case of a file; `out`: folder of the worlds."""
    for make in (
        *(_releases, _shards, _templates, _runs, _records, _resealed, _items, _certificates, _judged, _tasks),
        *(_corpora, _pickles, _parity, _toml),
    ):
        yield from make(out)


# --- released weights ----------------------------------------------------------------------------------------------
def _releases(out: Path) -> Iterator[Case]:
    for name in worlds.RELEASES:
        area = "config.json"
        yield from from_json(area, out, name, "weights/config.json", SAMPLE)
    for name in ("llada", "llama"):
        for file in ("tokenizer_config.json", "generation_config.json"):
            chat = (*SAMPLE, "--prompt", "hello", "--chat-template", "own")
            yield from from_json(file, out, name, f"weights/{file}", chat)
    yield from _tokenizers(out)


def _tokenizers(out: Path) -> Iterator[Case]:
    file, argv = "weights/tokenizer.json", (*SAMPLE, "--prompt", "hello")
    yield from whole("tokenizer.json", "llada", file, argv)
    data = json.loads((out / "llada" / file).read_text("utf-8"))
    for world in ("llada", "llama"):
        yield from fields("tokenizer.json", world, file, data, argv, mutations.write_json)


def _shards(out: Path) -> Iterator[Case]:
    area, file = "safetensors", "weights/model.safetensors"
    for argv in (SAMPLE, INSPECT):
        yield from whole(area, "duo", file, argv)
        yield from from_json("shard index", out, "llada", "weights/model.safetensors.index.json", argv)
    head, _ = worlds.header(out / "duo" / file)
    names = [name for name in head if name != "__metadata__"]

    def forged(change: Callable[[dict[str, Any]], None]) -> Spoil:
        def spoil(folder: Path) -> None:
            found, rest = worlds.header(folder / file)
            change(found)
            worlds.write_header(folder / file, found, rest)

        return spoil

    forgeries: dict[str, Any] = {
        "shape": [[10**9, 10**9], [-1, 4], [0], [], [2**63], "x", None, [1.5]],
        "dtype": ["F64", "I8", "F8_E4M3", "X", None, 3],
        "data_offsets": [[0, 10**12], [-4, 4], [8, 0], [0], "x", None, [2**64, 2**65]],
    }
    for name in names[:6]:
        for key, values in forgeries.items():
            for value in values:

                def change(
                    found: dict[str, Any], name: str = name, key: str = key, value: Any = value
                ) -> None:
                    found[name][key] = value

                yield Case(
                    area,
                    f"{name}.{key}={value!r}",
                    "duo",
                    SAMPLE,
                    ("model.safetensors", name),
                    forged(change),
                )
    for what, size in (("huge header", 2**62), ("header over the end", 10**7), ("no header", 0)):

        def resized(folder: Path, size: int = size) -> None:
            path = folder / file
            path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])

        yield Case(area, what, "duo", SAMPLE, ("model.safetensors",), resized)
    for what, name in (
        ("escape", "../evil.safetensors"),
        ("absolute", "/etc/hostname"),
        ("folder", "."),
        ("NUL", "a\0b"),
    ):

        def escaped(folder: Path, name: str = name) -> None:
            path = folder / "weights" / "model.safetensors.index.json"
            index = json.loads(path.read_text("utf-8"))
            first = next(iter(index["weight_map"].values()))
            (folder / "evil.safetensors").write_bytes((folder / "weights" / first).read_bytes())
            index["weight_map"] = {k: name if f == first else f for k, f in index["weight_map"].items()}
            path.write_text(json.dumps(index), "utf-8")

        yield Case(
            "shard index", f"a shard that is an {what}", "llada", SAMPLE, ("index.json", name), escaped
        )


TEMPLATES = {
    "endless range": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "nested ranges": "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "long text": "{{ 'x' * 10000000000 }}",
    "doubling": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "shift": "{{ (1).__lshift__(99999999999) }}",
    "list product": "{{ ([0] * 10000000000)|length }}",
    "format": "{{ '%999999999999d' % 1 }}",
    "padding": "{{ ''.ljust(99999999999) }}",
    "center": "{{ 'x'|center(99999999999) }}",
    "indent": "{{ ('a\n' * 9999)|indent(9999999) }}",
    "replace": "{{ ('a' * 99999).replace('a', 'a' * 99999) }}",
    "join": "{{ (['a' * 99999] * 99999)|join }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "escape": "{{ cycler.__init__.__globals__.os.system('touch owned') }}",
    "escape by format": "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}",
    "syntax": "{% for a in %}",
    "unknown filter": "{{ messages | nothing }}",
    "unknown name": "{{ nothing.at.all }}",
    "raise": "{{ raise_exception('no') }}",
    "division": "{{ 1 // 0 }}",
    "wrong type": "{{ messages + 1 }}",
    "missing index": "{{ messages[7]['role'] }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "deep": "{{ " + "(" * 900 + "1" + ")" * 900 + " }}",
    "deep expression": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "huge slice": "{{ range(9**9)|list|length }}",
    "batch": "{{ range(99999)|batch(1)|list|length * range(99999)|list|length }}",
    "while by recursion": "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "lipsum": "{{ lipsum(99999999) }}",
    "sum": "{{ [[1] * 9999] * 9999 | sum(start=[]) }}",
    "sort": "{{ range(99999)|map('string')|sort|join|length }}",
}
"""Templates that fail, run for ever, take all memory or reach for Python's own objects."""


def _templates(out: Path) -> Iterator[Case]:
    argv = (*SAMPLE, "--prompt", "hello", "--chat-template", "own")
    for what, text in TEMPLATES.items():
        plain = what in ("batch", "sort")
        for where in ("tokenizer_config.json", "chat_template.jinja"):

            def spoil(folder: Path, text: str = text, where: str = where) -> None:
                path = folder / "weights" / where
                path.write_text(
                    text if where.endswith("jinja") else json.dumps({**worlds.TOKENS, "chat_template": text}),
                    "utf-8",
                )

            yield Case("chat template", f"{where}: {what}", "llada", argv, ("template",), spoil, valid=plain)
        for field in ("doc_to_text", "doc_to_choice"):

            def asked(folder: Path, text: str = text, field: str = field) -> None:
                (folder / "task.yaml").write_text(
                    worlds.TASK.replace(
                        'doc_to_text: "{{start}}"'
                        if field == "doc_to_text"
                        else 'doc_to_choice: "{{choices}}"',
                        f"{field}: {json.dumps(text)}",
                    ),
                    "utf-8",
                )

            yield Case(
                "task YAML",
                f"{field}: {what}",
                "text",
                TASK,
                ("task.yaml",),
                asked,
                valid=plain,
                writes=("run/*",),
            )


# --- our own files -------------------------------------------------------------------------------------------------
STEP = "run/step_00000001"


def _runs(out: Path) -> Iterator[Case]:
    state = f"{STEP}/state.json"
    show = ("repro.checkpoint", "show", "run")
    sample = ("repro.sample", "--ckpt", "run", "--n", "1")
    resume = ("repro.recipes.mdlm", "--scale", "nano", "--resume", "--out", "run")
    yield from from_json("state.json", out, "mdlm_run", state, show)
    yield from from_json("state.json", out, "ar_run", state, sample)
    for file in ("model.safetensors", "ema.safetensors"):
        yield from whole(
            "checkpoint tensors",
            "mdlm_run",
            f"{STEP}/{file}",
            (*sample, "--weights", "raw" if "model" in file else "ema"),
        )
    for file in ("model.safetensors", "optimizer.safetensors"):
        yield from whole(
            "checkpoint tensors", "mdlm_run", f"{STEP}/{file}", ("repro.checkpoint", "diff", "run", "run")
        )
    pins = worlds.toy_pins()
    yield from whole("resume", "mdlm_run", state, (*resume, *pins, "--steps", "1"))
    yield from whole(
        "resume",
        "mdlm_run",
        "run/metrics.jsonl",
        (*resume, *pins, "--steps", "2"),
        valid=False,
        writes=("run/*",),
    )


def _records(out: Path) -> Iterator[Case]:
    name = "raw/ar@nano.text-s1.nano.text.jsonl"
    commands = {
        "check": ("repro.results", "check", "raw"),
        "report": ("repro.report", "--raw", "raw", "--out", "tables"),
        "verify": ("repro.verify", "raw"),
        "explain": ("repro.results", "explain", "ar@nano.text/owt", "ar@nano.text/law", "--raw", "raw"),
        "publish": ("repro.results", "publish", "raw"),
    }
    first = json.loads((out / "records" / name).read_text("utf-8").splitlines()[0])
    for command, argv in commands.items():
        for case in whole(
            "records", "records", name, argv, also=("ar@nano.text/", "evaluation"), writes=("tables*",)
        ):
            absent = command == "publish" and case.what.endswith(": missing")  # the other files are published
            yield replace(case, valid=absent)

    def write(file: str, data: Any) -> Spoil:
        return lambda folder: (folder / file).write_text(json.dumps(data) + "\n", "utf-8")

    yield from fields("records", "records", name, first, commands["check"], write)


def _resealed(out: Path) -> Iterator[Case]:
    """Records with a wrong value and right hashes, as another programme would write them."""
    name = "raw/ar@nano.text-s1.nano.text.jsonl"
    first = json.loads((out / "records" / name).read_text("utf-8").splitlines()[0])

    def write(data: Any) -> Spoil | None:
        sealed = resealed(data)
        if sealed is None:
            return None
        return lambda folder: (folder / name).write_text(json.dumps(sealed) + "\n", "utf-8")

    for what, place, changed in mutations.values(first):
        spoil = write(changed)
        if spoil is None or place[0] in ("id", "key", "cell", "sha256"):
            continue
        for argv in (("repro.report", "--raw", "raw", "--out", "tables"), ("repro.verify", "raw")):
            fields = tuple(str(step) for step in place if isinstance(step, str))[-2:]
            yield Case(
                "resealed records",
                what,
                "records",
                argv,
                (Path(name).name, *fields),
                spoil,
                valid=True,
                writes=("tables*",),
            )


def _items(out: Path) -> Iterator[Case]:
    argv = ("repro.results", "flips", "a.jsonl", "b.jsonl")
    yield from whole("items", "records", "a.jsonl", argv, also=("document", "metric"))
    first = json.loads((out / "records" / "a.jsonl").read_text("utf-8").splitlines()[0])

    def write(file: str, data: Any) -> Spoil:
        def spoil(folder: Path) -> None:
            lines = (folder / file).read_text("utf-8").splitlines()
            (folder / file).write_text("\n".join([json.dumps(data), *lines[1:], ""]), "utf-8")

        return spoil

    yield from fields("items", "records", "a.jsonl", first, argv, write, also=("document", "metric"))


def _certificates(out: Path) -> Iterator[Case]:
    argv = ("repro.report", "--raw", "raw", "--out", "tables", "--certificates", "certificates")
    for file in ("certificates/ancestral.json", "certificates/controls.json"):
        yield from from_json("certificates", out, "certificates", file, argv, writes=("tables*",))


def _judged(out: Path) -> Iterator[Case]:
    argv = (
        "repro.evals",
        "judge",
        "samples.jsonl",
        "--judge",
        "judge",
        "--rule",
        "duo:length=40,chunk=40",
        "--out",
        "out",
    )
    yield from whole("samples", "judge", "samples.jsonl", argv, writes=("out*",))
    yield from whole("samples", "judge", "ids.jsonl", (*argv[:2], "ids.jsonl", *argv[3:]), writes=("out*",))
    yield from whole("samples", "judge", "real.jsonl", (*argv, "--reference", "real.jsonl"), writes=("out*",))

    def write(file: str, data: Any) -> Spoil:
        def spoil(folder: Path) -> None:
            lines = (folder / file).read_text("utf-8").splitlines()
            (folder / file).write_text("\n".join([*lines, json.dumps(data), ""]), "utf-8")

        return spoil

    for file, row in (("samples.jsonl", {"text": "a b c d e f"}), ("ids.jsonl", {"ids": [1, 2, 3, 4, 5]})):
        yield from fields(
            "samples", "judge", file, row, (*argv[:2], file, *argv[3:]), write, writes=("out*",)
        )
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        yield from whole("judge folder", "judge", f"judge/{file}", argv, also=("judge",), writes=("out*",))
    config = json.loads((out / "judge" / "judge" / "config.json").read_text("utf-8"))
    more = {"also": ("/judge is",), "writes": ("out*",)}
    yield from fields(
        "judge folder", "judge", "judge/config.json", config, argv, mutations.write_json, **more
    )
    yield from whole(
        "judge folder", "judge", "judge/model.safetensors", argv, also=("judge",), writes=("out*",)
    )


TASK = ("repro.evals", "--ckpt", "run", "--tasks", "task.yaml", "--limit", "1")


def _tasks(out: Path) -> Iterator[Case]:
    import yaml

    more = {"writes": ("run/*",), "also": ("capitals",)}
    yield from whole("task YAML", "text", "task.yaml", TASK, **more)
    yield from whole(
        "task YAML", "text", "rows.jsonl", TASK, writes=("run/*",), also=("task.yaml", "capitals")
    )

    def write(file: str, data: Any) -> Spoil:
        return lambda folder: (folder / file).write_text(yaml.safe_dump(data), "utf-8")

    data = yaml.safe_load(worlds.TASK)
    yield from fields("task YAML", "text", "task.yaml", data, TASK, write, writes=("run/*",))


TEXTS = ("deep lists", "YAML bomb", "first half", "without its end")
"""Changes that leave a text."""


def _corpora(out: Path) -> Iterator[Case]:
    for file in ("corpus.txt", "corpus.jsonl"):
        argv = ("repro.evals", "--ckpt", "run", "--corpus", file, "--limit", "1")
        for case in whole("corpora", "text", file, argv, writes=("run/*",)):
            yield replace(case, valid=case.what in {f"corpus.txt: {kind}" for kind in TEXTS})


def _pickles(out: Path) -> Iterator[Case]:
    argv = ("repro.checkpoint", "convert", "pickled/last.ckpt", "--out", "out")
    for command in (argv, (*argv, "--weights", "ema")):
        yield from whole("pickles", "pickled", "pickled/last.ckpt", command, writes=("out*",))
    size = (out / "pickled" / "pickled" / "last.ckpt").stat().st_size
    for share in range(60):
        at = (size * share // 60) | 1

        def flipped(folder: Path, at: int = at) -> None:
            path = folder / "pickled" / "last.ckpt"
            data = bytearray(path.read_bytes())
            data[at] ^= 0x5B
            path.write_bytes(data)

        yield Case(
            "pickles", f"byte {at} flipped", "pickled", argv, ("last.ckpt",), flipped, writes=("out*",)
        )


def _parity(out: Path) -> Iterator[Case]:
    argv = ("repro.checkpoint", "parity", "weights", "--fixture", "fixture")
    yield from from_json("parity fixture", out, "parity", "fixture/fixture.json", argv, also=("fixture",))
    yield from whole("parity fixture", "parity", "fixture/fixture.safetensors", argv, also=("fixture",))


def _toml(out: Path) -> Iterator[Case]:
    yield from whole(
        "TOML", "published", "published.toml", ("repro.verify", "raw", "--published", "published.toml")
    )
    for kind, file in (
        *(
            ("checkpoints", "checkpoints.toml"),
            ("corpora", "corpora.toml"),
            ("reproduction", "reproduction.toml"),
        ),
        *(("suite", "nano.toml"), ("group", "silver.toml")),
    ):
        argv = ("python:read", kind, file)
        yield from whole("TOML", "published", file, argv, also=(Path(file).stem,))
        data = tomllib.loads((out / "published" / file).read_text("utf-8"))
        cut = {key: value[:1] if isinstance(value, list) else value for key, value in data.items()}
        for what, place, changed in mutations.values(cut):
            fields = tuple(str(step) for step in place if isinstance(step, str))[-1:]
            text = toml(changed)
            if text is not None:
                yield Case(
                    "TOML", f"{file}: {what}", "published", argv, (file, *fields),
                    lambda folder, file=file, text=text: (folder / file).write_text(text, "utf-8"),
                )  # fmt: skip


def toml(data: Any) -> str | None:
    """TOML text of nested tables, each list and table inline; None for what TOML cannot say (null)."""

    def say(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {say(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(say, value)) + "]"
        if value is None:
            raise TypeError
        if isinstance(value, float) and value != value:
            return "nan"
        return (
            {float("inf"): "inf"}.get(value, json.dumps(value))
            if isinstance(value, float)
            else json.dumps(value)
        )

    try:
        return "\n".join(f"{json.dumps(key)} = {say(value)}" for key, value in data.items())
    except TypeError:
        return None
