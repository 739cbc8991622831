"""Toy models and tasks for lm-eval: characters as tokens, random Llamas, three tasks on local files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from repro.core import rng
from repro.core.parts import part
from repro.data.corpus import Data, Vocabulary
from repro.data.language import read_symbols
from repro.model import Model
from repro.models.llama import Llama
from repro.processes.absorbing import Absorbing
from repro.processes.prediction import Role

ALPHABET = " abcdefghijklmnopqrstuvwxyz.?:\n"
EOS, BOS = len(ALPHABET), len(ALPHABET) + 1


@part
class Letters(Data):
    """One id for each character, then EOS and BOS, then a mask if `masked` is 1."""

    length: int
    masked: int

    def vocabulary(self) -> Vocabulary:
        size = BOS + 1
        mask = size if self.masked else None
        return Vocabulary(size=size, total=size + self.masked, mask=mask, bos=BOS, eos=EOS, pad=None)

    def row_length(self) -> int:
        return self.length

    def encode(self, text: str) -> list[int]:
        return read_symbols(text, ALPHABET)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join((*ALPHABET, "", "")[i] for i in ids)


@part
class Asked(Letters):
    """Letters whose prompts go through a template such as 'q: {}' and a newline."""

    template: str

    def prompt(self, text: str) -> list[int]:
        return [BOS, *self.encode(self.template.format(text))]


def model(process: Any, data: Data | None = None, deviation: float = 0.4, seed: int = 0) -> Model:
    """A Model of a random Llama with two layers."""
    causal = process.causal
    data = data or Letters(length=48, masked=0 if causal else 1)
    pins = Llama(
        layers=2, width=32, heads=4, kv_heads=2, ffn=48,
        attention="causal" if causal else "bidirectional", rope_base=10_000.0, norm_eps=1e-5,
        learned_positions=0, tied=False, init_deviation=deviation,
    )  # fmt: skip
    role = Role(data, process.forbidden(data.vocabulary()), "x0_mean")
    recipe: Any = SimpleNamespace(process=process, name="toy", data=data)
    return Model(recipe, pins.module(role, seed).eval(), "raw", "toy", 0, 0, data, None, None)


def diffusion(**more: Any) -> Model:
    return model(Absorbing(), **more)


def save(ours: Model, folder: Path) -> Path:
    """Save the network as transformers' own Llama with the same tokenizer, for lm-eval's HFLM."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    network = ours.denoiser.network
    config = type(network.config)(**{**network.config.to_dict(), "bos_token_id": BOS, "eos_token_id": EOS})
    config.is_causal = True
    copy = LlamaForCausalLM(config)
    copy.load_state_dict(network.state_dict())
    copy.save_pretrained(folder)
    vocabulary = {character: i for i, character in enumerate(ALPHABET)} | {"</s>": EOS, "<s>": BOS}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="."))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    made.decoder = decoders.Fuse()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.save_pretrained(folder)
    return folder


# --- tasks ----------------------------------------------------------------------------------------------------


def words(name: int, count: int) -> list[str]:
    """`count` random words of one to six letters, keyed by `name`."""
    u = rng.uniform(rng.keys(11, rng.SENTENCE, name, list(range(count))), 7).tolist()
    return ["".join(chr(97 + int(26 * x)) for x in row[: 1 + int(6 * row[6])]) for row in u]


def tasks(folder: Path, rows: int = 6) -> dict[str, Path]:
    """YAML files of a multiple-choice, a rolling and a generating task, with their data."""
    documents = [
        {
            "q": " ".join(words(i, 3)),
            "choices": words(100 + i, 3),
            "answer": i % 3,
            "text": ". ".join(words(200 + i, 12)),
        }
        for i in range(rows)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents), "utf-8")
    head = "dataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
    metric = (
        "metric_list: [{{metric: {}, aggregation: {}, higher_is_better: true}}]\nmetadata: {{version: 1.0}}\n"
    )
    bodies = {
        "choice": 'output_type: multiple_choice\ndoc_to_text: "{{q}}"\ndoc_to_choice: "{{choices}}"\n'
        'doc_to_target: "{{answer}}"\n' + metric.format("acc", "mean"),
        "rolling": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{text}}"\n'
        + metric.format("word_perplexity", "weighted_perplexity"),
        "writing": 'output_type: generate_until\ndoc_to_text: "{{q}}"\ndoc_to_target: "{{choices[answer]}}"\n'
        "generation_kwargs: {until: ['.', 'q'], max_gen_toks: 8, do_sample: false}\n"
        + metric.format("exact_match", "mean"),
    }
    for name, body in bodies.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{head}{body}", "utf-8")
    return {name: folder / f"{name}.yaml" for name in bodies}
