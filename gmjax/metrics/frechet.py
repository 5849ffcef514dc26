"""Frechet distance: the 2-Wasserstein distance between the Gaussians that fit two sample sets.

For N(m1, C1) and N(m2, C2),

    d^2 = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1^{1/2} C2 C1^{1/2})^{1/2}.

The eigenvalues of C1^{1/2} C2 C1^{1/2} = A A^T, A = C1^{1/2} C2^{1/2}, are the squared singular
values of A, so the last trace is the nuclear norm of A. Both roots come from `eigh`, with
eigenvalues below zero (rounding) set to zero: nothing can turn complex, and a singular
covariance needs no jitter. Following custom, "the Frechet distance" below is d^2.
"""

import numpy as np
from scipy import linalg


def symmetric_root(cov: np.ndarray) -> np.ndarray:
    """The symmetric square root of a positive semi-definite matrix.

    Args:
        cov: [D, D] float64, symmetric, eigenvalues >= 0 up to rounding.

    Returns:
        [D, D] float64 R = R^T >= 0 with R R = cov.
    """
    values, vectors = linalg.eigh(cov)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def gaussian_frechet(
    mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray
) -> float:
    """Squared 2-Wasserstein distance of two Gaussians (Dowson and Landau, 1982).

    Args:
        mean1, mean2: [D] float64.
        cov1, cov2: [D, D] float64, positive semi-definite.

    Returns:
        d^2 >= 0, in squared units of the data.
    """
    nuclear = linalg.svdvals(symmetric_root(cov1) @ symmetric_root(cov2)).sum()
    bures = np.trace(cov1) + np.trace(cov2) - 2.0 * nuclear
    return float(np.sum((mean1 - mean2) ** 2) + max(bures, 0.0))


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and unbiased covariance [D, D], float64, of x [n, *S] flattened to [n, D]."""
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    mean = flat.mean(0)
    centred = flat - mean
    return mean, centred.T @ centred / max(len(flat) - 1, 1)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance d^2 between two sample sets, from their means and covariances.

    It is biased upwards by finite samples, so compare it only at equal sizes, or beside
    the distance of genuine data (the floor). Convention for pixels: values / (num_values - 1).

    Args:
        x: [n, *S] numbers.
        y: [m, *S] numbers.

    Returns:
        d^2 >= 0, in squared units of the data.
    """
    return gaussian_frechet(*moments(x), *moments(y))
