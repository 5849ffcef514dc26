"""Kernel densities on every space: a law that data alone give, beside which likelihoods stand.

    p(x) = (sum_j K(x | y_j) + p_0(x)) / (m + 1),    K(x | y) = exp(kappa s(x, y) - Z(y, kappa)),

over m training examples y_j; p_0 is the law without structure, one example's worth, so that what
lies far out stays possible. K is normalised in x exactly, by closed forms:

    space        s(x, y)                exp Z
    euclidean    -|x - y|^2 / 2         (2 pi / kappa)^(D/2), in units of each column's deviation
    sphere       <x, y> - 1             (2 pi)^(D/2) kappa^(1-D/2) e^-kappa I_{D/2-1}(kappa)
    torus        sum cos(x - y) - 1     prod 2 pi e^-kappa I_0(kappa)
    rotations    cos(angle) - 1         volume e^-kappa (I_0 - I_1)(kappa)
    hyperbolic   1 - cosh(distance)     2 (2 pi / kappa)^((d-1)/2) e^kappa K_{(d-1)/2}(kappa)
    half_line    y log x - x            Gamma(kappa y + 1) / kappa^(kappa y + 1)
    simplex      <y, log x>             prod Gamma(kappa y + 1) / Gamma(kappa + D)
    counts       -|x - y|               (1 + q - q^(y+1)) / (1 - q),    q = e^-kappa
    classes      -(are they unequal)    1 + (S - 1) e^-kappa

laws of Gauss, von Mises and Fisher, Gamma, Dirichlet, Laplace on the integers, and Aitchison and
Aitken; on products kernels multiply. kappa, one a part, is the power of two at which examples are
likeliest given the others.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import gammaln, i0e, i1e, ive, kve, logsumexp

from gmjax.metrics.geometry import parts_of
from gmjax.metrics.report import thin
from gmjax.types import DataSpec

CENTRES = 2000  # training examples at which kernels stand
ROWS = 1000  # states at a time
CHOOSERS = 500  # examples that choose kappa
POWERS = np.arange(-6, 17)  # of two: a width of 1/256 is as sharp as it gets

LogProb = Callable[[np.ndarray], np.ndarray]  # n states [n, F] -> [n] nats


class Kernel(NamedTuple):
    """log K(x | y) = kappa s(x, y) - Z(y, kappa) of flattened states."""

    s: Callable[[np.ndarray, np.ndarray], np.ndarray]  # ([n, F], [m, F]) -> [n, m]
    z: Callable[[np.ndarray, float], np.ndarray | float]  # (y [m, F], kappa) -> [m] or []


VOLUME = 8 * np.pi**2  # of the rotations, where |w| is the speed of the angle


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return cdist(x, y, "sqeuclidean")


def _log(x: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(x, 1e-300))


def _euclidean(train: np.ndarray, num_values: int) -> Kernel:
    scale = train.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    size = np.log(scale).sum()
    return Kernel(
        lambda x, y: -0.5 * _square(x / scale, y / scale),
        lambda y, k: 0.5 * y.shape[1] * np.log(2 * np.pi / k) + size,
    )


def _sphere(train: np.ndarray, num_values: int) -> Kernel:
    half = train.shape[1] / 2

    def z(y, k):
        bessel = ive(half - 1, k)  # zero where it underflows: of many dimensions, a small kappa
        return half * np.log(2 * np.pi) - (half - 1) * np.log(k) + np.log(bessel or np.inf)

    return Kernel(lambda x, y: -0.5 * _square(x, y), z)


def _torus(train: np.ndarray, num_values: int) -> Kernel:
    on = lambda x: np.concatenate([np.cos(x), np.sin(x)], 1)
    return Kernel(
        lambda x, y: -0.5 * _square(on(x), on(y)),
        lambda y, k: y.shape[1] * np.log(2 * np.pi * i0e(k)),
    )


def _rotations(train: np.ndarray, num_values: int) -> Kernel:
    return Kernel(
        lambda x, y: -0.25 * _square(x, y),
        lambda y, k: np.log(VOLUME * (i0e(k) - i1e(k))),
    )


def _hyperbolic(train: np.ndarray, num_values: int) -> Kernel:
    order = (train.shape[1] - 2) / 2

    def s(x, y):
        a, b = x[:, 1:], y[:, 1:]  # the first coordinate follows from them
        height = [np.sqrt(1.0 + (c * c).sum(1, keepdims=True)) for c in (a, b)]
        return -0.5 * np.maximum(_square(a, b) - _square(*height), 0.0)

    return Kernel(
        s, lambda y, k: np.log(2.0) + order * np.log(2 * np.pi / k) + np.log(kve(order, k))
    )


def _half_line(train: np.ndarray, num_values: int) -> Kernel:
    unit = np.maximum(train.mean(0), 1e-300)

    def z(y, k):
        shape = k * y / unit + 1
        return (gammaln(shape) - shape * np.log(k) + np.log(unit)).sum(1)

    return Kernel(lambda x, y: _log(x / unit) @ (y / unit).T - (x / unit).sum(1, keepdims=True), z)


def _simplex(train: np.ndarray, num_values: int) -> Kernel:
    return Kernel(
        lambda x, y: _log(x) @ y.T,
        lambda y, k: gammaln(k * y + 1).sum(1) - gammaln((k * y + 1).sum(1)),
    )


def _counts(train: np.ndarray, num_values: int) -> Kernel:
    def z(y, k):
        q = np.exp(-k)
        return np.log((1 + q - q ** (y + 1)) / -np.expm1(-k)).sum(1)

    return Kernel(lambda x, y: -cdist(x, y, "cityblock"), z)


def _classes(train: np.ndarray, num_values: int) -> Kernel:
    return Kernel(
        lambda x, y: -y.shape[1] * cdist(x, y, "hamming"),
        lambda y, k: y.shape[1] * np.log1p((num_values - 1) * np.exp(-k)),
    )


# kind -> (training states [m, F], num_values) -> Kernel
KERNELS: dict[str, Callable[[np.ndarray, int], Kernel]] = {
    "euclidean": _euclidean,
    "half_line": _half_line,
    "torus": _torus,
    "counts": _counts,
    "hyperbolic": _hyperbolic,
    "classes": _classes,
    "sphere": _sphere,
    "simplex": _simplex,
    "rotations": _rotations,
}


def density(spec: DataSpec, train: np.ndarray, plain: LogProb | None) -> LogProb:
    """The kernel density of training data.

    Args:
        spec: of the states.
        train: [m, F] flattened training states; at most `CENTRES` of them are used.
        plain: log p_0, or None where the law without structure has no density.

    Returns:
        x [n, F] -> log p(x) [n] nats, with respect to the volume.
    """
    y = thin(train, CENTRES)
    parts = [(KERNELS[kind](y[:, c], spec.num_values), c) for kind, c in parts_of(spec).values()]

    def likely(s: list[np.ndarray], kappa: list[float], first: np.ndarray | None) -> np.ndarray:
        """log of the mean kernel; `first` [n] is log p_0."""
        log_k = sum(
            k * each - kernel.z(y[:, c], k)
            for (kernel, c), each, k in zip(parts, s, kappa, strict=True)
        )
        total = logsumexp(log_k, axis=1)
        alone = np.full(len(total), -np.inf) if first is None else first
        return np.logaddexp(total, alone)

    few = y[:CHOOSERS]
    s = [kernel.s(few[:, c], y[:, c]) for kernel, c in parts]
    for each in s:
        np.fill_diagonal(each, -np.inf)  # each example given the others
    own = plain(few) if plain else None
    kappa = [1.0] * len(parts)
    for _ in range(min(len(parts), 2)):
        for i in range(len(parts)):
            score = lambda k, i=i: likely(s, [*kappa[:i], k, *kappa[i + 1 :]], own).sum()
            kappa[i] = max(2.0**POWERS, key=score)
    weight = np.log(len(y) + (plain is not None))

    def log_prob(x: np.ndarray) -> np.ndarray:
        def some(x):
            s = [kernel.s(x[:, c], y[:, c]) for kernel, c in parts]
            return likely(s, kappa, plain(x) if plain else None) - weight

        return np.concatenate([some(x[i : i + ROWS]) for i in range(0, len(x), ROWS)])

    return log_prob
