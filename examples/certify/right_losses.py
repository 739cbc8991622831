"""Positive controls: losses that are what they claim, by family.

python -m repro.certify examples/certify/right_losses.py:stratified        # stands
python -m scripts.controls                                                 # all, beside the wrong ones
"""

import itertools
import math

import torch
from common import bound_weight, cross_entropy, subsets, uniform


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def weighted(space, x0, t, generator, weight):
    """weight(t) times the loss of positions that are masked with probability t, t [n]."""
    hidden = uniform(x0.shape, generator) < t[:, None]
    loss = cross_entropy(space, x0.masked_fill(hidden, space.mask), x0)
    return weight(t) * (loss * hidden).sum(1)


# --- exact --------------------------------------------------------------------------------------------------


def all_subsets(space, x0, seed):
    """The bound of masked diffusion, summed over all sets of masked positions."""
    return subsets(space, x0, bound_weight)


def discrete_time(space, x0, seed):
    """D3PM's bound with eight steps of absorbing noise: the last level of each reveal pays."""
    times = [i / 8 for i in range(9)]

    def weight(k, length):
        each = [(t - s) / t * t**k * (1 - t) ** (length - k) for s, t in itertools.pairwise(times)]
        return sum(each)

    return subsets(space, x0, weight)


# --- random times -------------------------------------------------------------------------------------------


def one_time(space, x0, seed):
    """t ~ U(0, 1), weight 1/t."""
    generator = seeded(seed)
    return weighted(space, x0, uniform((len(x0),), generator), generator, lambda t: 1 / t)


def window_and_tail(space, x0, seed):
    """t ~ U(.02, 1), weight 1/t, and the loss of masked tokens at t = .02 for the rest."""
    generator, low = seeded(seed), 0.02
    t = low + (1 - low) * uniform((len(x0),), generator)
    window = weighted(space, x0, t, generator, lambda t: (1 - low) / t)
    return window + weighted(space, x0, torch.full_like(t, low), generator, lambda t: 1)


def squared_times(space, x0, seed):
    """Importance sampling: t = u^2, weight 2 sqrt(t) / t."""
    generator = seeded(seed)
    t = uniform((len(x0),), generator) ** 2
    return weighted(space, x0, t, generator, lambda t: 2 * t**0.5 / t)


def number_of_masks(space, x0, seed):
    """LLaDA's likelihood: k of L positions are masked, k ~ U{1, ..., L}, weight L/k."""
    generator, length = seeded(seed), space.length
    k = torch.randint(1, length + 1, (len(x0), 1), generator=generator)
    hidden = uniform(x0.shape, generator).argsort(1).argsort(1) < k
    loss = cross_entropy(space, x0.masked_fill(hidden, space.mask), x0)
    return (loss * hidden).sum(1) * length / k[:, 0]


# --- times of a batch ---------------------------------------------------------------------------------------


def stratified(space, x0, seed):
    """Low-discrepancy times: one in each of n strata, in random order."""
    generator, n = seeded(seed), len(x0)
    t = (torch.randperm(n, generator=generator) + uniform((n,), generator)) / n
    return weighted(space, x0, t, generator, lambda t: 1 / t)


def shifted_grid(space, x0, seed):
    """MDLM's low-discrepancy times: a grid in row order with one random shift."""
    generator, n = seeded(seed), len(x0)
    t = (torch.arange(n) / n + uniform((1,), generator)) % 1
    return weighted(space, x0, t, generator, lambda t: 1 / t)


def mirrored_times(space, x0, seed):
    """Rows i and n - 1 - i have times t and 1 - t."""
    generator, n = seeded(seed), len(x0)
    half = uniform((-(-n // 2),), generator)
    t = torch.cat([half, 1 - half[: n // 2].flip(0)])
    return weighted(space, x0, t, generator, lambda t: 1 / t)


# --- likelihoods --------------------------------------------------------------------------------------------


def in_order(space, x0, rank):
    """-log p(x0) where the position of rank j [n, L] is predicted given those of lower rank."""
    total = torch.zeros(len(x0), dtype=torch.float64)
    for j in range(space.length):
        loss = cross_entropy(space, x0.masked_fill(rank >= j, space.mask), x0)
        total += (loss * (rank == j)).sum(1)
    return total


def left_to_right(space, x0, seed):
    """The autoregressive likelihood. Claims a law."""
    return in_order(space, x0, torch.arange(space.length).expand_as(x0))


def right_to_left(space, x0, seed):
    """The likelihood in reversed order. Claims a law."""
    return in_order(space, x0, torch.arange(space.length).flip(0).expand_as(x0))


def one_step(space, x0, seed):
    """All positions given none, in float32: the likelihood of independent tokens. Claims a law."""
    return cross_entropy(space, torch.full_like(x0, space.mask), x0).float().sum(1)


def any_order(space, x0, seed):
    """The likelihood in a random order of each row: a bound by Jensen's inequality."""
    return in_order(space, x0, uniform(x0.shape, seeded(seed)).argsort(1))


# --- uniform noise ------------------------------------------------------------------------------------------


def channel(ids, alpha, vocab):
    """Probability of each noisy token y given the clean one, alpha [y = x] + (1 - alpha) / V, [..., V]."""
    return alpha * torch.nn.functional.one_hot(ids, vocab) + (1 - alpha) / vocab


def uniform_steps(space, x0, seed):
    """D3PM's bound with four steps of uniform noise, summed over all noisy sentences."""
    states = torch.cartesian_prod(*[torch.arange(space.vocab)] * space.length)
    total = torch.zeros(len(x0), dtype=torch.float64)
    for i in range(4):
        a, b = i / 4, (i + 1) / 4
        chance = channel(x0, a, space.vocab)[:, torch.arange(space.length), states].prod(-1)  # [n, states]
        step = channel(states, a / b, space.vocab)

        def posterior(x, step=step, a=a, b=b):
            law = step * (b * x + (1 - b) / space.vocab)
            return law / law.sum(-1, keepdim=True)

        true = posterior(torch.nn.functional.one_hot(x0, space.vocab)[:, None])  # [n, states, L, V]
        ours = posterior(space.denoise(states, 1 - a))
        kl = (torch.special.xlogy(true, true) - torch.special.xlogy(true, ours)).sum((-1, -2))
        total += (chance * kl).sum(1)
    return total


def uniform_rates(space, x0, seed):
    """Duo's bound: divergence of the reverse jump rates at t ~ U(.02, 1), and the loss at t = .02."""
    generator, low, vocab = seeded(seed), 0.02, space.vocab

    def noised(alpha):
        kept = uniform(x0.shape, generator) < alpha
        return torch.where(kept, x0, torch.randint(vocab, x0.shape, generator=generator))

    alpha = ((1 - low) * uniform((len(x0), 1), generator))[..., None]
    z = noised(alpha[..., 0])
    loo = space.denoise(z, 1 - alpha[:, 0, 0])
    true, ours = channel(x0, alpha, vocab), alpha * loo + (1 - alpha) / vocab
    true, ours = (q / q.gather(2, z[..., None]) for q in (true, ours))
    rates = ((true * (true / ours).log() - true + ours) / (alpha * vocab)).sum((1, 2))
    end = noised(torch.tensor(1 - low))
    mean = space.denoise(end, low) * channel(end, 1 - low, vocab)
    mean = mean / mean.sum(-1, keepdim=True)
    return (1 - low) * rates - mean.gather(2, x0[..., None])[..., 0].log().sum(1)


# --- others -------------------------------------------------------------------------------------------------


def heavier(space, x0, seed):
    """Weight 1/t + 1: a looser bound and still a proper score."""
    return subsets(
        space,
        x0,
        lambda k, n: bound_weight(k, n) + math.factorial(k) * math.factorial(n - k) / math.factorial(n + 1),
    )


def symmetric_kl(space, x0, seed):
    """Cross-entropy and reversed divergence of the label floored at .001, all masked. Claims modes."""
    p = space.denoise(torch.full_like(x0, space.mask), 1.0)
    label = p.gather(2, x0[..., None])[..., 0]
    return (-label.log() - torch.special.entr(p).sum(-1) - math.log(1e-3) * (1 - label)).sum(1)


BUFFER = torch.zeros(1_000_000, dtype=torch.float32)


def four_draws(space, x0, seed):
    """The mean of four draws in float32, always in the same memory."""
    generator = seeded(seed)
    draws = [
        weighted(space, x0, uniform((len(x0),), generator), generator, lambda t: 1 / t) for _ in range(4)
    ]
    return BUFFER[: len(x0)].copy_(torch.stack(draws).mean(0))


FAMILIES = {
    "exact bounds": (all_subsets, discrete_time, heavier),
    "random times": (one_time, window_and_tail, squared_times, number_of_masks, four_draws),
    "times of a batch": (stratified, shifted_grid, mirrored_times),
    "likelihoods": (left_to_right, right_to_left, one_step, any_order),
    "bounds under uniform noise": (uniform_steps, uniform_rates),
    "improper scores": (symmetric_kl,),
}
EXACT = (*FAMILIES["exact bounds"], left_to_right, right_to_left, one_step, uniform_steps, symmetric_kl)
for function in itertools.chain(*FAMILIES.values()):
    function.claims, function.meaning = "bound", "leave_one_out"
    function.draws = "exact" if function in EXACT else "random"
left_to_right.claims = right_to_left.claims = one_step.claims = "law"
symmetric_kl.claims = "mode"
