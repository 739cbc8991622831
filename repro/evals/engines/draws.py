"""Check of the random draws of an engine (a program that decodes): the same seed twice, different seeds, and the first
tokens of many draws against the probabilities that the engine itself states."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from repro.evals.engines.comparisons import seeds_obeyed, walk
from repro.evals.engines.engine import Engine, Settings, Token
from repro.evals.engines.findings import Finding

LEVEL = 1e-4
"""p-value below which a test of the sampling distribution fails: a correct engine fails once in ten thousand tests."""
LEAST = 5.0
"""Smallest expected count of a class of the chi-squared test (Cochran 1954); rarer tokens are pooled in one class."""
FEWEST = 50
"""Least number of tokens of the test of their mean log-probability."""
SEEDS, LENGTH = 8, 12
TOP = 5


def law_of_draws(name: str, engine: Engine, prompts: Sequence[str], draws: int, tolerance: float) -> Finding:
    """Whether the engine called `name` draws from the probabilities that it states, and obeys seeds.

    Fails if a seed that is used twice gives two different texts more often than errors of log-probabilities within
    `tolerance` (nats) explain; if all texts of different seeds are equal, though this has a probability below 1e-4;
    or if the first tokens of `draws` texts per prompt do not fit the stated probabilities (chi-squared test of each
    prompt; normal test of the mean log-probability of all drawn tokens, which detects another temperature with fewer
    draws).
    """
    title = f"law of draws of {name}"
    seeds = range(1, SEEDS + 1)
    how = [Settings(LENGTH, temperature=1.0, seed=seed, top=TOP) for seed in seeds]
    twice = [engine.complete([prompts[0]] * SEEDS, how, "completions") for _ in range(2)]
    if not seeds_obeyed(*twice, tolerance, LEVEL):
        seed, one, other = next(
            (s, x.text, y.text)
            for s, x, y in zip(seeds, *twice, strict=True)
            if walk(x, y, tolerance).divergence
        )
        return Finding(title, "fail", f"seed {seed} is ignored: it gives {one!r}, then {other!r}")
    first = _first_tokens(engine, prompts)
    known = first.get(prompts[0])
    texts = [each.text for each in twice[0]]
    if len(set(texts)) == 1 and known and _coincide(known.top) ** (SEEDS - 1) < LEVEL:
        return Finding(
            title, "fail", f"seeds 1 to {SEEDS} all give {texts[0]!r}: draws do not depend on the seed"
        )
    if not first:
        return Finding(title, "not checked", "seeds are obeyed; the engine states no probabilities")
    p_values = []
    found = [token for each in twice[0] for token in each.tokens[1:]]  # the first ones are among the draws
    ended = sum(each.finish == "stop" for each in twice[0])
    for prompt, token in first.items():
        how = [Settings(1, temperature=1.0, seed=seed, top=TOP) for seed in range(1, draws + 1)]
        made = engine.complete([prompt] * draws, how, "completions")
        found += [each.tokens[0] for each in made if each.tokens]
        ended += sum(each.finish == "stop" for each in made)
        drawn = Counter(each.tokens[0].text if each.tokens else "" for each in made)
        if drawn[""]:  # the text ended at once; which of the stated tokens ends it is not said
            token = replace(token, top={text: value for text, value in token.top.items() if drawn[text]})
        p, worst = chi_squared(token.top, drawn, draws)
        if p is None:
            continue
        if p < LEVEL:
            text, expected = worst
            count = drawn[text] if text else _rest(token.top, drawn)
            said = f"{count} times in {draws}, {expected:.1f} are expected (p {p:.1g})"
            cut = """a server that truncates the distribution needs --extra '{"top_k": 0, "min_p": 0}'"""
            what = repr(text) if text else "a token not among the likeliest"
            data = {"p": p, "draws": draws}
            return Finding(title, "fail", f"after {prompt!r} {what} is drawn {said}; {cut}", data)
        p_values.append(p)
    p, mean, expected = drawn_log_probability(found, ended)
    if p < LEVEL:
        says = (
            f"{len(found)} drawn tokens have a mean log-probability of {mean:.3f}, {expected:.3f} is expected"
        )
        hint = f"(p {p:.1g}): another temperature, or a law that is cut off"
        return Finding(title, "fail", f"{says} {hint}", {"p": p, "draws": draws})
    if not p_values:
        return Finding(title, "not checked", f"seeds are obeyed; {draws} draws are too few to test the law")
    says = f"{draws} draws for each of {len(p_values)} prompts fit the stated law (smallest p {min(p_values):.2g})"
    return Finding(title, "pass", f"seeds are obeyed; {says}", {"p": min(p_values), "draws": draws})


def chi_squared(
    stated: dict[str, float], drawn: Counter[str], draws: int
) -> tuple[float | None, tuple[str, float]]:
    """p-value of Pearson's chi-squared test, and (class that deviates most, its expected count). `drawn`: count of each
    token in `draws` draws; `stated`: log-probabilities of the likeliest tokens. Each of these with an expected count of
    at least 5 (`LEAST`) is a class; all other tokens together are the class "" or, if they are too rare, part of the
    rarest class. The p-value is None if `draws` is so small that there is only one class."""
    from scipy.stats import chi2

    expected = {text: draws * math.exp(value) for text, value in stated.items()}
    kept = {text: count for text, count in expected.items() if count >= LEAST}
    kept[""] = draws - sum(kept.values())
    seen = {text: drawn[text] for text in kept if text}
    seen[""] = draws - sum(seen.values())
    if kept[""] < LEAST and len(kept) > 1:  # too rare a class for the test; it joins the rarest one
        rarest = min((text for text in kept if text), key=lambda text: kept[text])
        kept[rarest] += kept.pop("")
        seen[rarest] += seen.pop("")
    terms = {text: (seen[text] - kept[text]) ** 2 / kept[text] for text in kept}
    worst = max(terms, key=lambda text: terms[text])
    if len(kept) == 1:
        return None, (worst, kept[worst])
    return float(chi2.sf(sum(terms.values()), len(kept) - 1)), (worst, kept[worst])


def drawn_log_probability(tokens: Sequence[Token], ended: int) -> tuple[float, float, float]:
    """Test whether drawn `tokens` are as likely as they should be: (two-sided p-value, mean of the tokens'
    log-probabilities in nats, its expected value). A token that is not among the five likeliest of its position counts
    with the log-probability of the last of these five.

    Whatever was drawn before, a token's log-probability minus its expected value under the stated probabilities has
    mean 0; so the sum of these differences is a martingale, with the sum of the positions' variances as its variance.
    The sum is taken as normal, and nothing is tested (p-value 1) for fewer than 50 tokens (`FEWEST`). An engine may
    leave out the tokens that end texts (`ended` of them): for each of these the sum may be off by the largest
    difference that one token can make, averaged over positions.
    """
    from scipy.stats import norm

    seen, expected, variance, widest, count = 0.0, 0.0, 0.0, 0.0, 0
    for token in tokens:
        likely = sorted(token.top.items(), key=lambda each: -each[1])[:TOP]
        if not likely or not math.isfinite(likely[-1][1]):
            continue
        last = likely[-1][1]
        chances = [math.exp(value) for _, value in likely]
        law = [*zip(chances, (value for _, value in likely), strict=True), (max(0.0, 1 - sum(chances)), last)]
        mean = math.fsum(chance * value for chance, value in law)
        variance += math.fsum(chance * (value - mean) ** 2 for chance, value in law)
        expected += mean
        widest += max(likely[0][1] - mean, mean - last)
        seen += dict(likely).get(token.text, last)
        count += 1
    if count < FEWEST or not variance:
        return 1.0, seen / max(1, count), expected / max(1, count)
    off = max(0.0, abs(seen - expected) - ended * widest / count) / math.sqrt(variance)
    return float(2 * norm.sf(off)), seen / count, expected / count


def _first_tokens(engine: Engine, prompts: Sequence[str]) -> dict[str, Token]:
    """Prompt -> the likeliest first token after it, with the log-probabilities of the likeliest tokens there. Prompts
    for which the engine states no log-probabilities are left out."""
    made = engine.complete(prompts, [Settings(1, top=TOP)] * len(prompts), "completions", False)
    return {
        prompt: each.tokens[0]
        for prompt, each in zip(prompts, made, strict=True)
        if each.tokens and each.tokens[0].top
    }


def _coincide(stated: dict[str, float]) -> float:
    """Upper bound on the probability that two draws at a position give the same token: the largest probability of a
    token in `stated` (token -> log-probability) or, if this is larger, the sum over all tokens that are not in it."""
    listed = sum(math.exp(value) for value in stated.values())
    return max(*(math.exp(value) for value in stated.values()), 1 - listed)


def _rest(stated: dict[str, float], drawn: Counter[str]) -> int:
    return sum(count for text, count in drawn.items() if text not in stated)
