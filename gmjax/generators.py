"""Generators of Markov processes as higher-order functions.

The generator of a Markov process acts on test functions,
(L_t f)(x) = lim (E[f(X_{t+h}) | X_t = x] - f(x)) / h; its adjoint L*_t moves densities
(Kolmogorov's forward equation d/dt p_t = L*_t p_t).

For a jump process on a product of finite sets that moves one site at a time, with rates
R_t(x, y) to the state y that differs from x at one site,

    L f(x)  = sum_y R_t(x, y) (f(y) - f(x))
    L* f(x) = sum_y R_t(y, x) f(y) - R_t(x, y) f(x)       (counting measure)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax import draws
from gmjax.types import Array, Generator


def jump(
    rates_out: Callable[[Array, Array], Array],
    rates_in: Callable[[Array, Array], Array] | None = None,
) -> Generator:
    """The generator of a jump process that changes one site at a time.

    Args:
        rates_out: (x [*S], t []) -> [*S, K], the rate at which each site moves to each
            value; zero at the value it has.
        rates_in: (x, t) -> [*S, K], the rate from x with the site at that value into x. It
            gives the adjoint; None leaves the generator without one.

    Returns:
        A `Generator`; its step moves each site at most once, by Euler's rule.
    """

    def along(f, x, weights):
        """Sum over sites and values of weights * f(x with the site at that value)."""
        k = weights.shape[-1]
        site, value = jnp.meshgrid(jnp.arange(x.size), jnp.arange(k), indexing="ij")
        moved = jax.vmap(lambda i, v: f(x.reshape(-1).at[i].set(v).reshape(x.shape)))
        values = moved(site.reshape(-1), value.reshape(-1).astype(x.dtype))
        return jnp.sum(weights.reshape(-1) * values)

    def apply(f, x, t):
        rates = rates_out(x, t)
        return along(f, x, rates) - jnp.sum(rates) * f(x)

    def adjoint(f, x, t):
        assert rates_in is not None
        return along(f, x, rates_in(x, t)) - jnp.sum(rates_out(x, t)) * f(x)

    def step(key, x, t, dt):
        rates = rates_out(x, t)
        u = jax.random.uniform(key, x.shape)
        return euler(u, x, rates, dt)

    return Generator(apply, None if rates_in is None else adjoint, step)


def euler(u: Array, x: Array, rates: Array, dt: Array) -> Array:
    """One jump at most a site, to y with probability dt rates(y), clipped to one.

    Args:
        u: [...] uniform numbers in [0, 1).
        x: [...] integer states.
        rates: [..., K] rates to each value, zero at x.
        dt: broadcastable to [...], time.
    """
    chance = dt * jnp.sum(rates, -1)
    # u itself, rescaled by the event u < chance, is the uniform number of the choice.
    target = draws.categorical(jnp.minimum(u / jnp.clip(chance, 1e-30, 1), 1 - 1e-7), rates)
    return jnp.where(u < chance, target.astype(x.dtype), x)
