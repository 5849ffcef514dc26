"""k-means: seeds by k-means++, then Lloyd's iteration.

k-means++ draws each further centre with a probability proportional to the squared distance to
the nearest so far (Arthur and Vassilvitskii, SODA 2007). Lloyd's iteration moves each centre to
the mean of what is nearest to it; a centre with nothing moves to the point farthest from its own.

The move of n_k points' centre from c_k to their mean lowers the mean squared distance by

    fall = sum_k n_k |c_k' - c_k|^2 / N,

which needs no distances. What is left is E min_k (|c_k|^2 - 2 c_k x) + E |x|^2, of which the second
is the same for all centres. So an iteration reads the data for one product with the centres and
one sum a centre, and no more.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmjax.classical.moments import rank, sweep
from gmjax.types import Array, Key


class Fit(NamedTuple):
    """What k-means found."""

    centres: Array  # [K, D]
    inertia: Array  # [], mean squared distance to the nearest centre
    iterations: Array  # [] int32


@jax.jit
def assign(centres: Array, x: Array) -> tuple[Array, Array]:
    """The nearest of centres [K, D] to every x [N, D]: (labels [N] int32, distances^2 [N])."""
    middle = centres.mean(0)
    near = centres - middle

    def block(rows, fresh):
        return None, _nearest(near, rows - middle)

    return sweep(block, x)[1]


def _nearest(centres: Array, x: Array) -> tuple[Array, Array]:
    label = _scores(centres, x)[1]
    return label, jnp.sum((x - centres[label]) ** 2, 1)


def _scores(centres: Array, x: Array) -> tuple[Array, Array]:
    """min_k |x - c_k|^2 - |x|^2, and which k."""
    scores = jnp.sum(centres**2, 1) - 2 * x @ centres.T
    return scores.min(1), jnp.argmin(scores, 1).astype(jnp.int32)


@partial(jax.jit, static_argnames=("components",))
def seeds(key: Key, x: Array, components: int) -> Array:
    """k-means++ centres.

    Args:
        key: of the draws.
        x: [N, D].
        components: K, in 1 .. N.

    Returns:
        [K, D], rows of x, distinct as long as x has as many distinct rows.
    """
    k = rank(components, len(x), "components")
    first, *rest = jax.random.split(key, k)
    centre = x[jax.random.randint(first, (), 0, len(x))]

    def further(near, key):
        # Points at distance 0 are chosen only when there is no other.
        at = jax.random.categorical(key, jnp.log(jnp.maximum(near, jnp.finfo(x.dtype).tiny)))
        return jnp.minimum(near, _distance(x, x[at])), x[at]

    if k == 1:
        return centre[None]
    _, others = lax.scan(further, _distance(x, centre), jnp.stack(rest))
    return jnp.concatenate([centre[None], others])


def _distance(x: Array, centre: Array) -> Array:
    return sweep(lambda rows, fresh: (None, jnp.sum((rows - centre) ** 2, 1)), x)[1]


@partial(jax.jit, static_argnames=("components",))
def fit(
    key: Key,
    x: Array,
    components: int,
    iterations: int = 100,
    tolerance: float = 1e-4,
    initial: Array | None = None,
) -> Fit:
    """k-means of x.

    Args:
        key: of the seeds.
        x: [N, D] floats.
        components: K, in 1 .. N.
        iterations: at most so many of Lloyd's; 0 leaves the seeds.
        tolerance: ends when the move of the centres lowers the inertia by no more than this share.
        initial: [K, D] centres in place of k-means++.
    """
    rank(components, len(x), "components")
    centres = seeds(key, x, components) if initial is None else initial
    mean = x.mean(0)
    spread = _distance(x, mean).mean()
    least = jnp.finfo(x.dtype).eps * spread  # what rounding leaves of the inertia

    def body(carry):
        centres, _, i = carry
        moved, fall, score = lloyd(centres, x)
        inertia = score + spread + jnp.sum((mean - centres.mean(0)) ** 2)
        return moved, fall <= tolerance * jnp.maximum(inertia, least), i + 1

    going = lambda carry: (carry[2] < iterations) & ~carry[1]
    centres, _, i = lax.while_loop(going, body, (centres, jnp.asarray(False), jnp.int32(0)))
    return Fit(centres, assign(centres, x)[1].mean(), i)


def lloyd(centres: Array, x: Array) -> tuple[Array, Array, Array]:
    """One iteration: (centres [K, D], fall [], score []).

    The fall is infinite where a centre was empty; the score is the old centres' inertia less
    E |x - m|^2, m their mean.
    """
    k, middle = len(centres), centres.mean(0)
    near = centres - middle

    def block(rows, fresh):
        rows = rows - middle
        score, label = _scores(near, rows)
        hard = jax.nn.one_hot(label, k, dtype=x.dtype) * fresh[:, None]
        return (hard.sum(0), hard.T @ rows, jnp.sum(score * fresh)), None

    (counts, sums, score), _ = sweep(block, x)
    step = sums / jnp.maximum(counts, 1)[:, None]
    empty = counts == 0

    def reseed():
        far = x[lax.top_k(assign(centres, x)[1], k)[1]]
        return jnp.where(empty[:, None], far[jnp.cumsum(empty) - 1], middle + step)

    moved = lax.cond(empty.any(), reseed, lambda: middle + step)
    fall = jnp.sum(counts * jnp.sum((step - near) ** 2, 1)) / len(x)
    return moved, jnp.where(empty.any(), jnp.inf, fall), score / len(x)
