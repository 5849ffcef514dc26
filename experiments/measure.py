"""Distances of laws, the floor that sampling sets them, and the exponents they follow."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from gmjax.types import Array


class Fit(NamedTuple):
    """An exponent and its 95 % interval."""

    slope: float
    low: float
    high: float


def distances(p: Array | np.ndarray, q: Array | np.ndarray) -> tuple[float, float]:
    """Total variation and Hellinger distance of two laws (or counts): both in [0, 1]."""
    p, q = (a / a.sum() for a in (np.asarray(p, np.float64), np.asarray(q, np.float64)))
    hellinger = np.sqrt(max(0.0, 1 - np.sum(np.sqrt(p * q))))
    return float(np.abs(p - q).sum() / 2), float(hellinger)


def floor(q: Array, n: int, repeats: int = 20) -> tuple[float, float]:
    """The mean distances of n independent draws of q from q."""
    rng = np.random.default_rng(0)
    p = np.asarray(q, np.float64)
    p = p / p.sum()
    tv, hellinger = np.mean([distances(rng.multinomial(n, p), p) for _ in range(repeats)], 0)
    return float(tv), float(hellinger)


def p_value(count: np.ndarray, law: Array | np.ndarray, least: float = 20.0) -> float:
    """The chi-square test that counts are draws of a law, states pooled to `least` a bin."""
    law = np.asarray(law, np.float64)
    expected = law / law.sum() * count.sum()
    order = np.argsort(-expected)
    full = np.cumsum(expected[order]) // least
    bins = np.unique(np.minimum(full, full[-1] - 1), return_inverse=True)[1]
    pooled = (np.bincount(bins, weights=a[order]) for a in (count, expected))
    return float(scipy.stats.chisquare(*pooled).pvalue)


def exponent(x: Sequence[float], error: Sequence[float], next_order: bool = False) -> Fit:
    """Least squares of log error on log x, with the t interval of the slope.

    Args:
        next_order: add a term linear in x, which the error x^slope (1 + c x) has, so that the
            slope is the one at x -> 0; takes four points or more.
    """
    y = np.log(error)
    basis = np.stack([np.log(x), np.ones(len(x)), *([x] if next_order else [])], 1)
    coefficients = np.linalg.lstsq(basis, y)[0]
    free = len(x) - basis.shape[1]
    variance = np.sum((y - basis @ coefficients) ** 2) / free
    deviation = np.sqrt(variance * np.linalg.inv(basis.T @ basis)[0, 0])
    half = float(scipy.stats.t.ppf(0.975, free) * deviation)
    slope = float(coefficients[0])
    return Fit(slope, slope - half, slope + half)
