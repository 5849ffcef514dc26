r"""log p(x) of a latent-variable model by importance sampling, in chunks of bounded memory.

With S draws from q and w_j = p(x, z_j) / q(z_j | x), log p(x) is estimated by the logarithm of
the mean weight: from below on average, as Jensen's inequality says. By the delta method its
standard error is that of the mean weight over the mean weight,

    error^2 = (S sum w^2 / (sum w)^2 - 1) / (S - 1).

The sums are kept relative to the largest weight so far, so nothing overflows, and only one chunk
of draws is in memory at a time.

Source: Burda et al. (2016), section 2; Owen (2013), Monte Carlo theory, chapter 9.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmjax.types import Array, Key


class Estimate(NamedTuple):
    """Of S draws an example."""

    log_mean: Array  # [B] nats, the estimate of log p(x)
    error: Array  # [B] nats, its standard error
    effective: Array  # [B], (sum w)^2 / sum w^2, between 1 and S
    parts: dict[str, Array]  # [B] each, plain means over the draws


Draw = Callable[[Key], tuple[Array, dict[str, Array]]]


class _Sums(NamedTuple):
    top: Array
    first: Array
    second: Array
    parts: dict[str, Array]


def estimate(draw: Draw, key: Key, samples: int, chunk: int) -> Estimate:
    """The mean weight of `samples` draws.

    Args:
        draw: key -> finite log-weights [chunk, B] of independent draws and further values
            {name: [chunk, B]}.
        key: a chunk takes one key split from it.
        samples: S, 2 or more; what the last chunk has over is not counted.
        chunk: draws a call.

    Returns:
        `Estimate`.
    """
    number = -(-samples // chunk)

    def body(sums: _Sums, inputs) -> tuple[_Sums, None]:
        i, k = inputs
        log_w, values = draw(k)
        counted = (i * chunk + jnp.arange(chunk) < samples)[:, None]
        top = jnp.maximum(sums.top, jnp.max(jnp.where(counted, log_w, -jnp.inf), 0))
        w = jnp.where(counted, jnp.exp(jnp.where(counted, log_w, top) - top), 0)
        old = jnp.exp(sums.top - top)
        total = lambda before, v: before + jnp.sum(jnp.where(counted, v, 0), 0)
        return _Sums(
            top,
            total(sums.first * old, w),
            total(sums.second * old**2, w**2),
            jax.tree.map(total, sums.parts, values),
        ), None

    keys = jax.random.split(key, number)
    log_w, values = jax.eval_shape(draw, keys[0])
    zero = jnp.zeros(log_w.shape[1:], log_w.dtype)
    parts = jax.tree.map(lambda v: jnp.zeros(v.shape[1:], v.dtype), values)
    start = _Sums(jnp.full_like(zero, jnp.finfo(zero.dtype).min), zero, zero, parts)
    sums, _ = jax.lax.scan(body, start, (jnp.arange(number), keys))
    effective = sums.first**2 / sums.second
    variance = (samples / effective - 1) / max(samples - 1, 1)
    return Estimate(
        sums.top + jnp.log(sums.first) - math.log(samples),
        jnp.sqrt(jnp.maximum(variance, 0)),
        effective,
        jax.tree.map(lambda v: v / samples, sums.parts),
    )
