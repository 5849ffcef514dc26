"""Models that know no structure: what a sample figure is worth if they reach it too.

Independent pixels:                     p(x) = prod_d p_d(x_d)
Independent pixels given the class:     p(x) = sum_c p(c) prod_d p_d(x_d | c)

Each p_d is the training histogram with Laplace smoothing, (count + a) / (total + a S), so that
held-out values never seen in training keep a finite likelihood. Likelihoods are exact. The second
model's is that of x alone (the mixture over classes), so that it can be set beside an
unconditional model's bits per dimension; by p(x) = p(x | c) p(c) / p(c | x), being told the class
saves at most the class's own information, about log2(10) / 64 = .05 bits a pixel on small digits.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

# With 144 images a class and 17 values, a = 1 would spread a tenth of each law over values that
# never occur: worse samples AND a worse held-out likelihood than a = 0.1, so a weaker yardstick.
SMOOTHING = 0.1


class Baseline(NamedTuple):
    """A law on [*S] with values 0 .. num_values - 1, fitted on training data."""

    sample: Callable[[np.random.Generator, int], np.ndarray]  # (rng, n) -> x [n, *S] int32
    log_prob: Callable[[np.ndarray], np.ndarray]  # x [n, *S] -> [n] float64 nats, exact


def _histograms(x: np.ndarray, num_values: int, smoothing: float) -> np.ndarray:
    """Smoothed laws [D, S] of the columns of x [n, D]."""
    dims = x.shape[1]
    code = x + num_values * np.arange(dims)
    counts = np.bincount(code.ravel(), minlength=dims * num_values).reshape(dims, num_values)
    return (counts + smoothing) / (len(x) + smoothing * num_values)


def _draw(rng: np.random.Generator, laws: np.ndarray, n: int) -> np.ndarray:
    """x [n, D] int32, column d from laws[d] by inverse distribution function."""
    edges = np.cumsum(laws, axis=1)[:, :-1]  # the last edge is 1: rounding must not pass it
    u = rng.random((len(laws), n))
    columns = [np.searchsorted(e, v, side="right") for e, v in zip(edges, u, strict=True)]
    return np.stack(columns, axis=1).astype(np.int32)


def mixture(
    x: np.ndarray, label: np.ndarray, num_values: int, smoothing: float = SMOOTHING
) -> Baseline:
    """Independent coordinates given the class, classes weighted as they occur.

    Args:
        x: [n, *S] training data, integers in 0 .. num_values - 1.
        label: [n] integers; any values.
        num_values: S.
        smoothing: a > 0, the pseudo-count of each value.

    Returns:
        A `Baseline`.
    """
    shape = np.shape(x)[1:]
    flat = np.asarray(x, np.int64).reshape(len(x), -1)
    classes, counts = np.unique(label, return_counts=True)
    weights = counts / counts.sum()
    laws = np.stack([_histograms(flat[label == c], num_values, smoothing) for c in classes])

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        chosen = rng.choice(len(classes), size=n, p=weights)
        out = np.empty((n, flat.shape[1]), np.int32)
        for c, law in enumerate(laws):
            rows = chosen == c
            out[rows] = _draw(rng, law, int(rows.sum()))
        return out.reshape(n, *shape)

    def log_prob(y: np.ndarray) -> np.ndarray:
        y = np.asarray(y, np.int64).reshape(len(y), -1)
        columns = np.arange(y.shape[1])
        given = np.stack([np.log(law)[columns, y].sum(1) for law in laws])
        return logsumexp(given + np.log(weights)[:, None], axis=0)

    return Baseline(sample, log_prob)


def independent(x: np.ndarray, num_values: int, smoothing: float = SMOOTHING) -> Baseline:
    """Independent coordinates: the mixture with one class; arguments as there."""
    return mixture(x, np.zeros(len(x), np.int64), num_values, smoothing)
