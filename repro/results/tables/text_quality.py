"""Quality of generated text, from records alone: the points of the plot of gen_ppl against entropy, and their tables.

    points(records)         one row per (checkpoint, sampler, tokens per step, temperature) or reference
    tables(records)         text_quality.md and .csv, matched.csv (differences at matched entropy)

gen_ppl (perplexity of generated text under a causal language model), the entropy of a sample's tokens and MAUVE are
printed together, because each alone can be improved at the expense of the others
(`repro.evals.text_quality.samples`). A panel is one suite at one scale of the recipe. Reference rows are scored like
samples but come from the data: held-out text, and rows that obtain one good number without being good text (a repeated
phrase; tokens drawn by frequency).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.results.difference import without
from repro.results.record import Record, text
from repro.results.store import by_cell, one_protocol, summarise, to_frame, tokens_order
from repro.results.tables.matched import (
    GENERATED,
    LEVEL,
    Difference,
    Sweep,
    differences,
    line_of,
    panel_of,
    sweeps,
)
from repro.results.tables.text import csv_text, grid, measured, page

if TYPE_CHECKING:
    from pandas import DataFrame

NAIVE = "naive"
REFERENCES = ("real", "repetition", "unigram")
NUMBERS = ("gen_ppl", "entropy", "distinct_2", "mauve", "mauve_mean")
PARTS = ("", "_se", "_sd_seeds")
COLUMNS = ["panel", "line", "recipe", "checkpoint", "tokens_per_step", "temperature"]
COLUMNS += ["gen_ppl", "gen_ppl_se", "gen_ppl_sd_seeds", "gen_ppl_low", "gen_ppl_high"]
COLUMNS += [f"{name}{part}" for name in NUMBERS[1:] for part in PARTS]
COLUMNS += ["mauve_clusterings_se", "mauve_mean_clusterings_se", "nfe", "n", "seeds"]
MATCHED = ["panel", "a", "b", "entropy", "difference", "low", "high", "se", "p"]
TITLE = "Quality of generated text"
CAPTION = (
    "gen_ppl: token-weighted perplexity of the samples under the judge, a causal language model; entropy: "
    "of the tokens of one sample, in nats; distinct 2: share of distinct 2-grams in a sample; MAUVE: from "
    "the judge's last hidden state, as published, against as many held-out rows (mean over clusterings), "
    "and from the mean of its hidden states. real: other held-out rows, whose MAUVE is that of a perfect "
    "model; repetition, unigram: rows with a good gen_ppl or entropy that are not good text. ±: half of "
    "the 95 % interval, 1.96 standard errors over samples, for MAUVE over samples and clusterings together; "
    "sd: standard deviation over train seeds."
)
MATCHED_CAPTION = (
    "Difference of log gen_ppl at equal entropy (a minus b; negative: a is better): at the entropy of real "
    "text, or at the nearest entropy that both sweeps reach. The 95 % interval comes from 1,000 bootstrap "
    "resamples of the samples, the same for both sweeps; p is adjusted by Holm over all pairs. Train seeds "
    "are not resampled, so intervals are about these networks."
)
REMEDY = "No records yet: `python -m repro.evals --suite quality.text`, then `python -m repro.results publish DIR`."


def points(records: Sequence[Record], swept: Sequence[Sweep]) -> DataFrame:
    """Frame with one row per point of the plot of generative perplexity (gen_ppl) against entropy, columns `COLUMNS`:
    gen_ppl, entropy and the other measures of quality with their errors, and the bootstrap interval of gen_ppl at the
    point's entropy, from the temperature sweeps `swept` of the records (`matched.sweeps`). `line`: a sampler, or one of
    the reference rows in REFERENCES. ValueError if two protocols would share a panel (suite and scale).

    Reference rows do not depend on a network: a panel has one point for each of them, whatever model its records name.
    """
    from pandas import DataFrame

    rows = to_frame(record for record in records if record.labels.task in (*GENERATED, NAIVE))
    rows = rows.assign(panel=[panel_of(*each) for each in zip(rows.suite, rows.recipe, strict=True)])
    for _, section in rows.groupby("panel"):
        one_protocol(section.assign(protocol=section.protocol.map(_without_draws)))
    for _, section in rows.groupby(["panel", "task"]):
        one_protocol(section)
    known = {(s.panel, s.checkpoint, s.sampler, s.tokens_per_step): s for s in swept}
    made = []
    for shared, by_metric in by_cell(summarise(rows)):
        label: dict[str, Any] = {name: "" for name in ("recipe", "checkpoint", "tokens_per_step")}
        label["panel"] = panel_of(shared.suite, shared.recipe)
        if shared.task == NAIVE:
            made += [{**label, "line": kind, **_numbers(by_metric, f"{kind}_")} for kind in REFERENCES]
            continue
        label |= {name: getattr(shared, name) for name in ("recipe", "checkpoint", "tokens_per_step", "nfe")}
        line, temperature = line_of(shared.preset)
        numbers = _numbers(by_metric, "")
        sweep = known.get((label["panel"], shared.checkpoint, line, shared.tokens_per_step))
        if sweep is not None:
            numbers["gen_ppl_low"], numbers["gen_ppl_high"] = sweep.band(numbers["entropy"])
        made.append({**label, "line": line, "temperature": temperature, **numbers})
    made.sort(key=_order)
    drawn = DataFrame(made, columns=COLUMNS)
    reference = drawn.line.isin(list(REFERENCES))
    return drawn[~(reference & drawn.duplicated(["panel", "line"]))].reset_index(drop=True)


def _without_draws(protocol: str) -> str:
    """Canonical JSON of a record's protocol (also canonical JSON) without its field `draws` (how tokens were drawn),
    which reference rows do not have."""
    return text(without(json.loads(protocol), "draws"))


def _numbers(by_metric: Mapping[str, Any], prefix: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in NUMBERS:
        if prefix + name in by_metric:
            row = by_metric[prefix + name]
            found |= {name: row.value, f"{name}_se": row.se, f"{name}_sd_seeds": row.sd_seeds}
            found |= {"n": row.n, "seeds": row.seeds}
    for name in ("mauve_clusterings", "mauve_mean_clusterings"):
        if prefix + name in by_metric:
            found[f"{name}_se"] = by_metric[prefix + name].se
    return found


def _order(point: dict) -> tuple:
    place = (point["checkpoint"], point["line"], tokens_order(point["tokens_per_step"]))
    return point["panel"], point["line"] in REFERENCES, *place, point.get("temperature", 0.0)


def compared(swept: Sequence[Sweep], drawn: DataFrame) -> list[Difference]:
    """Differences of log gen_ppl between temperature sweeps, each pair compared at the entropy of real text. That
    entropy is taken from the "real" row of each panel in `drawn`, the frame that `points` returns."""
    real = drawn[drawn.line == "real"]
    return differences(swept, dict(zip(real.panel, real.entropy, strict=True)))


# --- text ---------------------------------------------------------------------------------------------------


def tables(records: Sequence[Record]) -> dict[str, str]:
    """Texts of text_quality.md, text_quality.csv and matched.csv, by file name, from records without older versions of
    a component (`repro.results.versions.latest`)."""
    swept = sweeps(records)
    drawn = points(records, swept)
    found = compared(swept, drawn)
    parts = [CAPTION]
    for panel, rows in drawn.groupby("panel", sort=True):
        parts += [f"## {panel}", _samplers(rows)]
        own = [each for each in found if each.panel == panel]
        if own:
            parts += ["### At matched entropy", MATCHED_CAPTION, _matched(own)]
    if drawn.empty:
        parts.append(REMEDY)
    return {
        "text_quality.md": page(TITLE, *parts),
        "text_quality.csv": csv_text(drawn),
        "matched.csv": csv_text(_frame(found)),
    }


def _samplers(rows: DataFrame) -> str:
    lines = []
    for row in rows.to_dict("records"):
        numbers = [measured(*(row[name + part] for part in PARTS)) for name in NUMBERS]
        cold = "" if math.isnan(row["temperature"]) else f"{row['temperature']:g}"
        nfe = "" if math.isnan(row["nfe"]) else f"{row['nfe']:.4g}"
        name = row["checkpoint"] or row["line"]
        sampler = row["line"] if row["checkpoint"] else ""
        lines.append([name, sampler, row["tokens_per_step"], cold, *numbers, nfe, row["n"], row["seeds"]])
    header = ["checkpoint", "sampler", "tokens per step", "temperature"]
    header += ["gen_ppl", "entropy", "distinct 2", "MAUVE", "MAUVE, mean state", "NFE", "n", "seeds"]
    return grid(header, lines)


def _matched(found: Sequence[Difference]) -> str:
    lines = []
    for each in found:
        if each.value is None or each.interval is None:
            lines.append([each.a, each.b, "none in common", "", "", ""])
            continue
        low, high = each.interval
        numbers = [f"{each.entropy:.3f}", f"{each.value:.3f}", f"{low:.3f} .. {high:.3f}", _chance(each.p)]
        lines.append([each.a, each.b, *numbers])
    header = ["a", "b", "entropy", "difference", f"{LEVEL:.0%} interval", "p"]
    return grid(header, lines)


def _chance(p: float | None) -> str:
    """Text of a p-value: two digits, "< 0.0001" for those that the normal approximation cannot tell apart, "" for
    None."""
    return "" if p is None else f"{p:.2g}" if p >= 1e-4 else "< 0.0001"


def _frame(found: Sequence[Difference]) -> DataFrame:
    from pandas import DataFrame

    rows = []
    for each in found:
        low, high = each.interval or (None, None)
        rows.append([each.panel, each.a, each.b, each.entropy, each.value, low, high, each.se, each.p])
    return DataFrame(rows, columns=MATCHED)
