"""The ratio of modified Bessel functions of the first kind, for any order and any argument.

With I = I_nu and k > 0 the two functions computed are

    a(k^2) = I_{nu+1}(k) / (k I_nu(k)),       log F(k) = log(Gamma(nu+1) (2/k)^nu I_nu(k)),

both smooth and finite at k = 0, where a = 1 / (2 (nu + 1)) and F = 1; F is the mean of
exp(k u_1) over u uniform on the unit sphere of R^{2 nu + 2}. The recurrence of Bessel functions is

    a_nu = 1 / (2 (nu + 1) + k^2 a_{nu+1}),     F_nu = F_{nu+1} (1 + k^2 a_{nu+1} / (2 (nu + 1))),

all terms positive, and an error of a_{nu+1} is damped by (I_{nu+1} / I_nu)^2 < 1. So we start at
an order mu that is large enough for an expansion in 1 / q, q = sqrt(mu^2 + k^2), and descend.

The expansion: u = k I_mu'(k) / I_mu(k) obeys k du/dk = q^2 - u^2, which is solved by
u = q + sum_n P_n(c) q^{-n} with c = k^2 / q^2, P_n polynomials that vanish at c = 0,

    -2 P_{n+1} = 2 c (1 - c) P_n' - n c P_n + sum_{i+j=n} P_i P_j,       -2 P_0 = c.

Since u - mu = k^2 a and q - mu = k^2 / (q + mu), every term of a is free of cancellation. The
integral of (u - mu) / k from 0 is log F: its terms are Q_n(c) q^{-n} - Q_n(0) mu^{-n} with
2 c (1 - c) Q_n' - n c Q_n = P_n for n > 0, and log(mu / q) / 2 for n = 0.

Source: the uniform expansion is Debye's (Olver, Asymptotics and Special Functions, chapter 10.7).
"""

from fractions import Fraction
from itertools import zip_longest

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.types import Array

_TERMS = 10
_LEAST = 24.0  # the order the expansion starts from, at which its error is below 1e-14


def scaled_ratio(order: float, square: Array) -> Array:
    """I_{order+1}(k) / (k I_order(k)) as a function of k^2.

    Args:
        order: nu >= -1/2.
        square: k^2 >= 0, [].

    Returns:
        [], in (0, 1 / (2 (order + 1))].
    """
    return _descend(order, square)[0]


def log_mean_exp(order: float, k: Array) -> Array:
    """log(Gamma(order+1) (2/k)^order I_order(k)) - k.

    Args:
        order: nu >= -1/2.
        k: >= 0, [].

    Returns:
        [], in (-k, 0].
    """
    square = k**2
    mu, q = _start(order, square)
    logs = _descend(order, square)[1]
    gap = square / (q + mu)  # q - mu
    # q - mu - mu log((q + mu) / 2 mu) - k, in which q - k has lost nothing.
    lead = mu**2 / (q + k) - mu - mu * jnp.log1p(gap / (2 * mu)) - 0.5 * jnp.log1p(gap / mu)
    at_zero = np.polyval(_INTEGRAL[::-1, 0], 1 / mu) / mu
    return logs + lead + (_expansion(_INTEGRAL, square / q**2, 1 / q) / q - at_zero)


def _descend(order, square):
    """a at `order`, and log F_order - log F_mu."""
    mu, q = _start(order, square)
    series = _expansion(_RATIO, square / q**2, 1 / q) / q**2
    doubles = 2 * jnp.arange(_steps(order), 0, -1, dtype=square.dtype) + 2 * order

    def body(state, double):
        a, logs = state
        return (1 / (double + square * a), logs + jnp.log1p(square * a / double)), None

    start = 1 / (q + mu) + series, jnp.zeros_like(square)
    return jax.lax.scan(body, start, doubles)[0]


def _steps(order):
    return max(0, int(np.ceil(_LEAST - order)))


def _start(order, square):
    mu = order + _steps(order)
    return mu, jnp.sqrt(mu**2 + square)


def _expansion(polys, c, w):
    """sum_n w^n sum_m polys[n, m] c^m, by Horner's rule in loops, which compile fast."""

    def along(rows, x):
        rows = jnp.asarray(rows, c.dtype)[::-1]
        start = jnp.zeros(rows.shape[1:], c.dtype)
        return jax.lax.scan(lambda total, row: (total * x + row, None), start, rows)[0]

    return along(along(polys.T, c), w)


# Polynomials in c are lists of fractions, the constant first.


def _add(*polys):
    return [sum(column, Fraction()) for column in zip_longest(*polys, fillvalue=Fraction())]


def _times(p, q):
    out = [Fraction()] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            out[i + j] += a * b
    return out


def _series(terms):
    """P_0 .. P_{terms-1}."""
    out = [[Fraction(), Fraction(-1, 2)]]
    for n in range(terms - 1):
        p = out[n]
        slope = [k * a for k, a in enumerate(p)][1:]
        parts = [
            _times([Fraction(), Fraction(2), Fraction(-2)], slope),
            _times([Fraction(), Fraction(-n)], p),
            *(_times(out[i], out[n - i]) for i in range(n + 1)),
        ]
        out.append([-a / 2 for a in _add(*parts)])
    return out


def _integral(n, p):
    """Q_n: (n + 2 m) Q[m] = 2 (m + 1) Q[m + 1] - P[m + 1], from the top down."""
    q = [Fraction()] * (len(p))
    for m in reversed(range(len(p) - 1)):
        q[m] = (2 * (m + 1) * q[m + 1] - p[m + 1]) / (n + 2 * m)
    return q


def _table(polys):
    """[n, m] coefficients, in float64."""
    return np.array([[float(a) for a in column] for column in zip_longest(*polys, fillvalue=0)]).T


_SERIES = _series(_TERMS)
_RATIO = _table([p[1:] for p in _SERIES])
_INTEGRAL = _table([_integral(n, p) for n, p in enumerate(_SERIES) if n])
