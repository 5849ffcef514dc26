"""Exact draws that cost one uniform number a site.

A Gumbel-max draw spends K random numbers and K logarithms per site; the inverse
distribution function spends one random number and reads the weights once. With
v = u * sum(w), the draw is the number of partial sums that are at most v. The sums are
taken in two levels of about sqrt(K) entries, each a small matrix product, because a full
cumulative sum is the slowest way to read an array.

A Poisson number needs one uniform number too: the count of partial sums of its
probabilities below u, accumulated in the log domain so that no rate underflows.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.types import Array

_EXACT = jax.lax.Precision.HIGHEST  # sums of probabilities must not drop to TF32 on a GPU


def chooser(weights: Array) -> Callable[[Array], Array]:
    """Prepare inverse-CDF draws with probability weights / sum(weights).

    Args:
        weights: [..., K] non-negative, not necessarily normalised.

    Returns:
        u [...] in [0, 1) -> [...] int32 in 0 .. K-1; an arbitrary index where all weights
        are zero. Each call is one independent draw at the cost of about sqrt(K) operations.
    """
    k = weights.shape[-1]
    width = max(1, round(k**0.5))
    blocks = -(-k // width)
    upto = np.arange(k)[:, None] // width <= np.arange(blocks)
    sums = jnp.dot(weights, jnp.asarray(upto, weights.dtype), precision=_EXACT)
    padded = jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, blocks * width - k)])
    padded = padded.reshape(*weights.shape[:-1], blocks, width)
    within = jnp.asarray(np.triu(np.ones((width, width))), weights.dtype)

    def choose(u: Array) -> Array:
        v = u * sums[..., -1]
        block = jnp.minimum(jnp.sum(sums <= v[..., None], -1), blocks - 1)
        before = jnp.take_along_axis(sums, jnp.maximum(block - 1, 0)[..., None], -1)[..., 0]
        v = v - jnp.where(block > 0, before, 0)
        inside = jnp.take_along_axis(padded, block[..., None, None], -2)[..., 0, :]
        partial = jnp.dot(inside, within, precision=_EXACT)
        # Rounding may leave v at or past the block's sum: then its last possible entry.
        v = jnp.minimum(v, jnp.nextafter(partial[..., -1], jnp.zeros_like(v)))
        offset = jnp.minimum(jnp.sum(partial <= v[..., None], -1), width - 1)
        return (block * width + offset).astype(jnp.int32)

    return choose


def categorical(u: Array, weights: Array) -> Array:
    """One inverse-CDF draw; see `chooser`.

    Args:
        u: [...] uniform numbers in [0, 1).
        weights: [..., K] non-negative, not necessarily normalised.

    Returns:
        [...] int32 in 0 .. K-1.
    """
    return chooser(weights)(u)


def poisson(u: Array, rate: Array) -> Array:
    """Inverse-CDF draw of a Poisson number: the smallest n with u < P(N <= n).

    Args:
        u: [...] uniform numbers in [0, 1).
        rate: [...] non-negative means.

    Returns:
        [...] int32 counts.
    """
    # Past this many terms the remaining mass is below the resolution of u.
    last = rate + 12 * jnp.sqrt(rate) + 16
    log_rate = jnp.log(jnp.maximum(rate, 1e-37))

    def above(state):  # sites whose count is larger than n
        n, _, cdf, _ = state
        return (u >= cdf) & (n < last)

    def body(state):
        n, log_p, cdf, count = state
        log_p_next = log_p + log_rate - jnp.log(n + 1)
        return n + 1, log_p_next, cdf + jnp.exp(log_p_next), count + above(state)

    start = (jnp.zeros((), rate.dtype), -rate, jnp.exp(-rate), jnp.zeros(rate.shape, jnp.int32))
    return jax.lax.while_loop(lambda state: jnp.any(above(state)), body, start)[-1]
