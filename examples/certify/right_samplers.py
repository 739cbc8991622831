"""Positive controls: samplers that do what they claim, by family.

python -m repro.certify examples/certify/right_samplers.py:gumbel        # stands
python -m scripts.controls                                               # all, beside the wrong ones

Those that only converge to the law do so at least as fast as ancestral sampling.
"""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy
import torch
from common import invert, masked, plug_in, uniform


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def all_masked(space, n):
    return torch.full((n, space.length), space.mask)


# --- draws --------------------------------------------------------------------------------------------------


def inverse_cdf(space, n, steps, seed):
    """Ancestral sampling, draws by inverse CDF in float64."""
    return masked(space, n, steps, seed)


def gumbel(space, n, steps, seed):
    """Ancestral sampling, draws by argmax of log p plus Gumbel noise in float64."""
    generator = seeded(seed + 1_000_000)

    def draw(p, u):
        return (p.log() - (-uniform(p.shape, generator).log()).log()).argmax(-1)

    return masked(space, n, steps, seed, draw=draw)


def multinomial(space, n, steps, seed):
    """Ancestral sampling, draws by `torch.multinomial` with a generator, on float64 probabilities."""
    generator = seeded(seed + 1_000_000)

    def draw(p, u):
        return torch.multinomial(p, 1, generator=generator)[:, 0] if len(p) else p.new_zeros(0).long()

    return masked(space, n, steps, seed, draw=draw)


def numpy_draws(space, n, steps, seed):
    """Ancestral sampling in numpy: its generator, its cumulative sums, its array as the result."""
    generator = numpy.random.default_rng(seed)
    ids = numpy.full((n, space.length), space.mask)
    for i in range(steps):
        shown = (ids == space.mask) & (generator.random(ids.shape) < 1 / (steps - i))
        total = space.denoise(torch.from_numpy(ids), 1 - i / steps).numpy()[shown].cumsum(-1)
        ids[shown] = (total < generator.random((len(total), 1)) * total[:, -1:]).sum(-1)
    return ids


# --- times --------------------------------------------------------------------------------------------------


def cosine_times(space, n, steps, seed):
    """Ancestral sampling with times on a cosine: short steps where most is masked."""
    generator, ids = seeded(seed), all_masked(space, n)
    times = [math.cos(math.pi / 2 * i / steps) for i in range(steps)] + [0.0]
    for t, s in itertools.pairwise(times):
        shown = (ids == space.mask) & (uniform(ids.shape, generator) < (t - s) / t)
        ids[shown] = invert(space.denoise(ids, t)[shown], uniform(ids.shape, generator)[shown])
    return ids


def times_beforehand(space, n, steps, seed):
    """The time at which each position is revealed is drawn before the first step."""
    generator, ids = seeded(seed), all_masked(space, n)
    when = uniform(ids.shape, generator)
    for i in range(steps):
        shown = (ids == space.mask) & (when >= 1 - (i + 1) / steps)
        ids[shown] = invert(space.denoise(ids, 1 - i / steps)[shown], uniform(ids.shape, generator)[shown])
    return ids


def first_hitting(space, n, steps, seed):
    """The first-hitting sampler: the time of the next reveal is drawn, then its position and its token."""
    generator, ids = seeded(seed), all_masked(space, n)
    t, rows = torch.ones(n, dtype=torch.float64), torch.arange(n)
    for left in range(space.length, 0, -1):
        t = t * uniform((n,), generator) ** (1 / left)
        place = uniform(ids.shape, generator).masked_fill(ids != space.mask, -1).argmax(1)
        ids[rows, place] = invert(space.denoise(ids, t)[rows, place], uniform((n,), generator))
    return ids


# --- orders -------------------------------------------------------------------------------------------------


def one_by_one(space, ids, generator, choose):
    """Each [MASK] of ids [n, L] is drawn given all that is shown; `choose(p, open)` gives one position of each row."""
    rows = torch.arange(len(ids))
    for i in range(space.length):
        p, open = space.denoise(ids, 1 - i / space.length), ids == space.mask
        place = choose(p, open)
        drawn = invert(p[rows, place], uniform((len(ids),), generator))
        ids[rows, place] = torch.where(open[rows, place], drawn, ids[rows, place])
    return ids


def at_random(generator):
    return lambda p, open: uniform(open.shape, generator).masked_fill(~open, -1).argmax(1)


def leftmost(p, open):
    return torch.arange(open.shape[1], 0, -1).masked_fill(~open, 0).argmax(1)


def random_order(space, n, steps, seed):
    """One position at a time, in random order."""
    generator = seeded(seed)
    return one_by_one(space, all_masked(space, n), generator, at_random(generator))


def left_to_right(space, n, steps, seed):
    """One position at a time, from the left."""
    return one_by_one(space, all_masked(space, n), seeded(seed), leftmost)


def lowest_entropy(space, n, steps, seed):
    """One position at a time, that of the lowest entropy: the order does not look at what is drawn."""

    def choose(p, open):
        return torch.special.entr(p).sum(-1).masked_fill(~open, torch.inf).argmin(1)

    return one_by_one(space, all_masked(space, n), seeded(seed), choose)


def quotas(space, n, steps, seed):
    """LLaDA's random remasking: each step commits a fixed number of random positions."""
    generator, ids = seeded(seed), all_masked(space, n)
    steps = min(steps, space.length)
    for i in range(steps):
        score = uniform(ids.shape, generator).masked_fill(ids != space.mask, -1)
        first = score.topk(space.length // steps + (i < space.length % steps)).indices
        shown = torch.zeros_like(ids, dtype=torch.bool).scatter(1, first, True)
        ids[shown] = invert(space.denoise(ids, 1 - i / steps)[shown], uniform(ids.shape, generator)[shown])
    return ids


def blocks(space, n, steps, seed):
    """Semi-autoregressive: blocks from the left, ancestral sampling of all steps in each."""
    generator, ids = seeded(seed), all_masked(space, n)
    for columns in torch.arange(space.length).split(max(2, space.length // 4)):
        for i in range(steps):
            shown = torch.zeros_like(ids, dtype=torch.bool)
            shown[:, columns] = uniform((n, len(columns)), generator) < 1 / (steps - i)
            shown &= ids == space.mask
            ids[shown] = invert(space.denoise(ids, 1.0)[shown], uniform(ids.shape, generator)[shown])
    return ids


# --- uniform noise ------------------------------------------------------------------------------------------


def leave_one_out(space, n, steps, seed):
    """Duo's plug-in posterior with leave-one-out conditionals."""
    return plug_in(space, n, steps, seed)


def bayes_weights(space, ids, a):
    """E[x0 | xt] over q(xt | x0), [n, L, V]."""
    same = torch.nn.functional.one_hot(ids, space.vocab)
    return space.denoise(ids, 1 - a) / (a * same + (1 - a) / space.vocab)


def posterior_means(space, n, steps, seed):
    """The posterior of every clean token averaged over the mean that cross-entropy trains."""
    generator = seeded(seed)
    ids = torch.randint(space.vocab, (n, space.length), generator=generator)
    for i in range(steps):
        a, b = i / steps, (i + 1) / steps
        w, same = bayes_weights(space, ids, a), torch.nn.functional.one_hot(ids, space.vocab)
        sooner = b * w + (1 - b) / space.vocab * w.sum(-1, keepdim=True)
        ids = invert((a / b * same + (1 - a / b) / space.vocab) * sooner, uniform(ids.shape, generator))
    return ids


def square_matrix(space, n, steps, seed):
    """The same with V x V matrices of transition probabilities, as in D3PM."""
    generator, eye = seeded(seed), torch.eye(space.vocab, dtype=torch.float64)
    ids = torch.randint(space.vocab, (n, space.length), generator=generator)
    for i in range(steps):
        a, b = i / steps, (i + 1) / steps
        until, step = (r * eye + (1 - r) / space.vocab for r in (b, a / b))
        ids = invert(step.T[ids] * (bayes_weights(space, ids, a) @ until), uniform(ids.shape, generator))
    return ids


# --- revision -----------------------------------------------------------------------------------------------


def corrector(space, n, steps, seed):
    """Uniform noise: after each step but the last, a Gibbs step redraws one random position at that noise level."""
    generator, rows = seeded(seed), torch.arange(n)
    ids = torch.randint(space.vocab, (n, space.length), generator=generator)
    for i in range(steps):
        a, b = i / steps, (i + 1) / steps
        x, same = space.denoise(ids, 1 - a), torch.nn.functional.one_hot(ids, space.vocab)
        total = space.vocab * a * (x * same).sum(-1, keepdim=True)
        law = total * same + (a / b - a) * same + (b - a) * x + (1 - a / b) * (1 - b) / space.vocab
        ids = invert(law, uniform(ids.shape, generator))
        if b < 1:
            place = torch.randint(space.length, (n,), generator=generator)
            noisy = b * space.denoise(ids, 1 - b)[rows, place] + (1 - b) / space.vocab
            ids[rows, place] = invert(noisy, uniform((n,), generator))
    return ids


def gibbs(space, n, steps, seed):
    """From the left, then random positions are masked and redrawn, one at a time."""
    generator, rows = seeded(seed), torch.arange(n)
    ids = one_by_one(space, all_masked(space, n), generator, leftmost)
    for _ in range(min(steps, 8)):
        place = torch.randint(space.length, (n,), generator=generator)
        ids[rows, place] = space.mask
        ids[rows, place] = invert(space.denoise(ids, 0.5)[rows, place], uniform((n,), generator))
    return ids


def rewrite(space, n, steps, seed):
    """In random order, then a random half is masked again and written anew."""
    generator = seeded(seed)
    ids = one_by_one(space, all_masked(space, n), generator, at_random(generator))
    ids[uniform(ids.shape, generator) < 0.5] = space.mask
    return one_by_one(space, ids, generator, at_random(generator))


def forward_backward(space, n, steps, seed):
    """ReMDM's forward-backward sampler, which masks shown tokens again with a probability that falls as 1 / steps."""
    generator, ids = seeded(seed), all_masked(space, n)
    for i in range(steps):
        a, b = i / steps, (i + 1) / steps
        hide = min((b - a) / a, (1 - b) / a, 1.0) if a else 0.0
        open, coin = ids == space.mask, uniform(ids.shape, generator)
        shown = open & (coin < (b - (1 - hide) * a) / (1 - a))
        drawn = invert(space.denoise(ids, 1 - a)[shown], uniform(ids.shape, generator)[shown])
        ids[~open & (coin < hide)] = space.mask
        ids[shown] = drawn
    return ids


# --- modes --------------------------------------------------------------------------------------------------


def greedy(space, n, steps, seed):
    """The most likely token of the position that is surest: the same sentence always. Claims modes."""
    ids = all_masked(space, 1)
    for i in range(space.length):
        p = space.denoise(ids, 1 - i / space.length).masked_fill((ids != space.mask)[..., None], -1)
        place, token = divmod(int(p.argmax()), space.vocab)
        ids[0, place] = token
    return ids.expand(n, -1)


def cold(space, n, steps, seed):
    """From the left at temperature .5. Claims modes."""
    generator, ids = seeded(seed), all_masked(space, n)
    for place in range(space.length):
        ids[:, place] = invert(space.denoise(ids, 1.0)[:, place] ** 2, uniform((n,), generator))
    return ids


# --- engineering --------------------------------------------------------------------------------------------

BUFFER = torch.zeros(1_000_000, dtype=torch.int64)


def reused_buffer(space, n, steps, seed):
    """Every call returns the same memory."""
    found = BUFFER[: n * space.length].view(n, space.length)
    return found.copy_(masked(space, n, steps, seed))


def columns_first(space, n, steps, seed):
    """The result is int32 and not contiguous."""
    return masked(space, n, steps, seed).int().T.contiguous().T


@dataclass(frozen=True)
class Settings:
    """Settings of `talkative`."""

    temperature: float = 1.0


def talkative(space, n, steps, seed):
    """A dataclass, an import inside the function, and a line on stdout at each call."""
    from common import masked as decode

    settings = Settings()
    print(f"{n} rows, {steps} steps, {settings}")
    return decode(
        space, n, steps, seed, law=lambda space, ids, t: space.denoise(ids, t) ** (1 / settings.temperature)
    )


def threads(space, n, steps, seed):
    """Four threads, each with rows and a generator of its own."""
    sizes = [(n + part) // 4 for part in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda part: masked(space, sizes[part], steps, 4 * seed + part), range(4))
        return torch.cat(list(found))


def mixed(x):
    """Splitmix64's mixing of int64 counters."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def row_keys(space, n, steps, seed):
    """Draws are hashes of (seed, row, draw), so a row does not depend on the size of the call."""
    rows = mixed(mixed(torch.tensor(seed)) + torch.arange(n)[:, None])
    draws = iter(range(2 * steps))

    def keyed(shape, generator):
        counters = next(draws) * space.length + torch.arange(space.length)
        return ((mixed(rows + mixed(counters)) >> 11) & ((1 << 53) - 1)).double() / 2**53

    return masked(space, n, steps, seed, noise=keyed)


def float32_probabilities(space, n, steps, seed):
    """Probabilities as a network gives them, from float32 logits, and draws in float64."""

    def law(space, ids, t):
        return space.denoise(ids, t).log().float().softmax(-1).double()

    return masked(space, n, steps, seed, law=law)


FAMILIES = {
    "draws": (inverse_cdf, gumbel, multinomial, numpy_draws),
    "times": (cosine_times, times_beforehand, first_hitting),
    "orders": (random_order, left_to_right, lowest_entropy, quotas, blocks),
    "uniform noise": (leave_one_out, posterior_means, square_matrix),
    "revision": (corrector, gibbs, rewrite, forward_backward),
    "modes": (greedy, cold),
    "memory and types": (reused_buffer, columns_first, float32_probabilities),
    "code": (talkative, threads, row_keys),
}
for function in itertools.chain(*FAMILIES.values()):
    function.claims, function.meaning = "law", "leave_one_out"
posterior_means.meaning = square_matrix.meaning = "x0_mean"
greedy.claims = cold.claims = "mode"
