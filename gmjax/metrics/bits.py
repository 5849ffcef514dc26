"""Bits per dimension: a log-likelihood (or its bound) in nats, made comparable across shapes."""

import math

import numpy as np


def bits_per_dim(nats: np.ndarray, dims: int) -> np.ndarray:
    """Bits per dimension: -log p(x) / (D log 2).

    Args:
        nats: [...] negative log-likelihoods (or upper bounds on them) of whole examples, nats.
        dims: D, the number of dimensions of one example.

    Returns:
        [...] float64, bits per dimension.
    """
    return np.asarray(nats, np.float64) / (dims * math.log(2.0))


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean of independent values and its standard error, s / sqrt(n) with the unbiased s.

    Args:
        values: [n] numbers.

    Returns:
        (mean, standard error); the error is nan for fewer than two values.
    """
    values = np.asarray(values, np.float64).ravel()
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)
