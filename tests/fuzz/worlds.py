"""Small valid inputs of every kind, each in a folder of its own, which the cases copy and spoil."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import gguf_files, lm_worlds, released, tiny_tokenizer
from helpers.toy import overrides, toy

from repro.core.files import ROOT
from repro.recipes.scale import by_name

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
TOKENS = {"chat_template": TEMPLATE, "bos_token": "[CLS]", "eos_token": "[SEP]", "sep_token": "[SEP]"}
TASK = """\
task: capitals
dataset_path: json
dataset_kwargs:
  data_files: {test: rows.jsonl}
test_split: test
output_type: multiple_choice
doc_to_text: "{{start}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""


def build(out: Path) -> None:
    """Write every world below `out`."""
    tokenizer = tiny_tokenizer.save(out / "tokenizer") / "tokenizer.json"
    for name in RELEASES:
        _release(out / name / "weights", name, tokenizer)
    for name, make in OTHERS.items():
        (out / name).mkdir()
        make(out / name)


# --- released weights ----------------------------------------------------------------------------------------------
RELEASES = ("llada", "duo", "mdlm", "bd3", "dream", "llama", "gpt2", "modernbert")


def _release(folder: Path, name: str, tokenizer: Path) -> None:
    if name in ("llama", "gpt2", "modernbert"):
        _by_transformers(folder, name)
        shutil.copy(tokenizer, folder)
    else:
        getattr(released, name)(folder, tokenizer)
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENS), "utf-8")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 5]}), "utf-8")


def _by_transformers(folder: Path, name: str) -> None:
    import transformers as hf

    torch.manual_seed(0)
    small = {"vocab_size": released.V, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    network: torch.nn.Module
    if name == "llama":
        network = hf.LlamaForCausalLM(
            hf.LlamaConfig(**{**released.LIKE_LLAMA, **small}, max_position_embeddings=64)
        )
    elif name == "gpt2":
        network = hf.GPT2LMHeadModel(hf.GPT2Config(**small, n_embd=32, n_layer=2, n_head=4, n_positions=64))
    else:
        network = hf.ModernBertForMaskedLM(
            hf.ModernBertConfig(
                **released.SIZES, **{k: v for k, v in small.items() if k != "vocab_size"},
                intermediate_size=48, max_position_embeddings=64, global_attn_every_n_layers=2, local_attention=16,
                cls_token_id=1, sep_token_id=2,
            )
        )  # fmt: skip
    network.eval().save_pretrained(folder)


# --- our own files -------------------------------------------------------------------------------------------------
def _run(recipe: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from repro.training.loop import train

        train(toy(recipe), seed=0, out=folder / "run", stop=1, resume=False)

    return make


def _records(folder: Path) -> None:
    raw = folder / "raw"
    raw.mkdir()
    for name in ("ar@nano.text-s1.nano.text.jsonl", "ar@nano.text-s2.nano.text.jsonl"):
        shutil.copy(ROOT / "results" / "raw" / name, raw)
    item = {"doc_id": 0, "filter": "none", "doc_hash": "a", "prompt_hash": "b", "metrics": {"acc": 1.0}}
    for name, values in (("a", (1.0, 0.0, 1.0)), ("b", (0.0, 0.0, 1.0))):
        items = [
            {**item, "doc_id": i, "doc_hash": f"h{i}", "metrics": {"acc": v}} for i, v in enumerate(values)
        ]
        _lines(folder / f"{name}.jsonl", items)


def _lines(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _certificates(folder: Path) -> None:
    (folder / "certificates").mkdir()
    (folder / "raw").mkdir()
    shutil.copy(ROOT / "results" / "raw" / "ar@nano.text-s1.nano.text.jsonl", folder / "raw")
    for name in ("ancestral.json", "controls.json"):
        shutil.copy(ROOT / "results" / "certificates" / name, folder / "certificates")


def _page(folder: Path) -> None:
    """Records that the page of results plots."""
    _certificates(folder)
    shutil.copy(ROOT / "results" / "raw" / "ar@nano.sudoku-s0.speed.sudoku.jsonl", folder / "raw")


def _judge(folder: Path) -> None:
    from repro.processes.left_to_right import LeftToRight

    lm_worlds.save(lm_worlds.model(LeftToRight()), folder / "judge")
    words = [" ".join(lm_worlds.words(i, 12)) for i in range(12)]
    _lines(folder / "samples.jsonl", [{"text": text} for text in words[:4]])
    _lines(folder / "ids.jsonl", [{"ids": [1, 2, 3, 4, 5, 6]} for _ in range(4)])
    _lines(folder / "real.jsonl", [{"text": text} for text in words])


def _pickled(folder: Path) -> None:
    made, weights = released.duo(folder / "made", folder.parent / "tokenizer" / "tokenizer.json")
    (folder / "pickled").mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(made / name, folder / "pickled")
    torch.save({"state_dict": dict(weights)}, folder / "pickled" / "last.ckpt")
    shutil.rmtree(made)


def _text(folder: Path) -> None:
    """A run on text, a task of the user, and corpora."""
    _text_run(folder)
    (folder / "task.yaml").write_text(TASK, "utf-8")
    rows = [{"start": "the ", "choices": ["end", "law"], "answer": i % 2} for i in range(2)]
    _lines(folder / "rows.jsonl", rows)
    documents = [8 * "the people of the states ", 8 * "the law of the land "]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n", "utf-8")
    _lines(folder / "corpus.jsonl", [{"text": text} for text in documents])


def _text_run(folder: Path) -> None:
    from repro.recipes.command import select
    from repro.training.loop import train

    small = ["backbone.width=32", "backbone.ffn=64", "batch=4", "micro_batch=4", "steps=1", "heldout_rows=4"]
    recipe = select(by_name("mdlm"), "nano.text", small)
    train(recipe, seed=0, out=folder / "run", stop=1, resume=False)


def _parity(folder: Path) -> None:
    from repro.evals.published import parity
    from repro.model import load

    released.duo(folder / "weights", folder.parent / "tokenizer" / "tokenizer.json")
    parity.record(load(folder / "weights"), folder / "fixture")


def _published(folder: Path) -> None:
    shutil.copy(ROOT / "evals" / "published.toml", folder)
    for name in ("checkpoints", "corpora", "reproduction"):
        shutil.copy(ROOT / "evals" / f"{name}.toml", folder)
    shutil.copy(ROOT / "evals" / "suites" / "nano.toml", folder)
    shutil.copy(ROOT / "evals" / "suites" / "silver.toml", folder)
    (folder / "raw").mkdir()
    shutil.copy(ROOT / "results" / "raw" / "ar@nano.text-s1.nano.text.jsonl", folder / "raw")


def _functions(folder: Path) -> None:
    for name in ("ancestral.py", "losses.py"):
        shutil.copy(ROOT / "examples" / "certify" / name, folder)


def _engine(folder: Path) -> None:
    """What a server is asked (`fuzz.servers`), and its right replies."""
    from fuzz import servers

    for name, path in lm_worlds.tasks(folder, rows=2).items():
        if name in ("choice", "writing"):
            path.rename(folder / ("task.yaml" if name == "choice" else "writing.yaml"))
    _lines(folder / "prompts.jsonl", [{"prompt": "ab", "answer": "a"}, {"prompt": "abc", "answer": "a"}])
    (folder / "reply.json").write_text(json.dumps(servers.BY_RULE), "utf-8")


def _crossed(folder: Path) -> None:
    """Records of a crossing of two settings."""
    from repro.evals.__main__ import main

    _text(folder)
    argv = ("--ckpt", "run", "--tasks", "task.yaml", "--factors", "batch=1|2,draws=2|4", "--out", "out")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        main([*argv, "--estimator", "llada_mc:batch=1,draws=2"])
    shutil.rmtree(folder / "runs", ignore_errors=True)


def _adapted(folder: Path) -> None:
    """A run that adapts weights in `base` by LoRA."""
    from helpers.adapted import whole_recipe

    from repro.training.loop import train

    with contextlib.chdir(folder):
        train(whole_recipe(Path("base")), seed=0, out=Path("run"), stop=1, resume=False)


def _checkouts(folder: Path) -> None:
    """Checkouts of two peers whose files hold nothing, and the suite's own stored results of peers."""
    for name in ("LLaDA/generate.py", "LLaDA/get_log_likelihood.py", "Fast-dLLM/llada/generate.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("def generate():\n    pass\n", "utf-8")
    for name in ("LLaDA", "Fast-dLLM"):
        git = ("git", "-C", str(folder / name), "-c", "user.name=a", "-c", "user.email=a@localhost")
        for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "Add files")):
            subprocess.run([*git, *words], check=True)
    (folder / "certificates").mkdir()
    shutil.copy(ROOT / "results" / "certificates" / "peers.json", folder / "certificates")
    (folder / "raw").mkdir()
    shutil.copy(ROOT / "results" / "raw" / "ar@nano.text-s1.nano.text.jsonl", folder / "raw")
    (folder / "bench").mkdir()
    shutil.copy(ROOT / "results" / "bench" / "peers.json", folder / "bench")


def _gguf(kind: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        tokenizer = folder.parent / "tokenizer" / "tokenizer.json"
        made = gguf_files.folder_of(kind, folder / "made", tokenizer)
        gguf_files.write(kind, made, folder / "tiny.gguf")
        shutil.rmtree(made)
        words = [" ".join(lm_worlds.words(i, 12)) for i in range(4)]
        _lines(folder / "samples.jsonl", [{"text": text} for text in words])

    return make


ASKED: dict[str, tuple[str, ...]] = {
    "chunks": (
        *("repro.evals", "--ckpt", "oracle:mdlm@nano", "--tasks", "law", "--samplers", "ancestral"),
        *("--samples", "20", "--tokens-per-step", "all", "--out", "out"),
    ),
    "bound_chunks": (
        *("repro.evals", "--ckpt", "run", "--corpus", "corpus.txt", "--limit", "1", "--out", "out"),
    ),
    "task_chunks": (
        *("repro.evals", "--ckpt", "run", "--tasks", "task.yaml", "--limit", "1", "--out", "out"),
    ),
}
"""World -> the command that was ended in it when all its chunks were stored, and the record not yet."""


def _interrupted(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from repro.evals import runner
        from repro.evals.__main__ import main

        if name != "chunks":
            _text(folder)
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.chdir(folder),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            patch.setattr(runner.SharedQueue, "finish", lambda queue: None)
            main(ASKED[name][1:])
        for path in (folder / "out" / "raw").iterdir():
            path.unlink()

    return make


def toy_pins() -> tuple[str, ...]:
    """Arguments that make a recipe a toy."""
    return tuple(word for pin in overrides("mdlm") for word in ("--set", pin))


def prepared_folder(folder: Path) -> Path:
    """The folder of the prepared corpus below the world `folder`."""
    return next((folder / "runs" / "data").glob("*/meta.json")).parent


def _corpus(folder: Path) -> None:
    from repro.data.corpus import prepared

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_RUNS", str(folder / "runs"))
        prepared(toy("mdlm").data)


def _launch(folder: Path) -> None:
    for path in (ROOT / "recipes" / "launch").glob("*.yaml"):
        shutil.copy(path, folder)


OTHERS: dict[str, Callable[[Path], None]] = {
    "mdlm_run": _run("mdlm"),
    "ar_run": _run("ar"),
    "records": _records,
    "certificates": _certificates,
    "page": _page,
    "judge": _judge,
    "pickled": _pickled,
    "text": _text,
    "parity": _parity,
    "published": _published,
    "functions": _functions,
    "gguf": _gguf("llama"),
    "gguf_llada": _gguf("llada"),
    "chunks": _interrupted("chunks"),
    "bound_chunks": _interrupted("bound_chunks"),
    "task_chunks": _interrupted("task_chunks"),
    "corpus": _corpus,
    "engine": _engine,
    "crossed": _crossed,
    "adapted": _adapted,
    "checkouts": _checkouts,
    "launch": _launch,
}


def header(path: Path) -> tuple[dict, bytes]:
    """The header of a safetensors file, and the bytes behind it."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def write_header(path: Path, head: dict, rest: bytes) -> None:
    """Write a safetensors file with the header `head`, however wrong, before the bytes `rest`."""
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + rest)
