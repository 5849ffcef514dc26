"""Four families of covariances of a mixture: full, tied, diagonal, spherical.

A family is what a mixture does with second moments, K matrices S_k or what is kept of them:

    full       S_k                         [K, D, D]
    tied       sum_k N_k S_k / N           [D, D]
    diagonal   the diagonals               [K, D]
    spherical  the means of the diagonals  [K]

Diagonal squares are matrix products, x^2 P - 2 x (m P) + m^2 P, unless a variance is so small
beside the spread of the data that these would cancel too many digits; then, and for spherical
covariances, they are sums of (x - m_k)^2 themselves.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmjax.classical.moments import gram
from gmjax.types import Array

CANCEL = 1e-4  # relative rounding of a variance by expanded squares that is still allowed


class Family(NamedTuple):
    """How covariances of one shape are used; c: covariances or sums of them, w, r: weights."""

    prepare: Callable[..., Any]  # (c, m [K, D]) -> factors
    half_logdet: Callable[..., Array]  # (factors, D) -> [K] or [], log|S_k| / 2
    trace: Callable[..., Array]  # (factors, D) -> [K] or [], tr S_k^{-1}
    square: Callable[..., Array]  # (factors, m [K, D], x [B, D]) -> [B, K], (x-m)^T S^{-1} (x-m)
    # (factors or None, r [B, K], x [B, D], m [K, D]) -> sum_n r_nk (x-m_k)(x-m_k)^T
    second: Callable[..., Array]
    outer: Callable[..., Array]  # (w [K], d [K, D]) -> w_k d_k d_k^T, a sum like `second`
    normalise: Callable[..., Array]  # (sums, w [K]) -> c
    sums: Callable[..., Array]  # (c, w [K]) -> sums: the inverse
    add: Callable[..., Array]  # (c, v []) -> c with v added to every variance
    pool: Callable[..., Array]  # (c, w [K], empty [K]) -> c, the mean of the others where empty
    colour: Callable[..., Array]  # (c, k [n], e [n, D] standard normal) -> e with covariance S_k
    size: Callable[[int, int], int]  # (K, D) -> free parameters


class Factors(NamedTuple):
    """S^{-1} = A^T A with A lower triangular."""

    inverse: Array  # [..., D, D], A
    half_logdet: Array  # [...]


def cholesky(c: Array) -> Array:
    """The lower factor of c [D, D], of c + e I with the least tried e where c has none."""
    d = len(c)
    scale = jnp.finfo(c.dtype).eps * jnp.maximum(jnp.trace(c) / d, jnp.finfo(c.dtype).tiny * 1e9)
    factor = lambda e: jnp.linalg.cholesky(c + e * jnp.eye(d, dtype=c.dtype))
    bad = lambda carry: ~jnp.all(jnp.isfinite(carry[0])) & (carry[1] < 1e6 * scale)

    def wider(carry):
        e = jnp.maximum(10 * carry[1], scale)
        return factor(e), e

    return lax.while_loop(bad, wider, (factor(jnp.zeros((), c.dtype)), jnp.zeros((), c.dtype)))[0]


def _factor(c: Array) -> Factors:
    lower = cholesky(c)
    inverse = jax.scipy.linalg.solve_triangular(lower, jnp.eye(len(c), dtype=c.dtype), lower=True)
    return Factors(inverse, jnp.log(jnp.diagonal(lower)).sum())


def _per_component(f: Callable, *args: Array) -> Array:
    """f of the k-th of each array, one k after the other, so that one k's temporaries exist."""
    return lax.map(lambda each: f(*each), args)


def _mean_where_empty(c: Array, w: Array, empty: Array) -> Array:
    shape = (-1,) + (1,) * (c.ndim - 1)
    w = jnp.where(empty, 0.0, w)
    mean = jnp.sum(w.reshape(shape) * c, 0) / jnp.maximum(w.sum(), 1.0)
    return jnp.where(empty.reshape(shape), mean, c)


def _diagonal_add(c: Array, v) -> Array:
    return c + v * jnp.eye(c.shape[-1], dtype=c.dtype)


def _full_square(f: Factors, m: Array, x: Array) -> Array:
    one = lambda a, m: jnp.sum(((x - m) @ a.T) ** 2, 1)
    return _per_component(one, f.inverse, m).T


def _full_second(f: Factors | None, r: Array, x: Array, m: Array) -> Array:
    return _per_component(lambda r, m: gram(jnp.sqrt(r)[:, None] * (x - m)), r.T, m)


def _tied_square(f: Factors, m: Array, x: Array) -> Array:
    middle = m.mean(0)
    y, centre = (x - middle) @ f.inverse.T, (m - middle) @ f.inverse.T
    return _per_component(lambda c: jnp.sum((y - c) ** 2, 1), centre).T


def _tied_second(f: Factors | None, r: Array, x: Array, m: Array) -> Array:
    """sum_nk r_nk (x_n - m_k)(x_n - m_k)^T, with e_n = sum_k r_nk m_k, as

        sum_n (x_n - e_n)(x_n - e_n)^T + sum_{k<l} (r^T r)_kl (m_k - m_l)(m_k - m_l)^T:

    nothing is subtracted that is large beside the result.
    """
    middle = m.mean(0)
    m = m - middle
    overlap = (r.T @ r) * (1 - jnp.eye(len(m), dtype=m.dtype))
    laplacian = jnp.diag(overlap.sum(1)) - overlap
    return gram(r.sum(1)[:, None] * (x - middle) - r @ m) + m.T @ laplacian @ m


class Precisions(NamedTuple):
    """Inverse variances [K, D], and whether expanded squares keep enough digits."""

    values: Array
    plain: Array  # [] bool


def _precisions(c: Array, m: Array) -> Precisions:
    values = _inverse(c)
    spread = jnp.mean(c, 0) + jnp.var(m, 0)
    return Precisions(values, jnp.max(spread * values) * jnp.finfo(c.dtype).eps < CANCEL)


def _inverse(c: Array) -> Array:
    return 1 / jnp.maximum(c, 1e-30)


def _diagonal_square(f: Precisions, m: Array, x: Array) -> Array:
    def expanded():
        middle = m.mean(0)
        u, e = x - middle, m - middle
        scaled = e * f.values
        return jnp.maximum(u**2 @ f.values.T - 2 * u @ scaled.T + jnp.sum(e * scaled, 1), 0.0)

    def direct():
        return _per_component(lambda p, m: (x - m) ** 2 @ p, f.values, m).T

    return lax.cond(f.plain, expanded, direct)


def _diagonal_second(f: Precisions | None, r: Array, x: Array, m: Array) -> Array:
    def expanded():
        middle = m.mean(0)
        u, e = x - middle, m - middle
        return jnp.maximum(r.T @ u**2 - 2 * e * (r.T @ u) + r.sum(0)[:, None] * e**2, 0.0)

    def direct():
        return _per_component(lambda r, m: r @ (x - m) ** 2, r.T, m)

    return direct() if f is None else lax.cond(f.plain, expanded, direct)


def _distance(m: Array, x: Array) -> Array:
    ones = jnp.ones(x.shape[1], x.dtype)
    return _per_component(lambda m: (x - m) ** 2 @ ones, m).T


FULL = Family(
    prepare=lambda c, m: lax.map(_factor, c),
    half_logdet=lambda f, d: f.half_logdet,
    trace=lambda f, d: jnp.sum(f.inverse**2, (1, 2)),
    square=_full_square,
    second=_full_second,
    outer=lambda w, d: jnp.einsum("k,ki,kj->kij", w, d, d),
    normalise=lambda s, w: s / w[:, None, None],
    sums=lambda c, w: c * w[:, None, None],
    add=_diagonal_add,
    pool=_mean_where_empty,
    colour=lambda c, k, e: _colour_each(lax.map(cholesky, c), k, e),
    size=lambda k, d: k * d * (d + 1) // 2,
)


def _colour_each(lower: Array, label: Array, e: Array) -> Array:
    """e_n by its own component's factor, one component after the other."""

    def body(out, inputs):
        factor, k = inputs
        return jnp.where((label == k)[:, None], e @ factor.T, out), None

    return lax.scan(body, e, (lower, jnp.arange(len(lower))))[0]


TIED = Family(
    prepare=lambda c, m: _factor(c),
    half_logdet=lambda f, d: f.half_logdet,
    trace=lambda f, d: jnp.sum(f.inverse**2),
    square=_tied_square,
    second=_tied_second,
    outer=lambda w, d: (d.T * w) @ d,
    normalise=lambda s, w: s / w.sum(),
    sums=lambda c, w: c * w.sum(),
    add=_diagonal_add,
    pool=lambda c, w, empty: c,
    colour=lambda c, k, e: e @ cholesky(c).T,
    size=lambda k, d: d * (d + 1) // 2,
)
DIAGONAL = Family(
    prepare=_precisions,
    half_logdet=lambda f, d: -0.5 * jnp.log(f.values).sum(1),
    trace=lambda f, d: f.values.sum(1),
    square=_diagonal_square,
    second=_diagonal_second,
    outer=lambda w, d: w[:, None] * d**2,
    normalise=lambda s, w: s / w[:, None],
    sums=lambda c, w: c * w[:, None],
    add=lambda c, v: c + v,
    pool=_mean_where_empty,
    colour=lambda c, k, e: jnp.sqrt(c)[k] * e,
    size=lambda k, d: k * d,
)
SPHERICAL = Family(
    prepare=lambda c, m: _inverse(c),
    half_logdet=lambda p, d: -0.5 * d * jnp.log(p),
    trace=lambda p, d: d * p,
    square=lambda p, m, x: _distance(m, x) * p,
    second=lambda f, r, x, m: jnp.sum(r * _distance(m, x), 0) / x.shape[1],
    outer=lambda w, d: w * jnp.mean(d**2, 1),
    normalise=lambda s, w: s / w,
    sums=lambda c, w: c * w,
    add=lambda c, v: c + v,
    pool=_mean_where_empty,
    colour=lambda c, k, e: jnp.sqrt(c)[k][:, None] * e,
    size=lambda k, d: k,
)
FAMILIES: dict[str, Family] = {
    "full": FULL,
    "tied": TIED,
    "diagonal": DIAGONAL,
    "spherical": SPHERICAL,
}
