"""Properties that must hold for any input: reading back a part, drawing from a law, adjusting p-values."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from repro.core import parts, registry, rng
from repro.core.parts import Part
from repro.core.stats import holm
from repro.recipes.scale import by_name
from repro.samplers.presets import PRESETS

SOME = settings(deadline=None, derandomize=True, database=None, max_examples=50)

# --- parts ----------------------------------------------------------------------------------------------


def within(value: object) -> Iterator[Part]:
    """A part and all parts in it."""
    if isinstance(value, Part):
        yield value
        for field in dataclasses.fields(typing.cast(typing.Any, value)):
            yield from within(getattr(value, field.name))


@cache
def examples() -> list[Part]:
    """Every part of the recipes and of the sampler presets that has pins, one of each class."""
    roots = [*map(by_name, registry.RECIPES), *PRESETS.values()]
    found = {type(part): part for root in roots for part in within(root)}
    return [part for part in found.values() if leaf_hints(part)]


def leaf_hints(part: Part) -> dict[str, tuple[typing.Any, ...]]:
    """Pin -> the types of its values, of pins that are not parts."""
    found: dict[str, tuple[typing.Any, ...]] = {}
    for name, hint in typing.get_type_hints(type(part)).items():
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        kinds = typing.get_args(hint) if union else (hint,)
        is_pin = name in {field.name for field in dataclasses.fields(typing.cast(typing.Any, part))}
        if is_pin and not any(isinstance(kind, type) and issubclass(kind, Part) for kind in kinds):
            found[name] = kinds
    return found


def values(kind: typing.Any) -> st.SearchStrategy:
    """Values of a type; numbers are positive, as any setting may be."""
    if kind is float:
        return st.floats(1e-9, allow_nan=False, allow_infinity=False)
    if kind in (int, tuple[int, ...], tuple[float, float]):
        one = st.integers(1, 2**62) if kind is not tuple[float, float] else st.floats(1e-9, 1e9)
        return one if kind is int else st.tuples(one, one)
    return st.from_type(kind)


@SOME
@given(st.data())
def test_a_part_with_any_pin_reads_back_from_its_canonical_form(data):
    """Through JSON text and back: the same part and digest; another value of a pin has another digest."""
    part = data.draw(st.sampled_from(examples()))
    name, kinds = data.draw(st.sampled_from(sorted(leaf_hints(part).items(), key=lambda item: item[0])))
    value = data.draw(st.one_of(*map(values, kinds)))
    try:
        changed = dataclasses.replace(typing.cast(typing.Any, part), **{name: value})
    except ValueError:
        assume(False)
    again = parts.read(json.loads(parts.to_json(changed)), type(part))
    assert again == changed and parts.digest(again) == parts.digest(changed)
    same = parts.to_json(value) == parts.to_json(getattr(part, name))
    assert (parts.digest(changed) == parts.digest(part)) == same


# --- categorical draws ----------------------------------------------------------------------------------

weights = st.lists(st.integers(0, 20) | st.just(0), min_size=1, max_size=12).filter(any)


@SOME
@given(weights)
def test_a_draw_by_inverse_cdf_has_the_exact_law(weights):
    """At u = (j + 1/2) / W for all j < W, W the sum of integer weights, id i is drawn weights[i] times."""
    total = sum(weights)
    laws = torch.tensor(weights, dtype=torch.float64).expand(total, -1)
    u = (torch.arange(total).double() + 0.5) / total
    drawn = rng.choose(laws, u)
    assert torch.bincount(drawn, minlength=len(weights)).tolist() == weights


@SOME
@given(
    st.lists(st.floats(0, 1) | st.just(0.0), min_size=1, max_size=12).filter(any),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
)
def test_a_draw_by_inverse_cdf_never_has_probability_zero(weights, u):
    """For any u in (0, 1), however close to an end, and any float weights, also subnormal ones."""
    law = torch.tensor([weights], dtype=torch.float64)
    index = rng.choose(law, torch.tensor([u], dtype=torch.float64)).item()
    assert weights[index] > 0
    below, total = sum(map(Fraction, weights[:index]), Fraction()), sum(map(Fraction, weights))
    rounding = Fraction(len(weights), 2**50) * total
    assert below - rounding <= Fraction(u) * total <= below + Fraction(weights[index]) + rounding


# --- Holm's adjustment ----------------------------------------------------------------------------------


@SOME
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_is_between_the_raw_and_the_bonferroni_values(p_values, random):
    """Monotone in p, equal to Bonferroni at the smallest p, and independent of the order of the tests."""
    n, adjusted = len(p_values), holm(p_values)
    for p, value in zip(p_values, adjusted, strict=True):
        assert p <= value <= min(1.0, n * p)
    assert adjusted[p_values.index(min(p_values))] == min(1.0, n * min(p_values))
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert [value for _, value in pairs] == sorted(adjusted)
    order = random.sample(range(n), n)
    assert holm([p_values[i] for i in order]) == [adjusted[i] for i in order]
