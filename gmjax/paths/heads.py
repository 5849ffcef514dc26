"""What a network may predict of a Gaussian path, and how it is read.

Every prediction is linear in data and noise, out = p x0 + q eps, with p and q functions of
(alpha, sigma, alpha', sigma'). With x = alpha x0 + sigma eps this solves to

    x0 = (sigma out - q x) / c,    eps = (p x - alpha out) / c,    c = sigma p - alpha q,

and since all three are linear, the same lines turn a posterior mean of one into those of the
others. One table thus holds every head:

    x0         p = 1,          q = 0
    eps        p = 0,          q = 1
    v          p = -sigma,     q = alpha          (Salimans and Ho 2022)
    score      p = 0,          q = -1 / sigma
    velocity   p = alpha',     q = sigma'         (flow matching)
    edm        p = sigma / (s d),  q = -alpha s / d,  d^2 = alpha^2 s^2 + sigma^2

where s is the standard deviation of the data: the last is what is left to predict of x0 once
its best linear guess from x is taken out, scaled to variance one (Karras et al. 2022, section 5,
for any alpha). The error of a prediction is that of x0 times |c| / sigma.
"""

from collections.abc import Callable

import jax.numpy as jnp

from gmjax.paths.gaussian import GaussianPath, slopes
from gmjax.types import Array, lookup

NOTHING = 1e-9  # of c, below which a head says nothing of x0
# (alpha, sigma, alpha', sigma', data_std) -> p, q
Head = Callable[[Array, Array, Array, Array, float], tuple[Array, Array]]

HEADS: dict[str, Head] = {
    "x0": lambda a, s, da, ds, std: (jnp.ones_like(a), jnp.zeros_like(a)),
    "eps": lambda a, s, da, ds, std: (jnp.zeros_like(a), jnp.ones_like(a)),
    "v": lambda a, s, da, ds, std: (-s, a),
    "score": lambda a, s, da, ds, std: (jnp.zeros_like(a), -1 / s),
    "velocity": lambda a, s, da, ds, std: (da, ds),
    "edm": lambda a, s, da, ds, std: (s / (std * _root(a, s, std)), -a * std / _root(a, s, std)),
}


def _root(a, s, std):
    return jnp.sqrt((a * std) ** 2 + s**2)


def target(name: str, path: GaussianPath, x0: Array, eps: Array, t: Array, data_std: float = 1.0):
    """What a head should predict: p x0 + q eps.

    Args:
        name: in `HEADS`.
        path: the path.
        x0, eps: [B, *S] data and noise.
        t: [B] in (0, 1].
        data_std: standard deviation of an entry of the data, for "edm".

    Returns:
        [B, *S].
    """
    p, q = coefficients(name, path, t, data_std)
    return spread(p, x0) * x0 + spread(q, x0) * eps


def denoised(name: str, path: GaussianPath, out: Array, x: Array, t: Array, data_std: float = 1.0):
    """(x0, eps) [B, *S] each, the posterior means that a head's output [B, *S] stands for.

    Where a head says nothing of x0 (c = 0: eps at alpha = 0) it is taken as zero.
    """
    p, q = coefficients(name, path, t, data_std)
    a, s = path.alpha(t), path.sigma(t)
    c = s * p - a * q
    known = jnp.abs(c) > NOTHING
    p, q, a, s, c, known = (spread(n, x) for n in (p, q, a, s, jnp.where(known, c, 1.0), known))
    x0 = jnp.where(known, (s * out - q * x) / c, 0.0)
    return x0, jnp.where(known, (p * x - a * out) / c, x / s)


def convert(path: GaussianPath, out: Array, x: Array, t: Array, source: str, to: str) -> Array:
    """The output of one head as that of another: [B, *S]."""
    x0, eps = denoised(source, path, out, x, t)
    return target(to, path, x0, eps, t)


def coefficients(name: str, path: GaussianPath, t: Array, data_std: float = 1.0):
    """(p, q) [...] at times t [...].

    Raises:
        UserError: an unknown head.
    """
    return lookup(HEADS, name, "config.loss.head")(*slopes(path, t), data_std)


def spread(number: Array, x: Array) -> Array:
    """[B] -> [B, 1, ..], to multiply x [B, *S]."""
    return jnp.reshape(number, jnp.shape(number) + (1,) * (x.ndim - number.ndim))
