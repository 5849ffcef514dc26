"""Which times a loss looks at, and the weight that keeps its integral unbiased.

A loss is an integral over t in [t_min, 1], estimated by draws t ~ p and weights 1 / p(t). A
time sampler is `(key, n) -> t [n], weight [n]`: numbers u in [0, 1) spread over a batch by a
rule (`SPREADS`) and mapped to times by a quantile function with known density (`uniform_in_t`
or `uniform_in_noise`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax.processes.schedules import Schedule
from gmjax.types import Array, Key

TimeSampler = Callable[[Key, int], tuple[Array, Array]]


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


def uniform_in_t(t_min: float, spread: Callable = stratified) -> TimeSampler:
    """t uniform on [t_min, 1]."""

    def draw(key, n):
        t = t_min + (1 - t_min) * spread(key, n)
        return t, jnp.full((n,), 1 - t_min)

    return draw


def uniform_in_noise(schedule: Schedule, t_min: float, spread: Callable = stratified):
    """1 - alpha(t) = 1 - exp(-B(t)) uniform on its range over [t_min, 1].

    The density of t is beta(t) alpha(t) / (range), which cancels the factor beta alpha that
    the losses of uniform and absorbing chains carry.
    """

    def draw(key, n):
        low, high = -jnp.expm1(-schedule.clock(jnp.asarray([t_min, 1.0])))
        noise = low + (high - low) * spread(key, n)
        # Rounding may step past the ends of the range.
        t = jnp.clip(schedule.inverse(-jnp.log1p(-noise)), t_min, 1.0)
        return t, (high - low) / (schedule.rate(t) * jnp.exp(-schedule.clock(t)))

    return draw
