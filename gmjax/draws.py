r"""Exact draws that cost one uniform number a site.

A Gumbel-max draw spends K random numbers and K logarithms per site; the inverse distribution
function spends one random number and reads the weights once. With v = u * sum(w), the draw is
the first entry whose partial sum exceeds v. The sums are taken in two levels of about sqrt(K)
entries: over blocks, and within the block that v falls in.

No comparison of rounded sums decides what is possible: a block or an entry is chosen among those
of positive weight, and the heaviest where rounding leaves none. So an entry of weight zero is never
drawn, however the compiler fuses the products. Compiled programs read a number below the least
normal one as zero, so such a weight counts as the least normal one. Prefix sums are taken as trees,
whose rounding grows as log K, so that many small weights beside a large one keep their sum.

An event of probability p is u < p, and u / p is then a uniform number for the choice that follows.
Numbers u that are multiples of 2^-23 leave p 2^23 values of it; those of `uniform`, p 2^32.

A Poisson number of rate r is the smallest n with u < P(N <= n). Below `MANY` the probabilities are
added, p_{n+1} = p_n r / (n + 1); above it n is the floor of Cornish and Fisher's expansion of the
quantile with w the normal quantile of u,

    r + r^(1/2) w + (w^2 + 2) / 6 - (w^3 + 2 w) / (72 r^(1/2)) + (3 w^4 + 7 w^2 - 16) / (810 r),

Either way the distribution function is right to 1e-6, of which u itself leaves 1e-7.
Source: Giles (2016), Algorithm 955, for the expansion.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.types import Array, Key

MANY = 64.0  # rate of a Poisson number from which on its quantile is expanded
_FINEST = 2.0**-24  # spacing of float32 below 1
_LARGEST = 2.0**31 - 128  # the largest float32 that is an int32


def uniform(key: Key, shape: tuple[int, ...] = ()) -> Array:
    """Uniform numbers in [0, 1) of 32 random bits, at the cost of the 23 of `jax.random.uniform`.

    Args:
        key: a PRNG key.
        shape: of the numbers.

    Returns:
        [*shape], in float32 multiples of 2^-32 rounded to 24 digits and at most 1 - 2^-24, whose
        first bits are those of `jax.random.uniform`; in float64 the latter.
    """
    if jnp.zeros(()).dtype != jnp.float32:
        return jax.random.uniform(key, shape)
    bits = jax.random.bits(key, shape, jnp.uint32)
    return jnp.minimum(bits.astype(jnp.float32) * 2.0**-32, 1 - _FINEST)


def chooser(weights: Array) -> Callable[[Array], Array]:
    """Prepare inverse-CDF draws with probability weights / sum(weights).

    Args:
        weights: [..., K] finite and non-negative, not necessarily normalised, with a finite sum.

    Returns:
        u [...] in [0, 1) -> [...] int32 in 0 .. K-1, an entry of positive weight; 0 where all
        weights are zero. Each call is one independent draw at the cost of about sqrt(K)
        operations. Probabilities are right to the spacing of u, 2^-23 in float32.
    """
    weights = jnp.asarray(weights)
    weights = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    k = weights.shape[-1]
    width = max(1, round(k**0.5))
    blocks = -(-k // width)
    rest = blocks * width - k
    table = jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, rest)]) if rest else weights
    table = table.reshape(*weights.shape[:-1], blocks, width)
    # Whole blocks of the weights themselves: tests for padding would slow the sum down.
    whole = k // width
    sums = _normal(weights[..., : whole * width]).reshape(*weights.shape[:-1], whole, width).sum(-1)
    if rest:
        last = jnp.sum(_normal(weights[..., whole * width :]), -1, keepdims=True)
        sums = jnp.concatenate([sums, last], -1)
    upto = _prefix(sums)

    def choose(u: Array) -> Array:
        v = u * upto[..., -1]
        block = _first(upto > v[..., None], sums)
        before = jnp.take_along_axis(upto, jnp.maximum(block - 1, 0)[..., None], -1)[..., 0]
        v = v - jnp.where(block > 0, before, 0)
        inside = _normal(jnp.take_along_axis(table, block[..., None, None], -2)[..., 0, :])
        return block * width + _first(_prefix(inside) > v[..., None], inside)

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


def _normal(weights: Array) -> Array:
    """Positive weights at least the least normal number; their bits tell them from zero."""
    least = np.array(jnp.finfo(weights.dtype).tiny)
    positive = jax.lax.bitcast_convert_type(weights, np.dtype(f"int{8 * least.itemsize}")) > 0
    return jnp.where(positive, jnp.maximum(weights, least), 0)


def _prefix(x: Array) -> Array:
    """Sums of the first 1 .. n entries, each a tree of depth log2 n: [..., n]."""
    reach = 1
    while reach < x.shape[-1]:
        x = x + jnp.pad(x[..., :-reach], [(0, 0)] * (x.ndim - 1) + [(reach, 0)])
        reach *= 2
    return x


def _first(past: Array, weights: Array) -> Array:
    """The first entry of positive weight that is past, else the heaviest one: [...] int32."""
    n = weights.shape[-1]
    place = jnp.arange(n, dtype=jnp.int32)
    heaviest = weights == jnp.max(weights, -1, keepdims=True)
    rank = jnp.where(past & (weights > 0), place, jnp.where(heaviest, n + place, 2 * n))
    return jnp.min(rank, -1) % n


def poisson(u: Array, rate: Array) -> Array:
    """Inverse-CDF draw of a Poisson number: the smallest n with u < P(N <= n).

    Args:
        u: [...] uniform numbers in [0, 1).
        rate: [...] non-negative means.

    Returns:
        [...] int32 counts, at most 2^31 - 128.
    """
    u, rate = jnp.broadcast_arrays(u, rate)
    few = rate < MANY
    return jnp.where(few, _few(u, jnp.where(few, rate, 0)), _many(u, rate))


def _few(u: Array, rate: Array) -> Array:
    def above(n, p, cdf):  # is the count larger than n? Past the spacing of u it is not.
        return (u >= cdf) & ((n < rate) | (p > _FINEST))

    def body(state):
        n, p, cdf, count = state
        up = above(n, p, cdf)
        p = p * rate / (n + 1)
        return n + 1, p, cdf + p, count + up

    none = jnp.exp(-rate)
    start = (jnp.zeros((), rate.dtype), none, none, jnp.zeros(rate.shape, jnp.int32))
    return jax.lax.while_loop(lambda s: jnp.any(above(*s[:3])), body, start)[-1]


def _many(u: Array, rate: Array) -> Array:
    r = jnp.maximum(rate, MANY)
    w = jax.scipy.special.ndtri(jnp.clip(u, _FINEST, 1 - _FINEST))
    whole = jnp.floor(r)  # apart, because r and the rest differ in size
    rest = (r - whole) + jnp.sqrt(r) * w + (w**2 + 2) / 6 - (w**3 + 2 * w) / (72 * jnp.sqrt(r))
    rest = rest + (3 * w**4 + 7 * w**2 - 16) / (810 * r)
    return jnp.clip(whole + jnp.floor(rest), 0, _LARGEST).astype(jnp.int32)
