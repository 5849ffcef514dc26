"""Sums over many examples, a block of rows at a time, and first and second moments by them.

The scatter of n examples is taken about a mean that need not be exact,

    S = sum (x - c)(x - c)^T,  s = sum (x - c),  mean = c + s / n,  scatter = S - s s^T / n,

so one more pass corrects what rounding left in c, and no centred copy of the data is made. Two
sets join exactly (Chan, Golub and LeVeque, Am. Stat. 37, 1983):

    scatter = S_1 + S_2 + n_1 n_2 / (n_1 + n_2) (m_1 - m_2)(m_1 - m_2)^T.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmjax.types import Array, UserError

ENTRIES = 800_000  # of a block: 3.2 MB of float32, which the cores' caches hold
PANEL = 112  # columns


class Moments(NamedTuple):
    """Of a set of examples in R^D."""

    number: Array  # [], of examples
    mean: Array  # [D]
    scatter: Array  # [D, D], sum of (x - mean)(x - mean)^T


def sweep(f: Callable[[Array, Array], tuple[Any, Any]], x: Array) -> tuple[Any, Any]:
    """One pass over the rows of x in blocks.

    Args:
        f: (rows [B, D], fresh [B] 0 or 1) -> (sums, values): arrays to be added up, in which
            rows that are not fresh must not count (the last block repeats some), and arrays
            [B, ...] of one entry a row.
        x: [N, D].

    Returns:
        The sums, and the values [N, ...].
    """
    n, d = x.shape
    size = min(n, max(64, ENTRIES // d))
    if size == n:
        return f(x, jnp.ones(n, x.dtype))
    sums, rows = jax.eval_shape(f, x[:size], x[:size, 0])
    start = (
        jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), sums),
        jax.tree.map(lambda s: jnp.zeros((n, *s.shape[1:]), s.dtype), rows),
    )

    def body(i, carry):
        first = jnp.minimum(i * size, n - size)
        fresh = (first + jnp.arange(size) >= i * size).astype(x.dtype)
        add, put = f(lax.dynamic_slice_in_dim(x, first, size), fresh)
        write = lambda a, b: lax.dynamic_update_slice_in_dim(a, b, first, 0)
        return jax.tree.map(jnp.add, carry[0], add), jax.tree.map(write, carry[1], put)

    return lax.fori_loop(0, -(-n // size), body, start)


def gram(x: Array) -> Array:
    """x^T x of x [N, D]: [D, D]; only the tiles on and above the diagonal are computed."""
    starts = range(0, x.shape[1], PANEL)
    if len(starts) == 1:
        return x.T @ x
    columns = [x[:, i : i + PANEL] for i in starts]
    tiles: dict[tuple[int, int], Array] = {}
    for i, left in enumerate(columns):
        for j in range(i, len(columns)):
            tiles[i, j] = left.T @ columns[j]
            tiles[j, i] = tiles[i, j].T
    index = range(len(columns))
    return jnp.concatenate([jnp.concatenate([tiles[i, j] for j in index], 1) for i in index])


def moments(x: Array) -> Moments:
    """The moments of x [N, D], in x's dtype."""
    rough = x.mean(0)

    def block(rows, fresh):
        centred = (rows - rough) * fresh[:, None]
        return (gram(centred), centred.sum(0)), None

    (scatter, total), _ = sweep(block, x)
    n = len(x)
    return Moments(
        jnp.asarray(n, x.dtype), rough + total / n, scatter - jnp.outer(total, total) / n
    )


def empty(d: int, dtype: Any = jnp.float32) -> Moments:
    """Of no examples."""
    return Moments(jnp.zeros((), dtype), jnp.zeros(d, dtype), jnp.zeros((d, d), dtype))


def merge(a: Moments, b: Moments) -> Moments:
    """Of both sets together; either may be empty."""
    number = a.number + b.number
    share = b.number / jnp.maximum(number, 1e-30)
    step = b.mean - a.mean
    return Moments(
        number,
        a.mean + share * step,
        a.scatter + b.scatter + a.number * share * jnp.outer(step, step),
    )


def covariance(m: Moments, ddof: int = 0) -> Array:
    """scatter / (number - ddof): [D, D]. ddof = 0 is the maximum of the likelihood."""
    return m.scatter / jnp.maximum(m.number - ddof, 1.0)


def rank(components: int, largest: int, key: str) -> int:
    """`components`, which must lie in 1 .. largest.

    Raises:
        UserError: it does not.
    """
    if not 1 <= components <= largest:
        raise UserError(f"{key}={components} must lie in 1 .. {largest}")
    return components
