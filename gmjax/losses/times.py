"""Which times a loss looks at, and the weight that keeps its integral unbiased.

A loss is an integral over t in [t_min, 1], estimated by draws t ~ p and weights 1 / p(t). A
time sampler is `(key, n) -> t [n], weight [n]`: numbers u in [0, 1) spread over a batch by a
rule (`SPREADS`) and mapped to times by a quantile function with known density: `uniform_in_t`,
`uniform_in_noise` of a chain's clock, and of Gaussian paths those that know their log-SNR l,

    t = l^-1(value),    p(t) = density of the value at l(t) times -l'(t).

A normal law of the value is one of times in [t_min, 1] by truncation. It hardly draws the ends, so
that its weights are large there: an integrand that is, too, is better drawn otherwise.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax.paths.gaussian import EXTREME, GaussianPath, log_snr
from gmjax.processes.schedules import Schedule
from gmjax.types import Array, Key

TAIL = 1e-6  # what a normal law has beyond is not drawn, on either side

# (key, n, part=None) -> t [n], weight [n]; with part = (j, K) of the j-th of K equal shares of the
# law, so that K draws of one example spread over it as those of a batch do
TimeSampler = Callable[..., tuple[Array, Array]]


def independent(key: Key, n: int) -> Array:
    """n independent uniform numbers."""
    return jax.random.uniform(key, (n,))


def antithetic(key: Key, n: int) -> Array:
    """Pairs u, 1 - u."""
    u = jax.random.uniform(key, ((n + 1) // 2,))
    return jnp.concatenate([u, 1 - u])[:n]


def stratified(key: Key, n: int) -> Array:
    """One uniform number in each of n equal cells, shifted together: the least variance."""
    return (jax.random.uniform(key) + jnp.arange(n) / n) % 1.0


SPREADS: dict[str, Callable[[Key, int], Array]] = {
    "independent": independent,
    "antithetic": antithetic,
    "stratified": stratified,
}


def cell(u: Array, part: tuple[Array, int] | None) -> Array:
    """u in [0, 1), or in the j-th of K equal cells."""
    return u if part is None else (part[0] + u) / part[1]


def uniform_in_t(t_min: float, spread: Callable = stratified) -> TimeSampler:
    """t uniform on [t_min, 1]."""

    def draw(key, n, part=None):
        t = t_min + (1 - t_min) * cell(spread(key, n), part)
        return t, jnp.full((n,), 1 - t_min)

    return draw


def uniform_in_noise(schedule: Schedule, t_min: float, spread: Callable = stratified):
    """1 - alpha(t) = 1 - exp(-B(t)) uniform on its range over [t_min, 1].

    The density of t is beta(t) alpha(t) / (range), which cancels the factor beta alpha that
    the losses of uniform and absorbing chains carry.
    """

    def draw(key, n, part=None):
        low, high = -jnp.expm1(-schedule.clock(jnp.asarray([t_min, 1.0])))
        noise = low + (high - low) * cell(spread(key, n), part)
        # Rounding may step past the ends of the range.
        t = jnp.clip(schedule.inverse(-jnp.log1p(-noise)), t_min, 1.0)
        return t, (high - low) / (schedule.rate(t) * jnp.exp(-schedule.clock(t)))

    return draw


def uniform_in_log_clock(schedule: Schedule, t_min: float, spread: Callable = stratified):
    """log B(t) uniform on its range over [t_min, 1].

    The bound of a diffusion has beta |gap|^2, which near the data is a share of beta / B: by this
    density every time then weighs the same.
    """

    def draw(key, n, part=None):
        low, high = jnp.log(schedule.clock(jnp.asarray([t_min, 1.0])))
        log_clock = low + (high - low) * cell(spread(key, n), part)
        t = jnp.clip(schedule.inverse(jnp.exp(log_clock)), t_min, 1.0)
        return t, (high - low) * schedule.clock(t) / schedule.rate(t)

    return draw


def on_grid(steps: int, spread: Callable = stratified) -> TimeSampler:
    """t uniform on {1/T, 2/T, .., 1}, the discrete times of T steps; its weights are one."""

    def draw(key, n, part=None):
        i = jnp.floor(cell(spread(key, n), part) * steps) + 1
        return jnp.minimum(i, steps) / steps, jnp.ones(n)

    return draw


def uniform_in_log_snr(path: GaussianPath, t_min: float, spread: Callable = stratified):
    """log-SNR uniform on its range over [t_min, 1], of pure noise down to -14."""

    def draw(key, n, part=None):
        high, low = jnp.maximum(log_snr(path, jnp.asarray([t_min, 1.0])), -EXTREME)
        t = jnp.clip(path.inverse(high + (low - high) * cell(spread(key, n), part)), t_min, 1.0)
        return t, (high - low) / _steepness(path, t)

    return draw


def log_normal(
    path: GaussianPath, t_min: float, mean: float = -1.2, std: float = 1.2, spread=stratified
) -> TimeSampler:
    """log(sigma / alpha) normal (Karras et al. 2022, table 1), of the times in [t_min, 1]."""

    def draw(key, n, part=None):
        ends = -0.5 * log_snr(path, jnp.asarray([t_min, 1.0]))
        z, mass = _truncated(cell(spread(key, n), part), *(ends - mean) / std)
        t = jnp.clip(path.inverse(-2 * (mean + std * z)), t_min, 1.0)
        return t, 2 * std * mass / (jax.scipy.stats.norm.pdf(z) * _steepness(path, t))

    return draw


def logit_normal(
    t_min: float, mean: float = 0.0, std: float = 1.0, spread: Callable = stratified
) -> TimeSampler:
    """log(t / (1 - t)) normal (Esser et al. 2024), of the times in [t_min, 1]."""

    def draw(key, n, part=None):
        low = (jnp.log(t_min) - jnp.log1p(-t_min) - mean) / std
        z, mass = _truncated(cell(spread(key, n), part), low, jnp.inf)
        t = jax.nn.sigmoid(mean + std * z)
        return jnp.maximum(t, t_min), std * mass * t * (1 - t) / jax.scipy.stats.norm.pdf(z)

    return draw


def _truncated(u: Array, low: Array, high: Array | float) -> tuple[Array, Array]:
    """Quantiles of N(0, 1) within [low, high], and the mass that it has there."""
    below, above = jax.scipy.special.ndtr(jnp.asarray([low, high]))
    share = jnp.clip(below + u * (above - below), TAIL, 1 - TAIL)
    return jax.scipy.special.ndtri(share), above - below


def _steepness(path: GaussianPath, t: Array) -> Array:
    """-d log_snr / dt."""
    return -jax.jvp(lambda t: log_snr(path, t), (t,), (jnp.ones_like(t),))[1]
