"""How far the codes of an encoder are from the prior, in nats.

With the aggregated posterior q(z) = E_x q(z|x), the term by which a variational bound charges for
its codes has two parts (Hoffman and Johnson, ELBO surgery, 2016),

    E_x KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z)),
    E log q(z|x)/p(z)      = E log q(z|x)/q(z) + E log q(z)/p(z),

information that the codes carry, and a mismatch that samples decoded from the prior suffer from.
All three are means over the same draws z ~ q(z|x), so the identity holds to rounding. The
aggregate of a data set is the mixture

    log q(z) = logsumexp_n log q(z|x_n) - log N,

which is exact when q(z) means that of the data set, and then I <= log N. As an estimate for the
law that the data came from it leans to large q(z), hence to small information and large
mismatch, because z's own x_n is in the sum; `own=False` leaves it out, which leans the other way.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gmjax.metrics.bits import mean_and_error
from gmjax.types import Array, Key, UserError

BLOCK = 512  # codes at a time, on both sides


class Split(NamedTuple):
    """Nats, each (mean, standard error over the examples)."""

    kl: tuple[float, float]  # E_x KL(q(z|x) || p)
    information: tuple[float, float]  # I(x; z)
    mismatch: tuple[float, float]  # KL(q(z) || p)


def log_gaussian(z: Array, mean: Array, log_std: Array) -> Array:
    """log N(z; mean, diag exp(2 log_std)) over the last axis, nats."""
    unit = (z - mean) * jnp.exp(-log_std)
    return -0.5 * jnp.sum(unit**2 + math.log(2 * math.pi), -1) - jnp.sum(log_std, -1)


@partial(jax.jit, static_argnames=("own",))
def log_aggregate(
    z: Array, mean: Array, log_std: Array, index: Array | None = None, own: bool = True
) -> Array:
    """log q(z) of the mixture of Gaussian posteriors, in blocks: no array [M, N].

    Args:
        z: [M, q] codes.
        mean, log_std: [N, q], of the posteriors.
        index: [M] int32, the posterior that each code was drawn from; for `own=False`.
        own: does that posterior count? If not, the mixture is of the N - 1 others.

    Returns:
        [M] nats.
    """
    m, n = len(z), len(mean)
    index = jnp.full(m, -1) if own or index is None else index
    width = min(BLOCK, n)
    blocks = -(-n // width)
    fill = lambda a, value: jnp.pad(a, ((0, blocks * width - n), (0, 0)), constant_values=value)
    means, scales = (fill(a, 0.0).reshape(blocks, width, -1) for a in (mean, log_std))
    places = jnp.arange(blocks * width).reshape(blocks, width)

    def rows(inputs):
        codes, at = inputs

        def add(total, block):
            mean, log_std, place = block
            # Differences before squares: narrow posteriors lose no digits.
            zero = jnp.zeros((len(codes), width), codes.dtype)
            columns = (codes.T[:, :, None], mean.T[:, None], log_std.T[:, None])
            square = lax.scan(lambda d, c: (d + _square(*c), None), zero, columns)[0]
            out = (place >= n) | (place == at[:, None])
            square = jnp.where(out, -jnp.inf, square)
            return jnp.logaddexp(total, jax.nn.logsumexp(square, 1)), None

        start = jnp.full(len(codes), -jnp.inf, codes.dtype)
        return lax.scan(add, start, (means, scales, places))[0]

    count = -(-m // BLOCK)
    size = -(-m // count)
    over = count * size - m
    codes = jnp.pad(z, ((0, over), (0, 0))).reshape(count, size, -1)
    at = jnp.pad(index, (0, over), constant_values=-1).reshape(count, size)
    found = lax.map(rows, (codes, at)).reshape(-1)[:m]
    return found - jnp.log(n - (0 if own else 1))


def _square(z: Array, mean: Array, log_std: Array) -> Array:
    unit = (z - mean) * jnp.exp(-log_std)
    return -0.5 * (unit * unit + math.log(2 * math.pi)) - log_std


def split(
    key: Key,
    mean: Array,
    log_std: Array,
    log_prior: Callable[[Array], Array] | None = None,
    draws: int = 1,
    own: bool = True,
    limit: int = 0,
) -> Split:
    """E_x KL(q(z|x) || p) in its two parts, by Monte Carlo over codes.

    Args:
        key: of the draws.
        mean, log_std: [N, q] of the Gaussian posteriors of N examples.
        log_prior: z [M, q] -> [M] nats; None: N(0, I).
        draws: codes an example.
        own: see the module.
        limit: codes are drawn for the first so many examples only, all being in the mixture; 0:
            for all.

    Returns:
        A `Split`. Its errors are those of a mean over independent examples, the mixture being
        given.

    Raises:
        UserError: fewer than two examples, or a number of draws below one.
    """
    n, q = mean.shape
    if n < 2 or draws < 1 or limit < 0:
        raise UserError(f"examples={n}, draws={draws}, limit={limit}; valid: at least 2, 1, 0")
    m = min(limit or n, n)
    prior = log_prior or (lambda z: log_gaussian(z, jnp.zeros(q), jnp.zeros(q)))
    index = jnp.repeat(jnp.arange(m), draws)
    centre, scale = mean[index], log_std[index]
    z = centre + jnp.exp(scale) * jax.random.normal(key, centre.shape, centre.dtype)
    posterior = log_gaussian(z, centre, scale)
    aggregate = log_aggregate(z, mean, log_std, index, own)
    base = prior(z)
    parts = (posterior - base, posterior - aggregate, aggregate - base)
    means = [np.asarray(part, np.float64).reshape(m, draws).mean(1) for part in parts]
    return Split(*(mean_and_error(part) for part in means))
