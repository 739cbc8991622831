"""MAUVE: the agreement of the distributions of generated and reference text, between 0 and 1 (arXiv 2102.01454).

    mauve_score(reference, samples, settings, seed)          features [n, D] of the texts of both -> MauveScore

Features of reference and samples are clustered together. With p and q the histograms of reference and samples over the
clusters, the divergence curve is { (exp(-c KL(q|r)), exp(-c KL(p|r))) : r = w p + (1 - w) q, 0 < w < 1 } and MAUVE is
the area under it, 1 where p = q and near 0 where they are far apart (Pillutla et al., arXiv 2102.01454, equations 1 to
3). Before clustering, features are scaled to length 1 and projected on the principal components that hold the fraction
`variance` of their variance.

The feature of a text is the judge's last-layer hidden state after the last id read, as published, or the mean of these
states over all ids (not published): the last state of a character-level judge says little more than which character
comes next, and with that state alone repeated phrases score like real text.

Histograms estimated from n rows differ even for samples of one distribution, and the clusters depend on the initial
centres of k-means. So the value is a mean over clusterings, and MAUVE of real against real text at the same n is
reported along with it. Values of two judges, or at two n, are not comparable.

Symbols: n texts on each side, D features of a text, d of them after projection, k clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import rel_entr

from repro.core import rng
from repro.core.parts import Part, part
from repro.evals.text_quality.samples import Metric

EDGE = 1e-6
"""Distance of the smallest and largest mixture weight w from 0 and 1."""
State = Literal["last", "mean"]
"""Hidden state used as the feature of a text: after its last id, or the mean over all its ids."""


@part
class Mauve(Part):
    """Settings of the metric MAUVE. `state`: hidden state used as feature; `length`: number of ids read of each text;
    `clusters`: number of k-means clusters of samples and reference together; `seeds`: number of clusterings that are
    averaged; `starts`: runs of k-means per clustering, of which the best is used; `variance`: fraction of the features'
    variance that the projection keeps; `scaling`: c of the divergence curve (see the module); `mixtures`: number of
    points at which the curve is computed.

    ValueError for a field outside its range.
    """

    state: State
    length: int
    clusters: int
    seeds: int
    starts: int
    variance: float
    scaling: float
    mixtures: int

    @property
    def name(self) -> str:
        """Name of the metric in records: `mauve`, or `mauve_mean` for mean hidden states."""
        return "mauve" if self.state == "last" else f"mauve_{self.state}"

    def __post_init__(self) -> None:
        for pin, least in (("length", 1), ("clusters", 2), ("seeds", 5), ("starts", 1), ("mixtures", 2)):
            if getattr(self, pin) < least:
                raise ValueError(f"mauve: {pin}={getattr(self, pin)} is too few; give {least} or more")
        if not 0 < self.variance <= 1:
            raise ValueError(f"mauve: variance={self.variance} must be a fraction above 0 and at most 1")
        if not self.scaling > 0:
            raise ValueError(f"mauve: scaling={self.scaling} must be above 0 (published: 5)")


@dataclass(frozen=True)
class MauveScore:
    """MAUVE of one set of samples against a reference: its value under each clustering, `values` [number of
    clusterings]; `sampling`: standard error of their mean that is due to the choice of texts on both sides; `n`: number
    of samples."""

    values: np.ndarray
    sampling: float
    n: int

    def metric(self) -> Metric:
        """(MAUVE averaged over clusterings; its standard error due to the choice of texts on both sides and to the
        clusterings together; number of samples)."""
        spread = float(self.values.var(ddof=1)) / len(self.values)
        return float(self.values.mean()), math.sqrt(self.sampling**2 + spread), self.n

    def over_clusterings(self) -> Metric:
        """(MAUVE averaged over clusterings; its standard error due to the clusterings alone; number of clusterings)."""
        count = len(self.values)
        return float(self.values.mean()), float(self.values.std(ddof=1)) / math.sqrt(count), count


def mauve_score(reference: np.ndarray, samples: np.ndarray, pins: Mauve, seed: int) -> MauveScore:
    """MAUVE of the features `samples` [n, D] against the features `reference` [n, D] (one row per text) with settings
    `pins`; `seed`: random seed of the clusterings. The standard error due to the choice of texts on both sides is the
    jackknife's.

    ValueError for unequal numbers of rows, or for fewer rows than clusters.
    """
    n = len(reference)
    if len(samples) != n:
        raise ValueError(
            f"MAUVE of {len(samples)} samples against {n} reference texts; give equally many of each"
        )
    if n < pins.clusters:
        raise ValueError(
            f"MAUVE cannot make clusters={pins.clusters} of {n} samples; set clusters to at most {n}"
        )
    points = project_features(np.concatenate([reference, samples]), pins.variance)
    values, one_less = [], np.zeros((2, n))
    for clustering in range(pins.seeds):
        labels = cluster_points(points, pins.clusters, pins.starts, seed, clustering)
        sides = labels[:n], labels[n:]
        counts = np.stack([np.bincount(side, minlength=pins.clusters) for side in sides])
        values.append(float(area(*(counts / n), pins)))
        for side in (0, 1):
            one_less[side] += _one_less(counts, side, pins)[sides[side]] / pins.seeds
    deviation = one_less - one_less.mean(1, keepdims=True)
    return MauveScore(np.array(values), math.sqrt((n - 1) / n * float((deviation**2).sum())), n)


def _one_less(counts: np.ndarray, side: int, pins: Mauve) -> np.ndarray:
    """Jackknife values of MAUVE, [k]: entry i is MAUVE with one text of cluster i left out on the side `side` (0:
    reference, 1: samples). `counts` [2, k] are the numbers of texts per side and cluster."""
    n, k = counts[side].sum(), counts.shape[1]
    less = (counts[side] - np.eye(k)).clip(0) / (n - 1)
    other = np.broadcast_to(counts[1 - side] / counts[1 - side].sum(), less.shape)
    return area(less, other, pins) if side == 0 else area(other, less, pins)


def area(p: np.ndarray, q: np.ndarray, pins: Mauve) -> np.ndarray:
    """MAUVE, [...], of histograms p and q [..., k] over k clusters: the area under their divergence curve (arXiv
    2102.01454), by the trapezoidal rule between the curve's end points (1, 0) and (0, 1)."""
    w = np.linspace(EDGE, 1 - EDGE, pins.mixtures)[:, None]
    r = w * p[..., None, :] + (1 - w) * q[..., None, :]
    x = np.exp(-pins.scaling * rel_entr(q[..., None, :], r).sum(-1))
    y = np.exp(-pins.scaling * rel_entr(p[..., None, :], r).sum(-1))
    ends = np.zeros_like(x[..., :1]), np.ones_like(x[..., :1])
    x, y = np.concatenate([ends[1], x, ends[0]], -1), np.concatenate([ends[0], y, ends[1]], -1)
    return ((x[..., :-1] - x[..., 1:]) * (y[..., :-1] + y[..., 1:]) / 2).sum(-1)


def project_features(features: np.ndarray, variance: float) -> np.ndarray:
    """Features [n, D], each scaled to length 1, then centred and projected on the d first principal components, the
    fewest that hold the fraction `variance` of the variance: [n, d]."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    scaled = features.astype(np.float64) / np.where(length > 0, length, 1.0)
    centred = scaled - scaled.mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    held = np.cumsum(singular**2)
    if held[-1] == 0:
        return centred[:, :1]
    kept = int(np.searchsorted(held, variance * held[-1] * (1 - 1e-12))) + 1
    return centred @ axes[:kept].T


def cluster_points(points: np.ndarray, k: int, starts: int, seed: int, clustering: int) -> np.ndarray:
    """Cluster index (0 to k - 1) of each of n points [n, d], as [n], from the best of `starts` runs of Lloyd's k-means
    with k-means++ initial centres (Arthur and Vassilvitskii 2007); random draws are keyed by `seed` and `clustering`,
    the number of the clustering."""
    key = rng.keys(seed, rng.CLUSTER, clustering, range(starts))
    runs = [_lloyd(points, _centres(points, u)) for u in rng.uniform(key, k).numpy()]
    return min(runs, key=lambda run: run[1])[0]


def _centres(points: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Initial centres of k-means (k-means++), [k, d], one per uniform variate of `u` [k]: the first is any of the
    `points` [n, d], each later one a point drawn in proportion to its squared distance from the nearest centre so far.
    Fewer than k if all points coincide with centres."""
    chosen = [points[int(u[0] * len(points))]]
    distance = ((points - chosen[0]) ** 2).sum(1)
    for draw in u[1:]:
        total = np.cumsum(distance)
        if total[-1] == 0:
            break
        chosen.append(points[min(int(np.searchsorted(total, draw * total[-1], "right")), len(points) - 1)])
        distance = np.minimum(distance, ((points - chosen[-1]) ** 2).sum(1))
    return np.stack(chosen)


def _lloyd(points: np.ndarray, centres: np.ndarray, rounds: int = 500) -> tuple[np.ndarray, float]:
    """(index of the nearest centre of each of the `points` [n, d], as [n]; sum of squared distances to these centres)
    when Lloyd's algorithm, begun with `centres` [k, d], has converged, or after `rounds` iterations. A centre that
    loses all its points does not move."""
    labels = np.full(len(points), -1)
    for _ in range(rounds):
        nearest = _nearest(points, centres)
        if (nearest == labels).all():
            break
        labels = nearest
        counts = np.bincount(labels, minlength=len(centres))
        sums = np.zeros_like(centres)
        np.add.at(sums, labels, points)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    return labels, float(((points - centres[labels]) ** 2).sum())


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return ((centres**2).sum(1) - 2 * points @ centres.T).argmin(1)
