"""Distances between laws on finite sets: labels, tokens, n-grams, whole low-dimensional states.

For sequences these are the figures of the piano experiment of Campbell et al.
(arXiv 2205.14987, section 6.3): the Hellinger distance between token histograms, and the share
of outliers, tokens that are generated but never occur in the truth. Both are offered pooled (one
histogram for all sequences) and paired (sequence i against truth i, as for continuations).
"""

import numpy as np


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Total variation 1/2 sum |p - q| of two histograms [K], each normalised first; in [0, 1]."""
    return float(0.5 * np.abs(_law(p) - _law(q)).sum())


def hellinger(p: np.ndarray, q: np.ndarray) -> float:
    """Hellinger distance sqrt(1/2 sum (sqrt p - sqrt q)^2) of two histograms [K]; in [0, 1]."""
    return float(np.sqrt(0.5 * np.sum((np.sqrt(_law(p)) - np.sqrt(_law(q))) ** 2)))


def _law(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, np.float64)
    return counts / max(counts.sum(), np.finfo(np.float64).tiny)


def ngrams(x: np.ndarray, n: int, num_values: int) -> np.ndarray:
    """Every n-gram as one integer, read as a number in base `num_values`.

    Args:
        x: [B, L] integers in 0 .. num_values - 1.
        n: length of the n-grams, 1 <= n <= L, with num_values ** n < 2 ** 63.
        num_values: S.

    Returns:
        [B, L - n + 1] int64 codes in 0 .. S ** n - 1.
    """
    x = np.asarray(x, np.int64)
    width = x.shape[1] - n + 1
    codes = np.zeros((len(x), width), np.int64)
    for i in range(n):
        codes = codes * num_values + x[:, i : i + width]
    return codes


def histogram_pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts of two sets of integer codes over the union of what occurs: ([K], [K]) int64."""
    support, code = np.unique(np.concatenate([np.ravel(a), np.ravel(b)]), return_inverse=True)
    first, second = np.split(code, [np.size(a)])
    count = lambda c: np.bincount(c, minlength=len(support))
    return count(first), count(second)


def ngram_hellinger(samples: np.ndarray, real: np.ndarray, n: int, num_values: int) -> float:
    """Hellinger distance between the pooled n-gram histograms of two sets of sequences.

    Args:
        samples: [B, L] integers in 0 .. num_values - 1.
        real: [M, L'] integers likewise.
        n: length of the n-grams (1: tokens).
        num_values: S.

    Returns:
        A number in [0, 1].
    """
    return hellinger(*histogram_pair(*_ngram_pair(samples, real, n, num_values)))


def outlier_share(samples: np.ndarray, real: np.ndarray, n: int, num_values: int) -> float:
    """Share of the samples' n-grams that occur nowhere in `real`; arguments as above."""
    drawn, seen = _ngram_pair(samples, real, n, num_values)
    return float(np.mean(~np.isin(drawn, seen)))


def _ngram_pair(samples: np.ndarray, real: np.ndarray, n: int, num_values: int) -> list[np.ndarray]:
    """The n-grams of both as numbers, by rows where a number in base S would not fit."""
    if num_values**n < 2**63:
        return [ngrams(x, n, num_values) for x in (samples, real)]
    rows = (
        np.lib.stride_tricks.sliding_window_view(x, n, 1).reshape(-1, n) for x in (samples, real)
    )
    return _numbered(*rows)


def paired(distance, samples: np.ndarray, real: np.ndarray, n: int, num_values: int) -> float:
    """The mean over i of `distance(samples[i], real[i])`: continuations against their truth.

    Args:
        distance: `ngram_hellinger` or `outlier_share`.
        samples, real: [B, L] integers; row i of both continues the same beginning.
        n, num_values: as for `distance`.

    Returns:
        A number in [0, 1].
    """
    rows = zip(samples, real, strict=True)
    return float(np.mean([distance(a[None], b[None], n, num_values) for a, b in rows]))


def joint_hellinger(samples: np.ndarray, real: np.ndarray, num_values: int) -> float:
    """Hellinger distance between the empirical laws of whole states (for two or so dimensions).

    Args:
        samples: [B, *S] integers in 0 .. num_values - 1.
        real: [M, *S] integers likewise.
        num_values: S.

    Returns:
        A number in [0, 1]; biased upwards unless both sets are large beside S ** D.
    """
    del num_values
    rows = (np.reshape(x, (len(x), -1)) for x in (samples, real))
    return hellinger(*histogram_pair(*_numbered(*rows)))


def _numbered(*sets: np.ndarray) -> list[np.ndarray]:
    """Rows of several sets [n, D] as numbers [n], equal where the rows are."""
    code = np.unique(np.concatenate(sets), axis=0, return_inverse=True)[1].reshape(-1)
    return np.split(code, np.cumsum([len(x) for x in sets])[:-1])
