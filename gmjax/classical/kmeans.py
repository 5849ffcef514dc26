"""k-means: seeds by k-means++, then Lloyd's iteration.

k-means++ draws each further centre with a probability proportional to the squared distance to
the nearest so far (Arthur and Vassilvitskii, SODA 2007). Lloyd's iteration moves each centre to
the mean of what is nearest to it; a centre with nothing moves to the point farthest from its own.
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
    scores = jnp.sum(centres**2, 1) - 2 * x @ centres.T
    label = jnp.argmin(scores, 1).astype(jnp.int32)
    return label, jnp.sum((x - centres[label]) ** 2, 1)


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
        tolerance: ends when one lowers the inertia by a smaller share.
        initial: [K, D] centres in place of k-means++.
    """
    rank(components, len(x), "components")
    centres = seeds(key, x, components) if initial is None else initial
    largest = jnp.asarray(jnp.inf, x.dtype)

    def body(carry):
        centres, _, last, i = carry
        centres, inertia = lloyd(centres, x)
        return centres, last, inertia, i + 1

    def going(carry):
        _, before, last, i = carry
        return (i < iterations) & ~(before - last <= tolerance * last)

    start = (centres, largest, largest, jnp.int32(0))
    centres, *_, i = lax.while_loop(going, body, start)
    return Fit(centres, assign(centres, x)[1].mean(), i)


def lloyd(centres: Array, x: Array) -> tuple[Array, Array]:
    """One iteration: (centres [K, D], the inertia [] of the old ones)."""
    k, middle = len(centres), centres.mean(0)

    def block(rows, fresh):
        rows = rows - middle
        label, distance = _nearest(centres - middle, rows)
        hard = jax.nn.one_hot(label, k, dtype=x.dtype) * fresh[:, None]
        return (hard.sum(0), hard.T @ rows), distance

    (counts, sums), distance = sweep(block, x)
    moved = middle + sums / jnp.maximum(counts, 1)[:, None]
    empty = counts == 0
    far = x[lax.top_k(distance, k)[1]]
    moved = jnp.where(empty[:, None], far[jnp.cumsum(empty) - 1], moved)
    return moved, distance.mean()
