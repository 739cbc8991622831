"""Synthetic records of every kind, for tests of tables, figures and statistics; no number here was measured."""

import math
import random

from repro.results.record import Question, make_record
from repro.results.store import Store

NUMERICS = {"device": "cpu", "dtype": "float32", "torch": "2.13.0", "attention": "sdpa", "threads": 1}
LEVELS = {"ar": 1.70, "llada": 1.82, "mdlm": 1.88, "duo": 2.40, "duo_nelbo": 2.01}


def question(recipe="mdlm@nano", task="bound", train_seed=0, **fields):
    """A question; `fields` override its fields, and `digest`, `step` and `weights` those of its checkpoint."""
    checkpoint = {
        "digest": f"weights of {recipe} {train_seed}",
        "recipe": f"pins of {recipe}",
        "seed": train_seed,
    }
    checkpoint |= {name: fields.pop(name, default) for name, default in (("step", 2000), ("weights", "raw"))}
    checkpoint["digest"] = fields.pop("digest", checkpoint["digest"])
    plain = {"task": {"name": task, "version": 1}, "sampler": None, "plan": None, "seed": 0, "limit": None}
    return Question.read(
        {"checkpoint": checkpoint, **plain, "protocol": {"rows": 500, "passes": 4}, **fields}
    )


def record(
    asked,
    metrics,
    *,
    recipe="mdlm@nano",
    checkpoint=None,
    preset=None,
    tokens=None,
    numerics=NUMERICS,
    suite="nano",
    **more,
):
    """A record; `metrics` is {name: (value, se, n)}; `more`: nfe, tokens_per_nfe, samples, curve, note, unfinished,
    weights."""
    note = {name: more.pop(name) for name in ("note", "unfinished", "weights") if name in more}
    labels = {
        "recipe": recipe,
        "checkpoint": checkpoint or recipe,
        "suite": suite,
        "task": asked.task["name"],
    }
    answer = {"nfe": None, "tokens_per_nfe": None, "samples": None, **more}
    answer["metrics"] = {
        name: dict(zip(("value", "se", "n"), found, strict=True)) for name, found in metrics.items()
    }
    day = {"versions": {"torch": "2.13.0"}, "commit": None, "created": "2026-11-24"}
    measurements = {"numerics": numerics, "seconds": 1.0, "tokens_per_second": None, **day}
    return make_record(
        asked, {**labels, "preset": preset, "tokens_per_step": tokens, **note}, answer, measurements
    )


def bound(recipe="mdlm@nano", train_seed=0, shift=0.0, **fields):
    """A record of task `bound`; its value depends on the recipe and slightly on the train seed."""
    value = (
        LEVELS.get(recipe.partition("@")[0], 2.2)
        + 0.005 * random.Random(f"{recipe} {train_seed}").gauss(0, 1)
        + shift
    )
    metrics = {"nll_bound": (value, 0.004, 4096), "ppl_bound": (math.exp(value), 0.03, 4096)}
    if recipe.endswith("@nano"):
        metrics |= {"nll_exact": (1.682, 0.002, 4096), "gap": (value - 1.682, 0.003, 4096)}
    return record(question(recipe, "bound", train_seed, **fields), metrics, recipe=recipe)


def law(checkpoint, preset, tokens, excess, bigram, train_seed=0, per_nfe=None):
    """A record of task `law`; an adaptive sampler has tokens=None and realised tokens per forward, `per_nfe`."""
    recipe = checkpoint.removeprefix("oracle:")
    asked = question(
        recipe,
        "law",
        train_seed,
        weights="exact" if recipe != checkpoint else "raw",
        sampler={"part": preset, "version": 1},
        plan={"part": "plan", "version": 1, "tokens": tokens},
    )
    per_nfe = per_nfe or (32 if tokens == "all" else float(tokens))
    metrics = {"excess": (excess, 0.02, 500), "bigram": (bigram, 0.002, 500)}
    metrics |= {"true_excess": (0.003, 0.02, 500), "true_bigram": (0.00002, 0.00004, 500)}
    costs = {"nfe": 32 / per_nfe, "tokens_per_nfe": per_nfe, "samples": "0" * 64}
    return record(asked, metrics, recipe=recipe, checkpoint=checkpoint, preset=preset, tokens=tokens, **costs)


def sudoku(recipe, preset, tokens, accuracy, train_seed=0, per_nfe=None):
    """A record of task `sudoku` over 500 puzzles."""
    sampler = {
        "sampler": {"part": preset, "version": 1},
        "plan": {"part": "plan", "version": 1, "tokens": tokens},
    }
    asked = question(recipe, "sudoku", train_seed, **sampler)
    per_nfe = per_nfe or (16 if tokens == "all" else float(tokens))
    metrics = {"accuracy": (accuracy, math.sqrt(accuracy * (1 - accuracy) / 500), 500)}
    costs = {"nfe": 16 / per_nfe, "tokens_per_nfe": per_nfe, "samples": "0" * 64}
    return record(asked, metrics, recipe=recipe, preset=preset, tokens=tokens, **costs)


def timed(
    recipe,
    preset,
    tokens,
    outcomes,
    forwards,
    train_seed=0,
    slow=1.0,
    numerics=NUMERICS,
    task="speed",
    **speed,
):
    """A speed record: `outcomes` has one digit per document of 16 tokens, each decoded in `forwards` forward passes;
    `speed` overrides measurements."""
    of = {"part": "harness_task", "version": 1, "name": "sudoku", "task": "sudoku"}
    pins = {"part": "decoding_speed", "version": 1, "name": task, "of": of}
    pins |= {"metric": "exact_match", "filter": "none"}
    sampler, plan = {"part": preset, "version": 1}, {"part": "plan", "version": 1, "tokens": tokens}
    asked = question(recipe, task, train_seed, sampler=sampler, plan=plan)
    asked = Question.read(asked.data() | {"task": pins})
    n = len(outcomes)
    share = outcomes.count("1") / n

    def counts(rows):
        return {
            "rows": rows,
            "committed": 16 * rows,
            "useful": 15 * rows,
            "forwards": round(forwards * rows),
            "further": 0,
            "refreshes": 0,
            "token_forwards": round(33 * forwards * rows),
        }

    each = 0.002 * forwards * slow
    batched = {"batch": 4, "passes": [0.2 * each * n, 0.25 * each * n, 0.21 * each * n], "counts": counts(n)}
    alone = {
        "median": each,
        "p95": 1.1 * each,
        "passes": [2 * each, 2.2 * each, 2.1 * each],
        "counts": counts(2),
    }
    measured = {"engine": "repro", "device": "toy", "clock": "process", "warmup": 1, **speed}
    measured |= {"latency": alone, "throughput": batched}
    made = record(
        asked,
        {"accuracy": (share, math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None, n)},
        recipe=recipe,
        preset=preset,
        tokens=tokens,
        numerics=numerics,
        nfe=float(forwards),
        tokens_per_nfe=16 / forwards,
        counts=counts(n),
        outcomes=outcomes,
        samples="0" * 64,
    )
    labels, answer = made.labels.data(), made.answer.data()
    return make_record(asked, labels, answer, made.measurements.data() | {"speed": measured})


def right(share, n=200, of="outcomes"):
    """Outcomes of n documents, about `share` of them correct; every setting finds the same documents hard."""
    hard = [random.Random(f"{of} {i}").random() for i in range(n)]
    return "".join("1" if each < share else "0" for each in hard)


def training(recipe, train_seed=0, steps=2000):
    """A record of task `training`: a noisy, falling loss and a held-out bound at every tenth of the run."""
    draw, level = random.Random(f"{recipe} {train_seed} curve"), LEVELS[recipe.partition("@")[0]]
    at = list(range(0, steps, 10))
    fall = [level + 1.7 * math.exp(-5 * step / steps) for step in at]
    held = list(range(steps // 10, steps + 1, steps // 10))
    curve = {
        "step": at,
        "loss": [value + draw.gauss(0, 0.1) for value in fall],
        "heldout_step": held,
        "nll_bound": [level + 1.7 * math.exp(-5 * step / steps) + draw.gauss(0, 0.01) for step in held],
    }
    metrics = {"loss": (level + draw.gauss(0, 0.003), None, len(at))}
    return record(question(recipe, "training", train_seed), metrics, recipe=recipe, curve=curve)


def caches(recipe, train_seed=0):
    """A record of task `caches`: both caches at two refresh intervals, and without refresh."""
    metrics = {}
    for cache, worse in (("prefix", 1.0), ("dual", 1.2)):
        for place, interval in enumerate(("1", "4", "never")):
            metrics[f"{cache}_{interval}_kl"] = (worse * 1e-3 * (1 + place), 1e-4, 64)
            metrics[f"{cache}_{interval}_changed"] = (worse * 0.01 * (place + 0.01 * train_seed), 0.005, 64)
            metrics[f"{cache}_{interval}_tokens"] = (0.6 - 0.1 * place, None, 64)
    return record(question(recipe, "caches", train_seed), metrics, recipe=recipe)


def draws(checkpoint, estimator, train_seed=0, shift=0.0, **fields):
    """A record of the suite `draws`: an estimator at two numbers of draws."""
    metrics = {"accuracy_exact": (0.8, 0.1, 60)}
    for count, forwards in ((8, 7.5), (128, 110.0)):
        metrics |= {
            f"accuracy_{count}": (0.7, 0.1, 60),
            f"flips_{count}": (0.2, 0.1, 60),
            f"bias_{count}": (-0.1, 0.1, 60),
            f"forwards_{count}": (forwards, 0.1, 60),
            f"variance_{count}": (4.0 / count + shift, 0.1, 60),
        }
    asked = question(checkpoint, estimator, train_seed, **fields)
    return record(
        asked, metrics, recipe=checkpoint.removeprefix("oracle:"), checkpoint=checkpoint, suite="draws"
    )


JUDGED = {"judge": "ar@nano.text", "judge_digest": "0" * 64, "rule": {"part": "every_token"}}


def quality(recipe, preset, tokens, gen_ppl, entropy, train_seed=0, protocol=JUDGED, **more):
    """A record of task `quality` over 256 samples; `more`: curves."""
    sampler, plan = {"part": preset, "version": 1}, {"part": "plan", "version": 1, "tokens": tokens}
    asked = question(recipe, "quality", train_seed, sampler=sampler, plan=plan, protocol=protocol)
    metrics = {
        "gen_ppl": (gen_ppl, 0.1, 256),
        "entropy": (entropy, 0.01, 256),
        "true_gen_ppl": (7.0, 0.1, 256),
    }
    costs = {"nfe": 64 / float(tokens), "tokens_per_nfe": float(tokens), "samples": "0" * 64}
    return record(asked, metrics, recipe=recipe, preset=preset, tokens=tokens, **costs, **more)


def sampled(recipe, preset, tokens, log_ppl, entropy, train_seed=0, count=64):
    """A record of task `quality` with numbers per sample: rows of 8 tokens, spread about both means."""
    draw = random.Random(f"{recipe} {preset} {tokens} {train_seed}")
    shared = [random.Random(i).gauss(0, 1) for i in range(count)]
    nll = [8 * (log_ppl + 0.2 * (each + 0.3 * draw.gauss(0, 1))) for each in shared]
    own = [entropy + 0.02 * (each + 0.3 * draw.gauss(0, 1)) for each in shared]
    curve = {"nll": nll, "tokens": [8.0] * count, "entropy": own}
    found = math.exp(sum(nll) / (8 * count)), sum(own) / count
    return quality(recipe, preset, tokens, *found, train_seed, curve=curve)


def naive(recipe, train_seed=0, protocol=JUDGED):
    """A record of task `naive`; its numbers do not depend on the model."""
    metrics = {}
    for kind, gen_ppl, entropy in (("real", 7.0, 2.6), ("repetition", 4.0, 1.7), ("unigram", 30.0, 2.7)):
        metrics |= {f"{kind}_gen_ppl": (gen_ppl, 0.1, 256), f"{kind}_entropy": (entropy, 0.01, 256)}
    return record(question(recipe, "naive", train_seed, protocol=protocol), metrics, recipe=recipe)


def paper(seeds=(0, 1, 2)):
    """Records for every table and figure, in no particular order."""
    made = []
    spread = {"ancestral": (0.0, 0.0), "low_confidence": (-0.3, 0.05), "random": (0.02, 0.003)}
    networks = {
        "oracle:mdlm@nano": 0,
        "mdlm@nano": 0.2,
        "llada@nano": 0.14,
        "duo_nelbo@nano": 0.33,
        "duo@nano": 0.7,
    }
    for seed in seeds:
        draw = random.Random(seed)
        for family in LEVELS:
            made += [bound(f"{family}@nano", seed), training(f"{family}@nano", seed)]
        made += [draws("mdlm@nano", "levels", seed), draws("mdlm@nano", "pilot", seed)]
        made += [bound("ar@nano.text", seed), bound("mdlm@nano.text", seed), training("mdlm@nano.text", seed)]
        made.append(law("ar@nano", "sample", "1", 0.005 + draw.gauss(0, 0.01), 0.0004, seed))
        for checkpoint, error in networks.items():
            presets = spread if "duo" not in checkpoint else ["ancestral"]
            for preset in presets:
                for tokens in ("1", "2", "4", "8", "all"):
                    width = 32 if tokens == "all" else int(tokens)
                    excess = (
                        error
                        + 0.13 * width**0.98 * (32 / (28 + width))
                        + spread[preset][0]
                        + draw.gauss(0, 0.02)
                    )
                    bigram = 0.1 * (width / 32) ** 1.2 + error / 30 + spread[preset][1] + draw.gauss(0, 0.001)
                    made.append(law(checkpoint, preset, tokens, excess, bigram, seed))
            if "duo" not in checkpoint:
                made.append(law(checkpoint, "threshold_0.9", None, error, 0.06, seed, per_nfe=1.3))
        for cold, temperature in enumerate(("1.0", "0.85", "0.7")):
            for tokens in ("1", "4"):
                preset, level = f"random:temperature={temperature}", 9 - 2 * cold + float(tokens)
                made.append(
                    quality("mdlm@nano.text", preset, tokens, level + seed / 10, 2.6 - cold / 10, seed)
                )
        made += [quality("ar@nano.text", "sample", "1", 7.5, 2.6, seed), naive("mdlm@nano.text", seed)]
        for temperature in (0.7, 0.85):
            preset, log_ppl = f"sample:temperature={temperature}", 1.2 + 0.8 * temperature
            made.append(sampled("ar@nano.text", preset, "1", log_ppl, 2.3 + 0.3 * temperature, seed))
            preset = f"ancestral+tempered:temperature={temperature}"
            made.append(sampled("mdlm@nano.text", preset, "1", log_ppl + 0.1, 2.3 + 0.3 * temperature, seed))
        made += [
            draws(name, rule, seed)
            for name in ("oracle:mdlm@nano", "mdlm@nano")
            for rule in ("levels", "pilot")
        ]
        made += [caches("llada@nano.sudoku", seed), caches("mdlm@nano.text", seed)]
        made.append(sudoku("ar@nano.sudoku", "greedy", "1", 0.9 + 0.01 * seed, seed))
        for tokens, accuracy in (("1", 0.97), ("2", 0.79), ("4", 0.59), ("all", 0.21)):
            made.append(sudoku("llada@nano.sudoku", "low_confidence", tokens, accuracy + 0.004 * seed, seed))
            made.append(sudoku("llada@nano.sudoku", "random", tokens, accuracy - 0.05 + 0.004 * seed, seed))
            made.append(
                sudoku("duo_nelbo@nano.sudoku", "ancestral", tokens, accuracy - 0.1 + 0.004 * seed, seed)
            )
        made.append(
            sudoku("llada@nano.sudoku", "threshold_0.9", None, 0.96 + 0.004 * seed, seed, per_nfe=3.6)
        )
        made.append(timed("ar@nano.sudoku", "greedy", "1", right(0.9), 16, seed, slow=0.2))
        for tokens, share in (("1", 0.98), ("2", 0.9), ("4", 0.75)):
            each = 16 / int(tokens)
            made.append(timed("llada@nano.sudoku", "low_confidence", tokens, right(share), each, seed))
            made.append(timed("duo_nelbo@nano.sudoku", "ancestral", tokens, right(share - 0.1), each, seed))
        for pin, forwards in (("", 2.5), (":threshold=0.5", 2.0)):
            preset = f"threshold_0.9{pin}"
            made.append(timed("llada@nano.sudoku", preset, None, right(0.97), forwards, seed))
    return made


def store(folder, records):
    """The records written to a folder."""
    for each in records:
        Store(folder).append(each)
    return folder
