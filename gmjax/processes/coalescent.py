"""The number of lineages of Kingman's coalescent with mutation, at any time.

Trace a population back in time: m lineages lose one, by merging or by mutating, at the rate
lambda_m = m (m + theta - 1) / 2, theta > 0 the mutation rate. Started from infinitely many, M of
them are left after the time tau, and

    q_m(tau) = P(M = m) = sum_{k >= m} (-1)^(k - m) (theta + 2k - 1) Gamma(theta + m + k - 1)
                          e^(-lambda_k tau) / (Gamma(theta + m) m! (k - m)!),

whose terms cancel to nothing when tau is small, but for the largest m. Two forms that do not:

A table, for tau above a switch. The time until m are left is a sum of independent exponential
variables, so q_m has the Laplace transform prod_{k > m} lambda_k / (lambda_k + s) / (lambda_m + s).
With w^2 = (theta - 1)^2 / 4 - 2 s and b = m + (theta - 1) / 2 the product is of gamma functions,

    q_m(tau) = (1 / 2 pi i) int e^(s tau) 2 Gamma(b + w) Gamma(b - w) / (m! Gamma(theta + m)) ds,

and on a parabola through the saddle point of the integrand, which lies on the real line where
sum_{k >= m} 1 / (lambda_k + s) = tau, the trapezoidal rule gives q_m to 12 digits, the smallest
too. log q_m, from the series where that falls from its first term on, is tabulated in log tau and
interpolated by cubics.

A normal law, for tau below the switch: as tau falls M has

    mean      2 / tau - (theta - 1) / 2 - 1 / 6 + (theta - 1)^2 tau / 24,
    variance  2 / (3 tau) + 1 / 45,         third cumulant  2 / (15 tau),

Griffiths' limit with its next terms, and a quadratic in a normal variable with these cumulants,
rounded to an integer, is off by less than 1e-3 in distribution. What is drawn from M depends on
it through E M / (theta + M) = e^(-theta tau / 2) and its like, which it keeps to 1e-5.

Source: Griffiths (1980, 1984); Tavare (1984); Jenkins and Spano (2017), section 3. The contour
is Talbot's idea with the parabola of Weideman and Trefethen (2007).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln, loggamma

from gmjax import draws
from gmjax.types import Array, Key

SWITCH = 0.03  # tau, below which the normal law takes over,
SWITCH_RATE = 0.36  # and tau times theta: at the less of the two
STEP = 0.03  # of the table, in log tau


class Lineages(NamedTuple):
    """The law of M at each tau."""

    switch: float  # the least tau of the table
    terms: int  # the table has q_0 .. q_{terms - 1}
    log_pmf: Callable[[Array], Array]  # tau [] >= switch -> log q [terms]
    sample: Callable[[Key, Array], Array]  # (key, tau []) -> M [], a float


def lineages(theta: float, tau_max: float) -> Lineages:
    """The law of the number of lineages for tau in (0, tau_max].

    Args:
        theta: the mutation rate, positive.
        tau_max: the longest time asked for.
    """
    switch = min(SWITCH, SWITCH_RATE / theta)
    # Past 50 / theta none is left, to one part in 1e11.
    end = max(min(tau_max, 50 / theta), 1.1 * switch)
    count = int(2 / switch + 6 / np.sqrt(switch)) + 1
    rows = int(np.ceil(np.log(end / switch) / STEP)) + 4
    start, step = np.log(switch), np.log(end / switch) / (rows - 4)
    # One row before the first time and two after the last, for the cubics.
    table = log_pmf(theta, np.exp(start + step * (np.arange(rows) - 1)), count)

    def interpolated(tau: Array) -> Array:
        place = (jnp.log(jnp.clip(tau, switch, end)) - start) / step
        i = jnp.clip(jnp.floor(place), 0, rows - 4)
        near = jax.lax.dynamic_slice_in_dim(jnp.asarray(table, tau.dtype), i.astype(jnp.int32), 4)
        return cubic(place - i) @ near

    def sample(key: Key, tau: Array) -> Array:
        key_table, key_normal = jax.random.split(key)
        u = jax.random.uniform(key_table, (), tau.dtype)
        many = draws.categorical(u, jnp.exp(interpolated(tau))).astype(tau.dtype)
        few = small_time(theta, tau, jax.random.normal(key_normal, (), tau.dtype))
        return jnp.where(tau < switch, few, many)

    return Lineages(switch, count, interpolated, sample)


def small_time(theta: float, tau: Array, z: Array) -> Array:
    """M of the normal law from a standard normal z: [], an integer as a float."""
    mean = 2 / tau - (theta - 1) / 2 - 1 / 6 + (theta - 1) ** 2 * tau / 24
    std = jnp.sqrt(2 / (3 * tau) + 1 / 45 - 1 / 12)  # rounding adds 1 / 12
    skew = 2 / (15 * tau) / std**3
    return jnp.maximum(jnp.round(mean + std * (z + skew * (z**2 - 1) / 6)), 0)


def cubic(u: Array) -> Array:
    """Lagrange's weights [4] of values at -1, 0, 1, 2 for the value at u in [0, 1]."""
    a, b, c, d = u + 1, u, u - 1, u - 2
    return jnp.stack([-b * c * d / 6, a * c * d / 2, -a * b * d / 2, a * b * c / 6])


def log_pmf(theta: float, tau: np.ndarray, count: int) -> np.ndarray:
    """log q_m(tau) for m < count: [*tau, count] float64."""
    tau, m = np.broadcast_arrays(tau[..., None], np.arange(count))
    falls = (theta + 2 * m + 1) * np.exp(-(m + theta / 2) * tau) < 0.5
    out = np.empty(tau.shape)
    out[falls] = _series(theta, tau[falls], m[falls])
    out[~falls] = _contour(theta, tau[~falls], m[~falls])
    return out


def _series(theta: float, tau: np.ndarray, m: np.ndarray, terms: int = 16) -> np.ndarray:
    """log q_m(tau) by the alternating series, where it falls from its first term on: [n]."""
    j, m, tau = np.arange(terms), m[:, None], tau[:, None]
    first = (m == 0) & (j == 0)  # (theta - 1) Gamma(theta - 1) / Gamma(theta) = 1
    factor = np.where(first, 1, theta + 2 * (m + j) - 1)
    rise = gammaln(theta + 2 * m + j - 1 + first) - gammaln(j + 1)
    value = np.log(factor) + rise - (m + j) * (m + j + theta - 1) * tau / 2
    top = value[:, :1]
    total = np.log(np.sum((-1.0) ** j * np.exp(value - top), 1))
    return total + (top - gammaln(theta + m) - gammaln(m + 1))[:, 0]


def _contour(theta: float, tau: np.ndarray, m: np.ndarray, nodes: int = 160) -> np.ndarray:
    """log q_m(tau) by the trapezoidal rule on s = saddle + i a u - u^2 / 2: [n]."""
    b, c = m + (theta - 1) / 2, (theta - 1) ** 2 / 4
    z = _saddle(b, tau)
    s = np.maximum((c + np.sign(z) * z**2) / 2, 0.5 / tau - m * (m + theta - 1) / 2)
    a = np.maximum(z, 2 / tau + 0.5 / np.sqrt(tau))[:, None]
    h = np.sqrt(84 / tau)[:, None] / nodes  # e^(-u^2 tau / 2) has fallen to e^-42
    u = (np.arange(nodes) + 0.5) * h
    s = s[:, None] + 1j * a * u - u**2 / 2
    w, b = np.sqrt(c - 2 * s), b[:, None]
    value = s * tau[:, None] + loggamma(b + w) + loggamma(b - w)
    top = value[:, 0].real
    total = np.sum((np.exp(value - top[:, None]) * (1j * a - u)).imag * h, 1)
    return np.log(2 / np.pi * total) + top - gammaln(m + 1) - gammaln(theta + m)


def _saddle(b: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """z with sum_{k >= m} 1 / (lambda_k + s) about tau, w = i z or, where z < 0, w = z."""
    first = np.maximum(b - 0.5, 0.25)  # the sum as an integral from here

    def total(y):
        size = np.abs(y) + 1e-12
        angle = np.where(y > 0, np.arctan(size), np.arctanh(np.minimum(size, 1 - 1e-15)))
        return 2 * angle / (size * first)

    low, high = np.full(tau.shape, -1.0), 1 + np.pi / (tau * first)
    for _ in range(50):
        middle = (low + high) / 2
        above = total(middle) > tau
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return first * (low + high) / 2
