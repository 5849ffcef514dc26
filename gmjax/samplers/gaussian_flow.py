"""Single-step solvers of the probability flow of a Gaussian path.

With D = E[x0 | x] and E = E[eps | x], the flow is dx/dt = alpha' D + sigma' E, and in the variable
s = sigma / alpha, y = x / alpha it is dy/ds = E: the same curve, on which a constant x0 gives a
straight line that `transfer` follows exactly. Hence

    euler, heun   rules in t with the velocity; what flow matching uses
    ddim          Euler in s, with eta the share of the ancestral noise (Song et al. 2021)
    edm           Heun in s, after a rise of the noise by `churn` (Karras et al. 2022, algorithm 2)
    dpmpp_2s      the midpoint rule in lambda = -log s (Lu et al. 2022, algorithm 1)

Heun's second evaluation needs noise at its end: a step to sigma = 0, and in s one from alpha = 0,
is an Euler step and evaluates once. So is a step of `edm` from more noise than data (s > 1, of data
of order one) down to less than an eighth of it. There E falls from y / s to next to nothing, and
the mean of both leaves half of the noise: from s it would end at a deviation of about s / 2.
"""

import math

import jax
import jax.numpy as jnp

from gmjax.paths.gaussian import GaussianPath, slopes
from gmjax.samplers.driver import count_steps
from gmjax.samplers.gaussian_steps import (
    Read,
    Step,
    at,
    between,
    data,
    ends,
    noise_of,
    normal,
    require,
    transfer,
)
from gmjax.types import Array, Stepper


def euler(path: GaussianPath, read: Read) -> Stepper:
    """x + (t' - t) v(x, t); one evaluation."""
    first = data(read)

    def step(predict, key, x, t, t_next, carry, cond):
        rate = _velocity(path, x, t, first(predict, x, t, cond))
        return x + (t_next - t)[0].astype(x.dtype) * rate, carry

    return Stepper(lambda x: (), step, count_steps)


def heun(path: GaussianPath, read: Read) -> Stepper:
    """The trapezoidal rule in t; two evaluations."""
    first = data(read)

    def step(predict, key, x, t, t_next, carry, cond):
        h = (t_next - t)[0].astype(x.dtype)
        v = _velocity(path, x, t, first(predict, x, t, cond))
        ahead = x + h * v

        def corrected():
            return x + 0.5 * h * (
                v + _velocity(path, ahead, t_next, first(predict, ahead, t_next, cond))
            )

        inside = ends(path, t_next[0])[1] > 0
        return jax.lax.cond(inside, corrected, lambda: ahead), carry

    def nfe(times):
        return 2 * (len(times) - 1) - _closed(path, times)

    return Stepper(lambda x: (), step, nfe)


def ddim(path: GaussianPath, read: Read, eta: float = 0.0) -> Stepper:
    """alpha' D + sqrt(sigma'^2 - s^2) E + s z, s = eta sigma' sqrt(1 - e^{-2h}).

    Args:
        path, read: the path, and how the network is read.
        eta: 0 is the flow, 1 the ancestral step; up to 1 / sqrt(1 - e^{-2h}) in theory.

    Raises:
        UserError: eta is negative.

    Source: Song et al. (2021, DDIM), equation 12, for any path.
    """
    require(eta >= 0, "eta", eta, "not be negative")
    first = data(read)

    def step(predict, key, x, t, t_next, carry, cond):
        c = between(path, t, t_next, x.dtype)
        x0 = first(predict, x, t, cond)
        if eta == 0:
            return transfer(c, x, x0), carry
        share = jnp.minimum(eta**2 * (1 - c.decay) * (1 + c.decay), 1.0)
        eps = noise_of(c.alpha, c.sigma, x, x0)
        kept = jnp.sqrt(1 - share) * eps + jnp.sqrt(share) * normal(key, x)
        return c.alpha_next * x0 + c.sigma_next * kept, carry

    return Stepper(lambda x: (), step, count_steps)


def edm(
    path: GaussianPath,
    read: Read,
    churn: float = 0.0,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
) -> Stepper:
    """Heun's rule in s = sigma / alpha after raising the noise to (1 + churn) s.

    Args:
        path, read: the path, and how the network is read.
        churn: S_churn over the number of steps, at most sqrt(2) - 1; 0 is deterministic.
        s_min, s_max: S_tmin and S_tmax, the levels s between which it acts.
        s_noise: S_noise, the standard deviation of the noise that is added.

    Raises:
        UserError: churn outside [0, sqrt(2) - 1], an empty range, or s_noise not positive.
    """
    require(0 <= churn <= math.sqrt(2) - 1, "churn", churn, "lie in [0, sqrt(2) - 1]")
    require(0 <= s_min < s_max, "s_min", s_min, f"lie in [0, s_max = {s_max})")
    require(s_noise > 0, "s_noise", s_noise, "be positive")
    first = data(read)

    def raised(key, x, t):
        """x and its time after the churn."""
        alpha, sigma = ends(path, t[0])
        s = sigma / jnp.where(alpha > 0, alpha, 1.0)
        top_alpha, top_sigma = ends(path, jnp.ones_like(t[0]))
        top = jnp.where(top_alpha > 0, top_sigma / jnp.where(top_alpha > 0, top_alpha, 1), jnp.inf)
        level = jnp.minimum((1 + churn) * s, top)
        active = (alpha > 0) & (s >= s_min) & (s <= s_max) & (level > s)
        safe = jnp.where(active, level, 1.0)
        later = jnp.where(active, path.inverse(-2 * jnp.log(safe)), t[0])
        grown = (ends(path, later)[0] / jnp.where(alpha > 0, alpha, 1.0)).astype(x.dtype)
        added = jnp.sqrt(jnp.maximum(level**2 - s**2, 0.0)) * alpha * s_noise
        moved = grown * (x + added.astype(x.dtype) * normal(key, x))
        return jnp.where(active, moved, x), jnp.full_like(t, later)

    def step(predict, key, x, t, t_next, carry, cond):
        twice = _twice(between(path, t, t_next, x.dtype))
        if churn:
            x, t = raised(key, x, t)
        c = between(path, t, t_next, x.dtype)
        x0 = first(predict, x, t, cond)
        ahead = transfer(c, x, x0)

        def corrected():
            second = first(predict, ahead, t_next, cond)
            eps = noise_of(c.alpha, c.sigma, x, x0)
            eps_next = noise_of(c.alpha_next, c.sigma_next, ahead, second)
            grown = c.alpha_next / c.alpha
            return grown * x + 0.5 * (c.sigma_next - grown * c.sigma) * (eps + eps_next)

        return jax.lax.cond(twice, corrected, lambda: ahead), carry

    def nfe(times):
        times = jnp.asarray(times)
        steps = jax.vmap(lambda t, t_next: between(path, t, t_next))(times[:-1], times[1:])
        return len(times) - 1 + jnp.sum(_twice(steps))

    return Stepper(lambda x: (), step, nfe)


def _twice(c: Step) -> Array:
    """Whether Heun's rule in s evaluates again: not at an end, nor across the size of the data."""
    return c.finite & ((c.sigma <= c.alpha) | (c.decay > 1 / 8))


def dpmpp_2s(path: GaussianPath, read: Read) -> Stepper:
    """The midpoint rule in lambda for x0; two evaluations.

    Source: Lu et al. (2022, DPM-Solver++), algorithm 1 with r = 1 / 2.
    """
    first = data(read)

    def step(predict, key, x, t, t_next, carry, cond):
        c = between(path, t, t_next, x.dtype)
        x0 = first(predict, x, t, cond)

        def corrected():
            return transfer(c, x, midpoint(path, first, predict, x, t, t_next, x0, cond))

        return jax.lax.cond(c.finite, corrected, lambda: transfer(c, x, x0)), carry

    def nfe(times):
        return 2 * (len(times) - 1) - _infinite(path, times)

    return Stepper(lambda x: (), step, nfe)


def midpoint(path, first, predict, x, t, t_next, x0, cond) -> Array:
    """E[x0 | x] half-way to t_next in lambda, at the point that a constant x0 reaches."""
    c = between(path, t, t_next, x.dtype)
    half = jnp.log(c.alpha) - jnp.log(c.sigma) + 0.5 * c.h
    middle = at(path, half, t)
    return first(predict, transfer(between(path, t, middle, x.dtype), x, x0), middle, cond)


def _velocity(path, x, t, x0):
    """alpha' E[x0 | x] + sigma' E[eps | x]: [B, *S]."""
    t = t[0].astype(x.dtype)
    _, _, da, ds = slopes(path, t)
    return da * x0 + ds * noise_of(*ends(path, t), x, x0)


def _closed(path, times):
    """1 if the run ends without noise, else 0."""
    return jnp.asarray(ends(path, jnp.asarray(times)[-1])[1] == 0, jnp.int32)


def _infinite(path, times):
    """How many steps begin in pure noise or end in data."""
    return jnp.sum(~between_each(path, times))


def between_each(path, times):
    """Whether each step's h is finite: [N]."""
    alpha, sigma = ends(path, jnp.asarray(times))
    return (alpha[:-1] > 0) & (sigma[1:] > 0)
