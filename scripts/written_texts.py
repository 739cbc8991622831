"""Let SmolLM2-135M-Instruct write the texts that keep the recipe `smollm2_block4` general, one JSON object a line.

    python -m scripts.written_texts              write evals/data/written.jsonl and print its SHA-256 (10 to 20 minutes)
    python -m scripts.written_texts --check 64   exit code 1 if texts of the first 64 requests differ from those stored

Every form of request is put to the network about every topic, in its own chat template. An answer is drawn left to
right at `TEMPERATURE` and ends at the end of the turn, or with the last whole sentence within `LENGTH` tokens. A text
is the request, a line break and the answer. A draw depends on the seed and on the number of the request alone, but
logits differ in their last bits between processors, so that another processor writes other texts from some token on:
the recipe pins the SHA-256 of the stored file. Requests that got no whole sentence have no line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from repro.core.cli import Parser, natural, run
from repro.core.files import ROOT, write_text
from repro.evals.lm.prompts import encode_prompt
from repro.model import Model, load
from repro.models.products import multiply_by_onednn
from repro.samplers.decode import decode
from repro.samplers.plan import ServedPlan
from repro.samplers.presets import preset

FILE = ROOT / "evals" / "data" / "written.jsonl"
SEED, TEMPERATURE, LENGTH = 0, 0.7, 192
THREADS = 2
"""Number of threads, which changes the last bits of logits, and so a token now and then."""
BATCH = 64
"""Requests decoded at a time, which changes no draw."""
FORMS = (
    "What {be} {topic}?",
    "Explain {topic} in simple words.",
    "Why {do} {topic} matter to people?",
    "Tell a child about {topic}.",
    "Write a short story about {topic}.",
    "Write a letter to a friend about {topic}.",
    "Give three facts about {topic}.",
    "How {have} {topic} changed in the last hundred years?",
    "What do most people get wrong about {topic}?",
    "Describe {topic} to someone who has never heard of it.",
    "Write the first paragraph of a newspaper article on {topic}.",
    "What could a teacher say about {topic} in one minute?",
    "What would the world be like without {topic}?",
    "Write a conversation between two neighbours about {topic}.",
    "How does someone begin to learn about {topic}?",
    "What are the good and the bad sides of {topic}?",
    "Write a page of a diary that mentions {topic}.",
    "Which questions about {topic} are still open?",
    "What did your grandparents know about {topic}?",
    "Sum up what is known about {topic}.",
    "Give advice to someone who wants to know more about {topic}.",
)
TOPICS = """
    bread, the moon, rain, rivers, volcanoes, bees, cats, dogs, horses, whales, the oak tree, roses, mushrooms, rice,
    coffee, tea, salt, sugar, chocolate, cheese, apples, the potato, glass, paper, iron, gold, silk, cotton, bricks,
    bridges, railways, bicycles, ships, aeroplanes, the steam engine, electricity, the telephone, radio, computers,
    the printing press, clocks, maps, the compass, money, banks, markets, taxes, elections, courts of law, parliaments,
    schools, universities, libraries, museums, hospitals, vaccines, sleep, dreams, memory, language, the alphabet,
    numbers, geometry, probability, gravity, light, sound, heat, magnets, atoms, water, air, oceans, deserts,
    rain forests, glaciers, earthquakes, the seasons, stars, the sun, comets, evolution, dinosaurs, cells, the heart,
    the brain, teeth, birds, butterflies, fishing, farming, gardens, cooking, sewing, carpentry, painting, sculpture,
    poetry, novels, theatre, cinema, photography, music, the piano, singing, dancing, chess, football, running,
    swimming, walking in the mountains, travelling by train, friendship, kindness, courage, patience
    """
"""What the requests are about, separated by commas; a name that ends in s is a plural but for those of `SINGULAR`."""
SINGULAR = ("glass", "the compass", "chess")
VERBS = {"be": ("is", "are"), "do": ("does", "do"), "have": ("has", "have")}


def requests() -> list[str]:
    """The requests in order: each topic in every form. The number of forms has no divisor in common with the stride of
    held-out documents, so that every form is trained on and held out."""
    found = []
    for topic in " ".join(TOPICS.split()).split(", "):
        plural = topic.endswith("s") and topic not in SINGULAR
        verbs = {verb: forms[plural] for verb, forms in VERBS.items()}
        found += [form.format(topic=topic, **verbs) for form in FORMS]
    return found


def answers(model: Model, asked: Sequence[str], first: int) -> list[str]:
    """One answer to each request, "" where there is no whole sentence; `first` is the number of the first request."""
    prompts = [encode_prompt(model, request, "chat") for request in asked]
    plan = ServedPlan(gen_length=LENGTH, block_length=LENGTH, steps=LENGTH, cache=None, stop=model.stop_ids)
    rule, names = preset(f"sample:temperature={TEMPERATURE}"), range(first, first + len(asked))
    decoded = decode(model.denoiser, model.recipe.process, rule, plan, prompts, seed=SEED, names=names)
    found = []
    for row in decoded.ids.tolist():
        kept = model.before_stop(row)
        text = model.data.text(kept).strip()
        found.append(text if len(kept) < len(row) else whole_sentences(text))
    return found


def whole_sentences(text: str) -> str:
    """The beginning of a text up to the end of its last whole sentence; "" if it has none."""
    ends = [match.end() for match in re.finditer(r"[.!?][\"”')]*(?=\s|$)", text)]
    return text[: ends[-1]] if ends else ""


def lines(count: int) -> Iterator[str]:
    """Lines of the file for the first `count` requests, with a line of progress for each batch."""
    torch.set_num_threads(THREADS)
    model = load("smollm2", template="own")
    multiply_by_onednn(model.denoiser)
    asked = requests()[:count]
    for first in range(0, len(asked), BATCH):
        batch = asked[first : first + BATCH]
        made = zip(batch, answers(model, batch, first), strict=True)
        for request, answer in made:
            if answer:
                yield json.dumps({"text": f"{request}\n{answer}"}, ensure_ascii=False) + "\n"
        print(f"{first + len(batch)} of {len(asked)} requests", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 if `--check` finds other texts, else 0."""
    parser = Parser(
        "python -m scripts.written_texts",
        "Let SmolLM2 write the texts beside the State of the Union addresses (needs make models).",
        ["python -m scripts.written_texts", "python -m scripts.written_texts --check 64"],
    )
    parser.add_argument(
        "--check", type=natural, metavar="N", help="write nothing; compare the texts of the first N requests"
    )
    parser.add_argument("--out", type=Path, default=FILE, help="file to write (default: the committed one)")
    args = parser.parse_args(argv)
    wanted = len(requests()) if args.check is None else args.check
    text = "".join(lines(wanted))
    if args.check is None:
        write_text(args.out, text)
        print(f"{args.out.name} {hashlib.sha256(text.encode()).hexdigest()}")
    elif not args.out.read_text("utf-8").startswith(text):
        print(f"{args.out.name} begins with other texts than this processor writes")
        return 1
    return 0


if __name__ == "__main__":
    run(main, "scripts.written_texts")
