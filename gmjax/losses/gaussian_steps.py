"""The T steps of a discrete Gaussian diffusion, and what they cost.

One reverse step from t = i/T to s = (i-1)/T is a Gaussian p(x_s | x_t), its mean that of
q(x_s | x_t, x0) at the network's guess of x0, its variance small (that of q, right for one known
x0), large (that of the forward step, right for data of variance one), or between them by a
learned fraction of the logarithm. A step's part of the bound is KL(q || p); the last one, which
has no variance left, is -log p(x0 | x_{1/T}).

Source: Ho et al. (2020), sections 2 and 3; Nichol and Dhariwal (2021), section 3.1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmjax.losses.gaussian import noised
from gmjax.paths import heads
from gmjax.paths.gaussian import GaussianPath, log_snr
from gmjax.paths.heads import spread
from gmjax.types import Array, Cond, Key, Loss, lookup


class Step(NamedTuple):
    """One step of the reverse process: x_s ~ N(mean, e^log_variance)."""

    mean: Array
    log_variance: Array


def posterior(path: GaussianPath, x0: Array, x: Array, t: Array, s: Array) -> Step:
    """q(x_s | x_t, x0), s < t: [B, *S] (Ho et al. 2020, equations 6 and 7).

    mean = (alpha_t sigma_s^2 / (alpha_s sigma_t^2)) x + alpha_s (1 - r) x0 and variance
    sigma_s^2 (1 - r), with r = SNR(t) / SNR(s).
    """
    log_ratio = log_snr(path, t) - log_snr(path, s)
    rest = -jnp.expm1(log_ratio)
    at, as_ = path.alpha(t), path.alpha(s)
    keep = at / as_ * (path.sigma(s) / path.sigma(t)) ** 2
    mean = spread(keep, x) * x + spread(as_ * rest, x) * x0
    log_variance = 2 * jnp.log(path.sigma(s)) + jnp.log(rest)
    return Step(mean, spread(log_variance, x))


def largest(path: GaussianPath, t: Array, s: Array) -> Array:
    """log of beta = Var(x_t | x_s), the variance of a step for data of variance one: [B]."""
    log_ratio = log_snr(path, t) - log_snr(path, s)
    return 2 * jnp.log(path.sigma(t)) + jnp.log(-jnp.expm1(log_ratio))


VARIANCES: dict[str, Callable] = {  # (small, large, fraction in [0, 1] or None) -> log-variance
    "small": lambda small, large, fraction: small,
    "large": lambda small, large, fraction: large,
    "learned": lambda small, large, fraction: fraction * large + (1 - fraction) * small,
}


def step_kl(
    path: GaussianPath,
    variance: str,
    x0: Array,
    guess: Array,
    fraction: Array | None,
    x: Array,
    t: Array,
    s: Array,
) -> Array:
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)) of each entry, nats: [B, *S].

    Args:
        path: the noising.
        variance: of p, in `VARIANCES`.
        x0: the data; guess: the network's x0.
        fraction: [B, *S] in [0, 1], between the log-variances, of a learned variance.
        x: x_t; t, s: [B] with s < t.
    """
    q = posterior(path, x0, x, t, s)
    mean = posterior(path, guess, x, t, s).mean
    large = spread(largest(path, t, s), x)
    log_variance = lookup(VARIANCES, variance, "config.loss.variance")(
        q.log_variance, large, fraction
    )
    gap = q.log_variance - log_variance
    return 0.5 * (jnp.exp(gap) - 1 - gap + (q.mean - mean) ** 2 * jnp.exp(-log_variance))


def learned_variance(
    path: GaussianPath,
    head: str,
    steps: int,
    decode: Callable[..., Array],
    share: float = 1e-3,
    data_std: float = 1.0,
) -> Loss:
    """L_simple + share * T L_vlb, the second training the variance alone.

    Args:
        path: with `steps` discrete times t = i / T.
        head: the network's first output; its second is the fraction of the log-variance.
        steps: T.
        decode: (x0, Step) -> [B, *S] nats, -log p(x0 | x_{1/T}), for the last step.
        share: lambda.
        data_std: standard deviation of an entry of the data.

    Returns:
        A loss (predict, key, x0, cond) -> ([B], {"bound": [B] nats an entry}), where predict
        gives (out, fraction in [0, 1]), [B, *S] each.

    Source: Nichol and Dhariwal (2021), section 3.1, with their lambda = .001.
    """

    def loss(predict: Callable, key: Key, x0: Array, cond: Cond):
        key_t, key_eps = jax.random.split(key)
        i = jax.random.randint(key_t, (len(x0),), 1, steps + 1)
        t, s = i / steps, (i - 1) / steps
        eps = jax.random.normal(key_eps, x0.shape, x0.dtype)
        x = noised(path, x0, eps, t)
        out, fraction = predict(x, t, cond)
        axes = tuple(range(1, x0.ndim))
        simple = jnp.mean((out - heads.target(head, path, x0, eps, t, data_std)) ** 2, axes)
        guess, _ = heads.denoised(head, path, jax.lax.stop_gradient(out), x, t, data_std)
        inner = jnp.where(i > 1, s, 1 / steps)  # a time at which the posterior has a variance
        outer = jnp.where(i > 1, t, 2 / steps)
        kl = step_kl(path, "learned", x0, guess, fraction, x, outer, inner)
        last = decode(x0, last_step(path, "learned", guess, fraction, steps))
        vlb = jnp.mean(jnp.where(spread(i > 1, x), kl, last), axes)
        return simple + share * steps * vlb, {"bound": steps * vlb}

    return loss


def last_step(
    path: GaussianPath, variance: str, guess: Array, fraction: Array | None, steps: int
) -> Step:
    """p(x0 | x_{1/T}): its mean is the network's x0.

    The posterior at s = 0 has no variance; as published, the smallest is that of the step before,
    q(x_{1/T} | x_{2/T}, x0), and the largest beta_1 = sigma_{1/T}^2.
    """
    first = jnp.full(len(guess), 1 / steps)
    log_ratio = log_snr(path, 2 * first) - log_snr(path, first)
    large = 2 * jnp.log(path.sigma(first))
    small = large + jnp.log(-jnp.expm1(log_ratio)) if steps > 1 else large
    form = lookup(VARIANCES, variance, "config.loss.variance")
    return Step(guess, form(spread(small, guess), spread(large, guess), fraction))


def discretised(num_values: int) -> Callable[[Array, Step], Array]:
    """-log of the Gaussian mass of each value's bin; the outer bins reach to infinity.

    Args:
        num_values: V levels, evenly spaced on [-1, 1].

    Returns:
        (x0 [B, *S] in [-1, 1], `Step`) -> [B, *S] nats (Ho et al. 2020, equation 13).
    """
    half = 1 / (num_values - 1)

    def nats(x0, step):
        scale = jnp.exp(-0.5 * step.log_variance)
        low = jnp.where(x0 <= -1 + half, -jnp.inf, (x0 - half - step.mean) * scale)
        high = jnp.where(x0 >= 1 - half, jnp.inf, (x0 + half - step.mean) * scale)
        return -log_mass(low, high)

    return nats


def log_mass(low: Array, high: Array) -> Array:
    """log(Phi(high) - Phi(low)), low < high, without cancellation in either tail."""
    # By symmetry the interval is moved to the left half-line, where Phi is small and exact.
    right = low + high > 0
    a, b = jnp.where(right, -high, low), jnp.where(right, -low, high)
    log_b, log_a = jax.scipy.stats.norm.logcdf(b), jax.scipy.stats.norm.logcdf(a)
    empty = a == -jnp.inf
    gap = jnp.where(empty, -1.0, log_a - log_b)
    return log_b + jnp.where(empty, 0.0, _log1mexp(gap))


def _log1mexp(x: Array) -> Array:
    """log(1 - e^x) for x < 0."""
    x = jnp.minimum(x, -1e-30)
    near = x > -math.log(2)
    inner = jnp.where(near, x, -1.0)
    outer = jnp.where(near, -1.0, x)
    return jnp.where(near, jnp.log(-jnp.expm1(inner)), jnp.log1p(-jnp.exp(outer)))
