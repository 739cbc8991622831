"""Check that two engines (programs that decode) agree: A and B get the same requests, and the first token that differs
is reported.

    report = compare(a, b, Plan(prompts))
    report.agrees, report.verdict, report.lines(), report.data()

The `Plan` holds every number by which a difference is judged, and is fixed before any answer is read. Engines that
share weights, precision, template and decoding rules pass; docs/engines.md says what each check finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import Struct

from repro.core.reading import read_json_lines
from repro.core.stats import paired_difference
from repro.evals.engines.comparisons import Walk, compared_scores, parted, size_of, walk
from repro.evals.engines.draws import law_of_draws
from repro.evals.engines.engine import Completion, Engine, Settings, Unsupported
from repro.evals.engines.findings import Finding, Report
from repro.evals.engines.http import Refused

TOP = 5
"""Number of most likely tokens whose log-probabilities are read at each position (the default maximum of OpenAI,
vLLM)."""
PROMPTS = (
    *("the capital of france is", "once upon a time there was", "two plus two is", "the sun rises in the"),
    *("water boils at", "my favourite colour is", "the opposite of hot is", "a dog and a cat"),
    *(
        "yesterday we went to the",
        "in the middle of the night",
        "the last word of this",
        "she opened the door and",
    ),
    *("seven days make a", "the answer to the question", "birds fly because they", "he said that he would"),
)
EMPTY = "all texts are empty"
"""Why a check is not made that compares texts of which there are none, as where reasoning took all tokens."""
LEVEL = 0.95
"""Level of one-sided confidence bounds."""


class Prompt(Struct, frozen=True, forbid_unknown_fields=True):
    """A prompt, and the text that a right answer contains (None: unknown)."""

    prompt: str
    answer: str | None = None


@dataclass(frozen=True)
class Plan:
    """What is asked of both engines (`prompts`) and how their answers are judged. `length`: largest number of
    tokens of a text; `tolerance`: largest accepted difference of a log-probability in nats; `margin`: largest accepted
    share of texts that differ or, for prompts with a right answer, difference in accuracy; `draws`: draws per prompt
    for the test of the sampling distribution (0: no test)."""

    prompts: Sequence[Prompt] = tuple(Prompt(text) for text in PROMPTS)
    length: int = 24
    tolerance: float = 0.005
    margin: float = 0.2
    draws: int = 200

    def data(self) -> dict[str, Any]:
        """What is asked and how it is judged, as plain JSON: all fields, with the number of prompts in place of
        `prompts`."""
        return asdict(replace(self, prompts=())) | {"prompts": len(self.prompts)}


def read_prompts(path: Path | None) -> list[Prompt]:
    """The prompts of a JSON Lines file (None: 16 short ones); ValueError for fewer than 2 prompts, or if some lines
    have an answer and others have none."""
    if path is None:
        return [Prompt(text) for text in PROMPTS]
    found = list(
        read_json_lines(path, Prompt, 'give lines {"prompt": TEXT} or {"prompt": TEXT, "answer": TEXT}')
    )
    if len(found) < 2:
        raise ValueError(f"{path} holds {len(found)} prompts; give 2 or more")
    if len({each.answer is None for each in found}) > 1:
        raise ValueError(f"{path}: some prompts have an answer and others have none; give all or none")
    return found


def compare(a: Engine, b: Engine, plan: Plan, told: Callable[[Finding], None] = lambda found: None) -> Report:
    """Run every check of the engines `a` and `b` and return the report; `told` is called with the finding of each check
    as soon as it is there."""
    found = []
    for each in _findings(a, b, plan):
        told(each)
        found.append(each)
    return Report(a.name, b.name, plan.data(), found)


def _findings(a: Engine, b: Engine, plan: Plan) -> Iterator[Finding]:
    texts = [each.prompt for each in plan.prompts]
    greedy = [Settings(plan.length, top=TOP)] * len(texts)
    alone = {
        "A": a.complete(texts, greedy, "completions", False),
        "B": b.complete(texts, greedy, "completions", False),
    }
    yield tokens(alone["A"], alone["B"], plan)
    for name, engine in (("A", a), ("B", b)):
        yield greedy_rule(name, texts, alone[name], plan)
        for together in (False, True):
            yield asked_otherwise(name, engine, texts, greedy, alone[name], plan, together=together)
        yield stop_rule(name, engine, texts, alone[name], plan)
    yield template(a, b, texts, greedy, plan)
    yield log_probabilities(a, b, texts, alone["A"], plan)
    yield answers(alone["A"], alone["B"], plan)
    if plan.draws:
        for name, engine in (("A", a), ("B", b)):
            yield law_of_draws(name, engine, texts[:2], plan.draws, plan.tolerance)


# --- checks -------------------------------------------------------------------------------------------------
def tokens(a: Sequence[Completion], b: Sequence[Completion], plan: Plan) -> Finding:
    """Whether both engines write the same tokens at temperature 0, asked one prompt at a time, with log-probabilities
    that are equal up to the tolerance of `plan`; `a`, `b`: their texts. The first different token of two texts is an
    error, unless the two likeliest tokens there are so near that rounding explains it (`comparisons.walk`)."""
    return _walked("tokens at T = 0", a, b, plan)


def greedy_rule(name: str, texts: Sequence[str], alone: Sequence[Completion], plan: Plan) -> Finding:
    """Whether the tokens that the engine called `name` wrote after the prompts `texts` at temperature 0 (`alone`) are
    the likeliest by its own log-probabilities. They are not if the engine applies a repetition penalty or a bias."""
    title, seen = f"greedy rule of {name}", 0
    for text, made in zip(texts, alone, strict=True):
        for position, token in enumerate(made.tokens):
            if token.logprob is None or not token.top:
                continue
            seen += 1
            best = max(token.top, key=lambda each: token.top[each])
            short = token.top[best] - token.logprob
            if short > plan.tolerance:
                says = f"token {position} after {text!r} is {token.text!r}, {short:.3g} nats less likely than {best!r}"
                hint = """an engine that penalises repetition needs --extra '{"repeat_penalty": 1.0}' or the like"""
                return Finding(title, "fail", f"{says}; {hint}", {"position": position, "short": short})
    if not seen:
        return Finding(title, "not checked", "no log-probabilities are given")
    return Finding(title, "pass", f"{seen} tokens are the likeliest")


def asked_otherwise(
    name: str,
    engine: Engine,
    texts: Sequence[str],
    greedy: Sequence[Settings],
    alone: Sequence[Completion],
    plan: Plan,
    *,
    together: bool,
) -> Finding:
    """Whether an engine gives the same answers again when it is asked all prompts `texts` at once (`together`) or one
    at a time in reverse order; `alone`: its answers to one prompt at a time, in order; `greedy`: settings of each
    request. What the engine keeps of earlier requests, such as a prefix cache, must not change its answers."""
    turn = 1 if together else -1
    again = engine.complete(texts[::turn], greedy, "completions", together)[::turn]
    return _walked(f"{'batch' if together else 'order'} of {name}", alone, again, plan)


def stop_rule(
    name: str, engine: Engine, texts: Sequence[str], alone: Sequence[Completion], plan: Plan
) -> Finding:
    """Whether the engine called `name` ends a text just before its stop string, with finish reason "stop", and whether
    a text with finish reason "length" has at most `plan.length` tokens. `alone`: the texts that the engine wrote after
    the prompts `texts` without stop strings; three characters from the middle of each serve as its stop string."""
    title = f"stop rule of {name}"
    asked = [
        (text, free, free.text[len(free.text) // 2 :][:3]) for text, free in zip(texts, alone, strict=True)
    ]
    asked = [each for each in asked if each[2].strip()][:4]
    if not asked:
        return Finding(title, "not checked", EMPTY)
    how = [Settings(plan.length, stop=(stop,), top=TOP) for _, _, stop in asked]
    found = engine.complete([text for text, _, _ in asked], how, "completions", False)
    seen = 0
    for (text, free, stop), made in zip(asked, found, strict=True):
        wanted = free.text[: free.text.index(stop)]
        if parted(free, made, stop, plan.tolerance):
            continue
        seen += 1
        if made.text != wanted or made.finish != "stop":
            return Finding(
                title,
                "fail",
                f"after {text!r} with stop {stop!r}: {made.text!r} ({made.finish}); wanted {wanted!r} (stop)",
            )
    for text, free in zip(texts, alone, strict=True):
        if free.finish == "length" and len(free.tokens) > plan.length:
            return Finding(
                title, "fail", f"{text!r}: {len(free.tokens)} tokens, {plan.length} were asked for"
            )
    if not seen:
        return Finding(
            title, "not checked", "all texts part at an undecided position before their stop string"
        )
    return Finding(title, "pass", f"{seen} texts end before their stop string")


def template(a: Engine, b: Engine, texts: Sequence[str], greedy: Sequence[Settings], plan: Plan) -> Finding:
    """Whether both engines put the same chat template around a message: to each message of `texts`, sent with its
    settings in `greedy`, they must give answers that are equal up to the tolerance of `plan`, in tokens and
    log-probabilities, and, where both engines state it, the same number of tokens of the prompt."""
    try:
        one, other = (engine.complete(texts, greedy, "chat", False) for engine in (a, b))
    except (Unsupported, Refused) as error:
        return Finding("template", "not checked", str(error))
    for text, x, y in zip(texts, one, other, strict=True):
        if None not in (x.prompt_tokens, y.prompt_tokens) and x.prompt_tokens != y.prompt_tokens:
            return Finding(
                "template",
                "fail",
                f"the prompt of {text!r} has {x.prompt_tokens} tokens in A, {y.prompt_tokens} in B",
            )
    return _walked("template", one, other, plan)


def log_probabilities(
    a: Engine, b: Engine, texts: Sequence[str], written: Sequence[Completion], plan: Plan
) -> Finding:
    """Whether both engines give the same log-probabilities, up to the tolerance of `plan`, to the tokens of the texts
    that A wrote (`written`) after the prompts `texts`."""
    title = "log-probabilities"
    pairs = [(text, made.text) for text, made in zip(texts, written, strict=True) if made.text.strip()]
    try:
        differences, cut = compared_scores(a.score(pairs), b.score(pairs))
    except (Unsupported, Refused) as error:
        return Finding(title, "not checked", str(error))
    if not differences:
        return Finding(title, "fail", f"the engines cut all {cut} texts into different tokens", {"cut": cut})
    return _sized(title, differences, plan, f", {cut} texts are cut into different tokens" if cut else "")


def answers(a: Sequence[Completion], b: Sequence[Completion], plan: Plan) -> Finding:
    """Whether the texts of A (`a`) and of B (`b`) are equivalent: the 90 % interval of the difference in accuracy must
    lie within the margin of `plan` or, for prompts without a right answer, the upper 95 % confidence bound of the share
    of texts that differ. Differences at a near tie, which rounding explains, do not count (`comparisons.walk`)."""
    if not any(each.text for each in (*a, *b)):
        return Finding("answers", "not checked", EMPTY)
    if plan.prompts[0].answer is None:
        differing = sum(walk(x, y, plan.tolerance).failed for x, y in zip(a, b, strict=True))
        most = _upper(differing, len(a))
        says = f"{differing} of {len(a)} texts differ at a decided position, at most {most:.3f} of all (95 %)"
        data: dict[str, Any] = {"differing": differing, "n": len(a), "most": most}
        return _within("answers", says, data, most, plan)
    right = [
        (each.answer in x.text, each.answer in y.text)
        for each, x, y in zip(plan.prompts, a, b, strict=True)
        if each.answer is not None
    ]
    gained, lost = sum(y > x for x, y in right), sum(x > y for x, y in right)
    difference, half = paired_difference(gained, lost, len(right), 0.9)
    says = (
        f"accuracy {difference:+.3f} ± {half:.3f} from A to B (90 % interval), {gained} gained, {lost} lost"
    )
    data = {"gained": gained, "lost": lost, "n": len(right), "difference": difference, "half": half}
    return _within("answers", says, data, abs(difference) + half, plan)


def _within(title: str, says: str, data: dict[str, Any], most: float, plan: Plan) -> Finding:
    if most <= plan.margin:
        return Finding(title, "pass", f"{says}; margin {plan.margin:g}", data)
    more = " (give more prompts)" if data.get("differing", 1) == 0 else ""
    return Finding(title, "fail", f"{says}; not within the margin {plan.margin:g}{more}", data)


# --- statistics ---------------------------------------------------------------------------------------------
def _upper(count: int, n: int) -> float:
    """Upper one-sided 95 % confidence bound of a proportion that was observed in `count` of `n` cases (Clopper and
    Pearson 1934)."""
    from scipy.stats import beta

    return 1.0 if count == n else float(beta.ppf(LEVEL, count + 1, n - count))


def _walked(title: str, a: Sequence[Completion], b: Sequence[Completion], plan: Plan) -> Finding:
    """The result (a finding called `title`) of the comparison of each text of `a` with that of `b`, token by token. It
    is "fail" if two texts differ, unless at a near tie that rounding explains (`comparisons.walk`), or if
    log-probabilities of equal tokens differ by more than the tolerance of `plan`."""
    if not any(each.text for each in (*a, *b)):
        return Finding(title, "not checked", EMPTY)
    walks = [walk(x, y, plan.tolerance) for x, y in zip(a, b, strict=True)]
    failed = [each for each in walks if each.failed]
    if failed:
        first = failed[0].divergence
        assert first is not None
        return Finding(
            title, "fail", f"{len(failed)} of {len(walks)} texts; first, {first.says()}", asdict(first)
        )
    differences = [each for found in walks for each in found.differences]
    return _sized(title, differences, plan, _undecided(walks)) if differences else _plain(title, walks)


def _undecided(walks: Sequence[Walk]) -> str:
    ends = [each.divergence for each in walks if each.divergence is not None]
    part = "1 text diverges" if len(ends) == 1 else f"{len(ends)} texts diverge"
    return f", {part} at an undecided position ({ends[0].says()})" if ends else ""


def _plain(title: str, walks: Sequence[Walk]) -> Finding:
    return Finding(title, "pass", f"{len(walks)} texts are equal; no log-probabilities are given")


def _sized(title: str, differences: Sequence[float], plan: Plan, more: str) -> Finding:
    most, mean = max(differences), math.fsum(differences) / len(differences)
    found = f"{len(differences)} tokens, |difference| at most {most:.2g} and {mean:.2g} in the mean"
    says = f"{found}, {size_of(differences)}"
    data = {"tokens": len(differences), "max": most, "mean": mean}
    if most > plan.tolerance:
        return Finding(title, "fail", f"{says}; tolerance {plan.tolerance:g}{more}", data)
    return Finding(title, "pass", f"{says}{more}", data)
