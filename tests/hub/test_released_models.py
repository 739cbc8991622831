"""Released weights are sampled and scored as any model; chat templates."""

from __future__ import annotations

import json
import shutil

import msgspec
import pytest
import torch
from helpers import lm_worlds, released, tiny_tokenizer
from helpers.released import (
    SIZES,
    bd3,
    duo,
    llada,
    mdlm,
)
from transformers import (
    ModernBertConfig,
    ModernBertForMaskedLM,
)

from repro import load, sample
from repro import model as models
from repro.evals.__main__ import main as evals
from repro.hub import catalogue as checkpoints
from repro.hub.release import fingerprint, open_release

IDS_OF = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}


tokenizer = released.tokenizer  # a fixture


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))


# --- a model like any other ---------------------------------------------------------------------------------


def mdlm_conditional(folder, tokenizer):
    return mdlm(folder, tokenizer, True)


@pytest.mark.parametrize("write", [llada, mdlm_conditional, duo])
def test_a_release_is_sampled(write, tmp_path, tokenizer):
    """From a prompt at T = 0 by the default preset, with a KV cache where the network supports one."""
    model = load(write(tmp_path / "release", tokenizer)[0])
    assert model.folder is None and model.data.encode("What is") == model.data.prompt("What is")
    cache = "prefix" if model.recipe.process.masks and not model.denoiser.time_conditioned else None
    one, other = (
        sample(model, ["What is"], gen_length=8, steps=4, block_length=4, cache=cache) for _ in range(2)
    )
    assert one == other and (write is duo or "[MASK]" not in one[0])
    with pytest.raises(ValueError, match="one set of released weights"):
        load(tmp_path / "release", weights="ema")


@pytest.mark.parametrize("write", [llada, duo])
def test_a_release_is_scored(write, tmp_path, tokenizer):
    """`repro.evals --ckpt FOLDER` needs a task that brings its own data; the error without one says so."""
    folder, _ = write(tmp_path / "release", tokenizer)
    with pytest.raises(ValueError, match="suite 'released' holds no task; name some with --tasks"):
        evals(["--ckpt", str(folder)])
    chosen = str(lm_worlds.tasks(tmp_path, rows=2)["choice"])
    assert evals(["--ckpt", str(folder), "--tasks", chosen, "--out", str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out" / "raw").glob("*.jsonl")
    (checkpoint,) = {
        json.dumps(json.loads(line)["question"]["checkpoint"])
        for line in file.read_text("utf-8").splitlines()
    }
    opened = open_release(folder)
    assert json.loads(checkpoint)["digest"] == opened.digest()
    assert json.loads(checkpoint)["recipe"] == opened.release.digest()


def test_weights_of_another_checkpoint_are_refused(tmp_path, tokenizer, monkeypatch):
    """Duo and its distilled student share a configuration; with a resolved fingerprint, a mix-up is an error."""
    folder, _ = duo(tmp_path / "duo", tokenizer)
    mine = fingerprint(open_release(folder))
    assert load(folder).recipe.name == "duo"

    def resolved(name):
        table = checkpoints.read()
        return table | {name: msgspec.structs.replace(table[name], fingerprint=mine)}

    for name, fits in (("s-sahoo/duo", True), ("s-sahoo/duo-distilled", False)):
        monkeypatch.setattr(models, "read", lambda name=name: resolved(name))
        if fits:
            load(folder)
        else:
            with pytest.raises(ValueError, match="these weights are s-sahoo/duo-distilled, not s-sahoo/duo"):
                load(folder)


# --- chat templates -----------------------------------------------------------------------------------------


def tulu(folder, tokenizer, **words):
    """The reference script's checkpoint as transformers saves it, in a folder with its name on the Hub."""
    torch.manual_seed(0)
    theirs = ModernBertForMaskedLM(ModernBertConfig(**SIZES, **IDS_OF, intermediate_size=48))
    theirs.save_pretrained(folder)
    shutil.copy(tokenizer, folder)
    special = {f"{kind}_token": token for kind, token in tiny_tokenizer.SPECIALS.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(special | words), "utf-8")
    return folder


def test_templates_of_the_reference_script(tmp_path, tokenizer):
    """Its name on the Hub selects the script's template. The README's has no [CLS] and loses the last newline, which
    the mask token strips where the masks are appended as text (docs/method.md#masked-script)."""
    folder = tulu(tmp_path / "modernbert-dllm-tulu", tokenizer)
    plain = load(folder, template="none").data
    data, readme = load(folder).data, load(folder, template="seed_readme").data
    text = "User: Why?\n[SEP]\nAssistant:\n"
    assert plain.prompt("Why?") == plain.encode("Why?")
    assert data.prompt("Why?") == [tiny_tokenizer.CLS, *plain.encode(text)]
    pasted = plain.encode(text + "[MASK]" * 3)
    assert readme.prompt("Why?") + [tiny_tokenizer.MASK] * 3 == pasted
    assert len(data.prompt("Why?")) == len(readme.prompt("Why?")) + 2
    model = load(folder)
    (answer,) = sample(model, ["Why?"], gen_length=5, steps=5)
    assert "[MASK]" not in answer and model.recipe.digest() != load(folder, template="none").recipe.digest()


JINJA = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize("file", [True, False])
def test_a_tokenizers_own_template(file, tmp_path, tokenizer):
    """From tokenizer_config.json or a file beside it; for a left-to-right model the process adds the BOS."""
    words = {"bos_token": "[CLS]", "eos_token": "[SEP]"} | ({} if file else {"chat_template": JINJA})
    folder = tulu(tmp_path / "own", tokenizer, **words)
    if file:
        (folder / "chat_template.jinja").write_text(JINJA, "utf-8")
    data = load(folder, template="own").data
    assert data.prompt("Why?") == data.encode("[CLS]<user>Why?[SEP]<assistant>")
    ar, _ = bd3(tmp_path / "ar", tokenizer, adaln=False, cross=False, causal=True)
    (ar / "tokenizer_config.json").write_text(json.dumps(words | {"chat_template": JINJA}), "utf-8")
    assert load(ar, template="own").data.prompt("Why?") == data.encode("<user>Why?[SEP]<assistant>")


def test_unavailable_templates(tmp_path, tokenizer):
    folder, _ = llada(tmp_path / "llada", tokenizer)
    with pytest.raises(ValueError, match=r"has no chat_template, and there is no chat_template.jinja"):
        load(folder, template="own")
    with pytest.raises(
        ValueError, match="has sep_token None and cls_token None, but the chat template needs both"
    ):
        load(folder, template="seed")
    (folder / "chat_template.jinja").write_text("{% if %}", "utf-8")
    with pytest.raises(ValueError, match="chat template cannot be rendered") as error:
        load(folder, template="own").data.prompt("Why?")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="with prompts as in its training data"):
        load(tmp_path, template="own")
