"""Two-sample figures from nearest neighbours, kernels and projections.

All of them compare a sample set x with data y by pairwise distances, in chunks, so that no
[n, m, D] array ever exists. On integer data squared distances are integers below 2^53 and
float64 holds them exactly: ties are real ties and equal images are at distance exactly 0.

Leave-one-out 1-NN accuracy (Lopez-Paz and Oquab, arXiv 1610.06545): pool n points of each set,
give each point the set of its nearest other point. Same law: (n - 1) / (2n - 1), nearly 1/2;
separable or collapsed: 1; copies of y: 0. Discrete data has ties, and any order of preference would
decide them by the order of the array; here a point scores the SHARE of its tied nearest neighbours
that come from its own set, the mean over all ways of breaking the tie at random.
"""

import math
from collections.abc import Callable

import numpy as np

CHUNK = 1024  # rows at a time: 1024 x 1024 float64 distances are 8 MB


def _euclidean(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    square = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2.0 * (x @ y.T)
    return np.sqrt(np.maximum(square, 0.0))


def _hamming(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Row by row: broadcasting all pairs at once would hold n * m * D bytes.
    return np.stack([np.count_nonzero(y != row, axis=1) for row in x]).astype(np.float64)


# name -> (x [n, D], y [m, D]) -> [n, m] float64
DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "euclidean": _euclidean,
    "hamming": _hamming,
}

Metric = str | Callable[[np.ndarray, np.ndarray], np.ndarray]


def _distance(metric: Metric) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return DISTANCES[metric] if isinstance(metric, str) else metric


def _flat(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    return x.reshape(len(x), -1)


def blocks(total: int, size: int, limit: int, seed: int = 0) -> list[np.ndarray]:
    """Index sets of one size that together cover 0 .. total - 1, as far as `limit` lets them.

    A fixed random order is cut into ceil(total / size) pieces; the last wraps round to be full.

    Args:
        total: how many there are to choose from.
        size: length of each block, at most `total`.
        limit: at most so many blocks.
        seed: of the fixed order.

    Returns:
        Blocks [size] int64; indices within one block are distinct.
    """
    order = np.random.default_rng(seed).permutation(total)
    count = min(limit, math.ceil(total / size))
    return [order[(i * size + np.arange(size)) % total] for i in range(count)]


def nearest(
    x: np.ndarray, y: np.ndarray, metric: Metric = "euclidean", chunk: int = CHUNK
) -> tuple[np.ndarray, np.ndarray]:
    """Distance to, and index of, the nearest row of y for every row of x.

    Args:
        x: [n, *S] numbers.
        y: [m, *S] numbers.
        metric: a name in `DISTANCES`, or such a function.
        chunk: rows of x and of y at a time.

    Returns:
        (distance [n] float64, index [n] int64 of the first row of y at that distance).
    """
    x, y = _flat(x), _flat(y)
    distance = np.full(len(x), np.inf)
    index = np.zeros(len(x), np.int64)
    for i in range(0, len(x), chunk):
        rows = slice(i, i + chunk)
        for j in range(0, len(y), chunk):
            table = _distance(metric)(x[rows], y[j : j + chunk])
            arg = table.argmin(1)
            least = table[np.arange(len(arg)), arg]
            closer = least < distance[rows]
            index[rows] = np.where(closer, j + arg, index[rows])
            distance[rows] = np.where(closer, least, distance[rows])
    return distance, index


def nn_accuracies(
    x: np.ndarray, y: np.ndarray, metric: Metric = "euclidean", limit: int = 4, chunk: int = CHUNK
) -> tuple[float, float]:
    """Leave-one-out 1-NN accuracy on the points of x, and on those of y.

    The sets are made equally large, the larger one cut into up to `limit` fixed blocks and the
    accuracies averaged. Ties are split fairly (see the module), so nothing depends on the order
    of the points, and exchanging the sets exchanges the answers.

    Args:
        x: [n, *S] samples.
        y: [m, *S] data.
        metric: a name in `DISTANCES`, or such a function.
        limit: at most so many blocks of the larger set.
        chunk: rows at a time.

    Returns:
        Two accuracies in [0, 1], both 1/2 when the laws agree. Low on x, high on y: noisy copies,
        whose nearest neighbours are the data; high on x: samples that keep to themselves.
    """
    x, y = _flat(x), _flat(y)
    size = min(len(x), len(y))
    pairs = [(a, b) for a in blocks(len(x), size, limit) for b in blocks(len(y), size, limit)]
    both = np.mean([_loo_accuracies(x[a], y[b], metric, chunk) for a, b in pairs], axis=0)
    return float(both[0]), float(both[1])


def nn_accuracy(
    x: np.ndarray, y: np.ndarray, metric: Metric = "euclidean", limit: int = 4, chunk: int = CHUNK
) -> float:
    """The mean of `nn_accuracies`, the usual 1-NN two-sample accuracy; arguments as there.

    Above 1/2 the sets differ or x repeats itself, below x copies y. Look at the two parts before
    calling 1/2 good: noise around the data scores 0 on x and 1 on y.
    """
    return float(np.mean(nn_accuracies(x, y, metric, limit, chunk)))


def _loo_accuracies(
    x: np.ndarray, y: np.ndarray, metric: Metric, chunk: int
) -> tuple[float, float]:
    pool = np.concatenate([x, y])
    side = np.arange(len(pool)) < len(x)
    scores = np.empty(len(pool))
    for i in range(0, len(pool), chunk):
        table = _distance(metric)(pool[i : i + chunk], pool)
        here = np.arange(i, i + len(table))
        table[here - i, here] = np.inf
        tied = table == table.min(1, keepdims=True)
        own = tied & (side[here][:, None] == side)
        scores[here] = own.sum(1) / tied.sum(1)
    return float(scores[side].mean()), float(scores[~side].mean())


def memorised_share(samples: np.ndarray, train: np.ndarray) -> float:
    """Share of samples that equal some training example in every coordinate.

    Args:
        samples: [n, *S] numbers.
        train: [m, *S] numbers.

    Returns:
        A number in [0, 1]. Numbers are compared in the coarser of the two types.
    """
    types = samples.dtype, train.dtype
    real = [t for t in types if np.issubdtype(t, np.floating)]
    dtype = min(real, key=lambda t: t.itemsize) if real else np.result_type(*types)
    # A sum with zero, because -0.0 equals 0.0 and has other bytes.
    code = lambda row: (np.ascontiguousarray(row, dtype) + dtype.type(0)).tobytes()
    drawn = [code(row) for row in samples]
    wanted = set(drawn)
    seen = {c for c in map(code, train) if c in wanted}
    return float(np.mean([c in seen for c in drawn]))


def nn_ratio(
    samples: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    metric: Metric = "euclidean",
    limit: int = 8,
) -> float:
    """Train-to-test nearest-neighbour ratio: 1 for new data, below 1 where training is copied.

        mean_i min_{j in train} d(s_i, train_j) / mean_i min_{j in test} d(s_i, test_j)

    A larger set has nearer neighbours, so both are cut into blocks of the smaller one's size and
    the means averaged over up to `limit` blocks. The law of a fresh draw does not tell train from
    test, so its ratio is 1 in expectation; a copy is at distance 0 in the one block that holds it.

    Args:
        samples: [n, *S].
        train: [m, *S], what the model saw.
        test: [k, *S], what it did not.
        metric: a name in `DISTANCES`, or such a function.
        limit: at most so many blocks.

    Returns:
        A number >= 0; 1 when every sample has a twin in both sets, infinite when in test alone.
    """
    size = min(len(train), len(test))
    mean = lambda data: np.mean(
        [nearest(samples, data[b], metric)[0].mean() for b in blocks(len(data), size, limit)]
    )
    seen, new = float(mean(np.asarray(train))), float(mean(np.asarray(test)))
    return 1.0 if seen == new else seen / new if new else math.inf


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy, Gaussian kernel of the median distance.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j),
    k(a, b) = exp(-|a - b|^2 / (2 h^2)), h the median distance of distinct pooled points
    (Gretton et al., JMLR 13, 2012, equation 3). It may be slightly negative.

    Args:
        x: [n, *S], n >= 2.
        y: [m, *S], m >= 2; (n + m)^2 float64 must fit in memory.

    Returns:
        MMD^2, 0 in expectation when the laws agree.
    """
    n, pool = len(x), np.concatenate([_flat(x), _flat(y)])
    distance = DISTANCES["euclidean"](pool, pool)
    width = np.median(distance[np.triu_indices(len(pool), 1)])
    kernel = np.exp(-0.5 * (distance / max(width, np.finfo(np.float64).tiny)) ** 2)
    off = lambda k: (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))
    return float(off(kernel[:n, :n]) + off(kernel[n:, n:]) - 2.0 * kernel[:n, n:].mean())


def sliced_wasserstein(
    x: np.ndarray, y: np.ndarray, projections: int = 128, seed: int = 0
) -> float:
    """Sliced 2-Wasserstein distance: root mean square of the exact distances on random lines.

    On a line the optimal coupling is monotone, so W_2^2 = int_0^1 (F^-1(u) - G^-1(u))^2 du
    (Bonneel et al., 2015). Quantile functions are steps; the integral is exact.

    Args:
        x: [n, *S].
        y: [m, *S].
        projections: number of uniform directions.
        seed: of the directions.

    Returns:
        A number >= 0 in units of the data.
    """
    x, y = _flat(x).astype(np.float64), _flat(y).astype(np.float64)
    lines = np.random.default_rng(seed).normal(size=(x.shape[1], projections))
    lines /= np.linalg.norm(lines, axis=0)
    n, m = len(x), len(y)
    cuts = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # in units of 1 / (n m)
    start = np.concatenate([[0], cuts[:-1]])
    a = np.sort(x @ lines, axis=0)[start // m]
    b = np.sort(y @ lines, axis=0)[start // n]
    weight = (cuts - start) / (n * m)
    return float(np.sqrt((weight @ (a - b) ** 2).mean()))
