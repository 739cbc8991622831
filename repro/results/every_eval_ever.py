"""Records as files of Every Eval Ever, a shared format of evaluation results (arXiv:2606.14516; schema 0.3.0,
evaleval/every_eval_ever: `every_eval_ever/schemas/eval.schema.json`).

    files = export(latest(collect(RAW)))      # path below the output folder -> JSON text

One file holds the results of one checkpoint (with its train seed) in one suite and numerics class (device, dtype, ...).
The format has no fields for what decides a diffusion language model's result: sampler, forward passes, tokens per step,
precision and seeds stand in its `additional_details`, whose values are strings. The package `every-eval-ever` is not
imported: its pins of huggingface_hub and rich exclude ours, so `make test-exports` runs its validator in an environment
of its own.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from repro.core.parts import sha256
from repro.core.stats import wilson
from repro.results.record import Json, Metric, Record, text
from repro.results.shares import NAMES, interval, is_share, stem

SCHEMA = "0.3.0"
LIBRARY = "dlm-repro"
UNBOUNDED = ("-Infinity", "Infinity")
LEVEL = 0.95


@dataclass(frozen=True)
class Meaning:
    """What a metric is: its family (`kind`), unit, range (`least`, `most`) and whether lower is better (`lower`).
    `target`: the best value of a metric for which neither lower nor higher is better; its `lower` is set only because
    the format requires it."""

    kind: str
    unit: str
    lower: bool
    least: float | str = 0
    most: float | str = "Infinity"
    target: str = ""


SHARE = Meaning("accuracy", "proportion", False, 0, 1)
EQUAL = Meaning("equal_texts", "proportion", False, 0, 1)
NATS = Meaning("negative_log_likelihood", "nats per token", True)
MEANINGS: dict[str, Meaning] = {
    "|".join(sorted(NAMES)): SHARE,
    r"accuracy_(?P<draws>\d+|exact)": Meaning("accuracy_over_draws", "proportion", False, 0, 1),
    r"nll(?:_bound|_truncated|_exact)?": NATS,
    r"ppl(?:_bound|_truncated)?|word_perplexity|byte_perplexity": Meaning(
        "perplexity", "perplexity", True, 1
    ),
    r"bits_per_byte(?:_bound|_truncated)?": Meaning("bits_per_byte", "bits per byte", True),
    r"bits_per_word(?:_bound|_truncated)?": Meaning("bits_per_word", "bits per word", True),
    r"gap": Meaning("bound_gap", "nats per token", True, *UNBOUNDED),
    r"excess": Meaning("excess_cross_entropy", "nats per token", True, *UNBOUNDED, target="0"),
    r"bigram": Meaning("bigram_distance_squared", "squared distance", True, *UNBOUNDED, target="0"),
    r"gen_ppl": Meaning("generative_perplexity", "perplexity", True, 1, target="that of real text"),
    r"entropy": Meaning("unigram_entropy", "nats per token", False, target="that of real text"),
    r"distinct_(?P<n>\d)": Meaning("distinct_ngrams", "proportion", False, 0, 1, "that of real text"),
    r"mauve|mauve_mean": Meaning("mauve", "score", False, 0, 1),
    r"(?P<cache>prefix|dual)_(?P<refresh>\w+)_kl": Meaning("cache_kl", "nats per token", True),
    r"(?P<cache>prefix|dual)_(?P<refresh>\w+)_changed": Meaning("cache_changed", "proportion", True, 0, 1),
    r"bias_(?P<draws>\d+)": Meaning("estimator_bias", "nats", True, *UNBOUNDED, target="0"),
    r"variance_(?P<draws>\d+)": Meaning("estimator_variance", "nats squared", True),
    r"flips_(?P<draws>\d+)": Meaning("flipped_answers", "proportion", True, 0, 1),
    r"choice_draws:forwards_(?P<draws>\d+)": Meaning("forwards", "forward passes per answer", True),
    r"rounds_(?P<states>\d+)": Meaning("sequential_forwards", "forward passes per token", True),
    r"(?:lookahead_cost|prompted_lookahead):forwards_(?P<states>\d+)": Meaning(
        "states_forwarded", "states per token", True
    ),
    r"tokens_(?P<states>\d+)": Meaning("tokens_forwarded", "ratio to one token per step", True),
    r"equal_(?P<states>\d+)": EQUAL,
    r"parallel_agreement:equal": EQUAL,
    r"parallel_agreement:same": Meaning("equal_tokens", "proportion", False, 0, 1),
    r"parallel_agreement:(?:reference_)?right": Meaning("tokens_of_held_out_text", "proportion", False, 0, 1),
    r"pass_(?P<k>\d+)": Meaning("pass_at_k", "proportion", False, 0, 1),
    r"pass_at_k:flips": Meaning("flipped_answers_of_two_draws", "proportion", True, 0, 1),
}
"""Regular expression of a metric's name, or of `CLASS:NAME` (registered name of the task's class) where tasks use one
name differently -> its meaning; named groups are its parameters. docs/results.md and the tasks' docstrings say more."""
REFERENCE = "true_"
"""Prefix of the name of a metric computed on equally many texts of the true law; exported as a detail of that metric,
because it is no result of the model."""
NO_RESULT = re.compile(r"documents(?:_\w+)?|ids_scored|draws_error|\w+_(?:clusterings|tokens)")
"""Metrics that say how a result was computed: how much of a text was scored, what the draws add to an error."""
NO_MODEL = frozenset({"training_curve", "naive_mauve"})
"""Registered names of tasks whose metrics are no results of a model: training losses of different objectives are not
comparable, and the texts of `naive_mauve` come from no model."""


@dataclass
class Export:
    """Files to write (path -> text), number of `results` in them, and what was left out (`unknown`: metric -> name of a
    task that has the metric)."""

    files: dict[str, str] = field(default_factory=dict)
    results: int = 0
    unknown: dict[str, str] = field(default_factory=dict)


def meaning(metric: str, part: str | None = None) -> tuple[Meaning, dict[str, str]] | None:
    """The meaning of a metric and the parameters in its name (`pass_4` -> k: 4), found in MEANINGS by the name (without
    lm-eval's filter) and `part`, the registered name of its task's class; None if MEANINGS has no such metric."""
    name = stem(metric)
    for pattern, found in MEANINGS.items():
        match = re.fullmatch(pattern, name) or re.fullmatch(pattern, f"{part}:{name}")
        if match:
            return found, {name: value for name, value in match.groupdict().items() if value is not None}
    return None


def export(records: Sequence[Record], organisation: str = LIBRARY) -> Export:
    """The records as files `data/SUITE/DEVELOPER/MODEL/UUID.json`, the layout that the format's datastore has.

    Pure function of the records: the UUID is made of the hashes of a file's records. `organisation`: who ran the
    evaluations, and the developer of models whose name has none. A metric without a line in MEANINGS is left out and
    listed, because the format wants to know whether lower is better. ValueError if there is nothing to export, or for
    an organisation that cannot be the name of a folder everywhere.
    """
    if not re.fullmatch(r"\w[\w+-]{0,80}", organisation, re.ASCII) or organisation == "data":
        raise ValueError(
            f"organisation {organisation[:80]!r} is no name of a folder; give letters, digits, _, + and -"
        )
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.id, record.sha256)):
        if record.question.task.get("part") not in NO_MODEL:
            network = text(record.question.checkpoint)
            place = (record.labels.checkpoint, record.labels.suite, network)
            groups.setdefault((*place, text(record.measurements.numerics)), []).append(record)
    made = Export()
    for group in groups.values():
        results = [result for record in group for result in _results(record, made.unknown)]
        if results:
            path, data = _log(group, results, organisation)
            made.files[path] = json.dumps(data, indent=1, allow_nan=False) + "\n"
            made.results += len(results)
    if not made.files:
        raise ValueError("no records with results of a model; give --raw a folder that holds some")
    return made


def _log(group: Sequence[Record], results: Sequence[Json], organisation: str) -> tuple[str, Json]:
    """Path and content of the file that holds the exported metrics `results` of the records `group`, which have one
    checkpoint, suite and numerics class (device, dtype, ...) in common."""
    first = group[0]
    model = _model_id(first.labels.checkpoint, organisation)
    own = "/" not in first.labels.checkpoint
    last = max(datetime.fromisoformat(record.measurements.created) for record in group)
    stamp = str(int(last.timestamp()))
    name = uuid.UUID(bytes=bytes.fromhex(sha256(" ".join(record.sha256 for record in group)))[:16], version=4)
    developer, _, short = model.partition("/")
    suite = _portable(first.labels.suite)
    versions = dict(first.measurements.versions)
    data = {
        "schema_version": SCHEMA,
        "evaluation_id": f"{suite}/{model}/{stamp}/{name}",
        "retrieved_timestamp": stamp,
        "evaluation_timestamp": stamp,
        "source_metadata": {
            "source_name": LIBRARY,
            "source_type": "evaluation_run",
            "source_organization_name": organisation,
            "evaluator_relationship": "first_party" if own else "third_party",
        },
        "eval_library": {
            "name": LIBRARY,
            "version": versions.pop(LIBRARY, "unknown"),
            "additional_details": {**versions, "commit": first.measurements.commit or "unknown"},
        },
        "model_info": _model(first, model, own),
        "evaluation_results": list(results),
    }
    return f"data/{suite}/{developer}/{short.replace('/', '_')}/{name}.json", data


def _portable(name: str) -> str:
    """`name` with the characters replaced that the format's datastore does not allow in a path."""
    return re.sub(r'[<>:"\\|?*\x00-\x1f]', "_", name).strip(" .") or "_"


def _model_id(checkpoint: str, organisation: str) -> str:
    """DEVELOPER/MODEL of a checkpoint; names without a developer belong to the organisation."""
    name = _portable(checkpoint)
    return name if "/" in name else f"{organisation}/{name}"


def _model(record: Record, model: str, own: bool) -> Json:
    """The format's `model_info`: the weights of a record and the numerics class (device, dtype, ...) in which they were
    run. `model`: DEVELOPER/MODEL; `own`: whether the checkpoint's own name has no developer, so that DEVELOPER is the
    evaluating organisation."""
    checkpoint, numerics = record.question.checkpoint, record.measurements.numerics
    return {
        "name": record.labels.marked(record.labels.checkpoint),
        "id": model,
        "developer": model.partition("/")[0],
        "additional_details": {
            "deployment_type": "self_deployed",
            "model_availability": "unknown" if own else "open_weights",
            "recipe": record.labels.recipe,
            "recipe_sha256": checkpoint.recipe,
            "checkpoint_sha256": checkpoint.digest,
            "train_seed": str(checkpoint.seed),
            "training_step": str(checkpoint.step),
            "weights": checkpoint.weights,
            "precision": numerics.dtype,
            "device": numerics.device,
            "attention": numerics.attention,
            "threads": str(numerics.threads),
            "torch": numerics.torch,
        },
    }


def _results(record: Record, unknown: dict[str, str]) -> list[Json]:
    """The results of a record, one per metric with a meaning in MEANINGS. Other metrics are added to `unknown` (metric
    -> task), except those of true samples, of clusterings and of tokens, which are left out."""
    metrics = record.answer.metrics
    results = []
    for name, metric in metrics.items():
        found = meaning(name, record.question.task.get("part"))
        if found is not None:
            results.append(_result(record, name, metric, *found))
        elif not name.startswith(REFERENCE) and not NO_RESULT.fullmatch(name):
            unknown[name] = record.labels.task
    return results


def _result(record: Record, name: str, metric: Metric, known: Meaning, parameters: Json) -> Json:
    labels, question = record.labels, record.question
    details = {"n": str(metric.n)}
    reference = record.answer.metrics.get(REFERENCE + name)
    if reference is not None:
        details |= {"true_samples": repr(reference.value), "true_samples_se": repr(reference.se)}
    if labels.note:
        details["note"] = labels.note
    config: Json = {
        "metric_id": f"{LIBRARY}.{known.kind}",
        "metric_name": name,
        "metric_kind": known.kind,
        "metric_unit": known.unit,
        "lower_is_better": known.lower,
        "score_type": "continuous",
        "min_score": known.least,
        "max_score": known.most,
        "additional_details": {"protocol": text(question.protocol)},
    }
    if parameters:
        config["metric_parameters"] = parameters
    if known.target:
        config["additional_details"]["best_value"] = known.target
    return {
        "evaluation_result_id": f"{record.sha256[:16]}/{name}",
        "evaluation_name": labels.task,
        "source_data": {
            "dataset_name": labels.task,
            "source_type": "other",
            "additional_details": {"task": text(question.task), "limit": str(question.limit or "whole task")},
        },
        "evaluation_timestamp": record.measurements.created,
        "metric_config": config,
        "score_details": {
            "score": metric.value,
            "details": details,
            "uncertainty": _uncertainty(name, metric, known),
        },
        "generation_config": _generation(record),
    }


def _uncertainty(name: str, metric: Metric, known: Meaning) -> Json:
    """The format's `uncertainty` of the metric `name`: standard error and 95 % interval, Wilson's for a share of
    independent texts, else 1.96 standard errors; without a standard error the number of rows alone, and no interval
    where all rows are equal, so that their spread is unknown."""
    value = metric.value
    found: Json = {"num_samples": metric.n}
    if metric.se is None:
        return found
    found["standard_error"] = {"value": metric.se}
    share = (known in (SHARE, EQUAL) and 0 <= value <= 1) or is_share(name, value, metric.se, metric.n)
    ends = wilson(value, metric.n, LEVEL) if share else interval(name, metric)
    if ends is not None:
        found["confidence_interval"] = {
            "lower": ends[0],
            "upper": ends[1],
            "confidence_level": LEVEL,
            "method": "Wilson" if share else "normal approximation",
        }
    return found


def _generation(record: Record) -> Json:
    """The format's `generation_config`: the sampler, what it cost and its seed; empty arguments where nothing is
    decoded."""
    question, answer, labels = record.question, record.answer, record.labels
    details = {"sampling_seed": str(question.seed), "evaluation_sha256": record.id}
    arguments: Json = {}
    if question.sampler is not None:
        temperature = _temperature(question.sampler)
        if temperature is not None:
            arguments["temperature"] = temperature
        length = (question.plan or {}).get("gen_length")
        if isinstance(length, int) and length > 0:
            arguments["max_tokens"] = length
        details |= {"sampler": labels.preset or "", "sampler_settings": text(question.sampler)}
        details |= {
            "decoding_plan": text(question.plan),
            "tokens_per_step": labels.tokens_per_step or "adaptive",
        }
    details |= _numbers({"nfe": answer.nfe, "tokens_per_nfe": answer.tokens_per_nfe})
    if record.measurements.speed:
        speed = record.measurements.speed
        details |= {"engine": speed.engine, "timed_on": speed.device, "speed": text(speed)}
    return {"generation_args": arguments, "additional_details": details}


def _temperature(sampler: Json) -> float | None:
    """Temperature of the softmax from which a sampler draws tokens; None if no setting gives it. The temperature of a
    corrector does not count, because a corrector draws positions, not tokens, with it."""
    if sampler.get("part") == "shaped":
        return _temperature(sampler["shape"]) or _temperature(sampler["rule"])
    found = None if str(sampler.get("part")).startswith("corrector") else sampler.get("temperature")
    return found if isinstance(found, int | float) else None


def _numbers(given: Mapping[str, float | None]) -> dict[str, str]:
    """The given numbers that are known (not None), as strings."""
    return {name: repr(value) for name, value in given.items() if value is not None}
