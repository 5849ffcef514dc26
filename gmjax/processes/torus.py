"""Brownian motion on the torus, with its wrapped normal kernel.

With tau = B(t), d the wrapped difference of two angles and p the kernel, each angle has

    p(d) = sum_k exp(-(d + 2 pi k)^2 / 2 tau) / sqrt(2 pi tau)              (images)
         = (1 + 2 sum_n exp(-n^2 tau / 2) cos n d) / 2 pi                   (Fourier)

which are equal by Poisson's summation and decay alike at tau = 2 pi: with three images a side
below it and three waves above it, what is left out is below 1e-12 of p and of its score.

The score of the images cancels near the ends of its range. Round d = 0 it is

    -tau score = d - sum_k 2 pi k e_k sinh(2 pi k d / tau) / (1/2 + sum_k e_k cosh(2 pi k d / tau)),

e_k = exp(-2 pi^2 k^2 / tau), k >= 1; round the cut locus, with h = pi - d and the images in
pairs at c = pi, 3 pi, ... (each c - h and c + h away),

    tau score = h - sum_c c tanh(c h / tau) w_c / sum_c w_c,
    w_c = exp(-(c^2 - pi^2) / 2 tau) cosh(c h / tau) / cosh(pi h / tau).

Both are odd, so they are exact to rounding down to zero; the one is used up to |d| = pi / 2,
the other beyond. Source: Jing et al. (2022, torsional diffusion) for the wrapped kernel.
"""

import math

import jax.numpy as jnp

from gmjax.processes.diffusions import diffusion_process
from gmjax.processes.schedules import Schedule
from gmjax.spaces import torus as spaces
from gmjax.types import Array, Process

_SWITCH = 2 * math.pi
_TERMS = 3
# Angles of order one are no finer than this in single precision: a width of 1e-6.
_TINY = 1e-12


def torus(schedule: Schedule, shape: tuple[int, ...]) -> Process:
    """dX = sqrt(beta) dB on T^n, from x0 to the uniform law.

    Args:
        schedule: beta and its clock, the variance of a short step.
        shape: [*S], one state of angles in radians.
    """
    space = spaces.torus(shape)
    tau = lambda t: jnp.maximum(schedule.clock(t), _TINY)

    def sample(key, x0, t):
        return spaces.wrap(x0 + jnp.sqrt(tau(t)) * space.noise(key, x0))

    assert space.uniform is not None
    return diffusion_process(
        space,
        drift=None,
        noise=lambda x, t: jnp.sqrt(schedule.rate(t)),
        std=lambda t: jnp.sqrt(-jnp.expm1(-tau(t))),
        sample=sample,
        target=lambda x0, x, t: wrapped_score(spaces.wrap(x - x0), tau(t)),
        base=space.uniform,
        log_prob=lambda x, x0, t: jnp.sum(wrapped_log_prob(spaces.wrap(x - x0), tau(t))),
    )


def wrapped_log_prob(d: Array, tau: Array) -> Array:
    """The log density of N(0, tau) wrapped round the circle, at angles d: [...] nats.

    Args:
        d: [...] radians in [-pi, pi].
        tau: [] positive, radians squared.
    """
    short = tau < _SWITCH
    k = jnp.arange(1, _TERMS + 1, dtype=d.dtype).reshape(-1, *[1] * d.ndim)

    def images(tau):
        # (d + 2 pi k)^2 - d^2 = 4 pi k (pi k + d), which is not negative.
        one = lambda k: jnp.exp(-2 * math.pi * k * (math.pi * k + d) / tau)
        return jnp.log1p(jnp.sum(one(k) + one(-k), 0)) - 0.5 * (
            d**2 / tau + jnp.log(2 * math.pi * tau)
        )

    def waves(tau):
        total = jnp.sum(jnp.exp(-0.5 * k**2 * tau) * jnp.cos(k * d), 0)
        return jnp.log1p(2 * total) - math.log(2 * math.pi)

    return jnp.where(
        short, images(jnp.where(short, tau, 1.0)), waves(jnp.where(short, _SWITCH, tau))
    )


def wrapped_score(d: Array, tau: Array) -> Array:
    """The derivative of `wrapped_log_prob` in d, accurate relative to itself: [...].

    Args:
        d: [...] radians in [-pi, pi].
        tau: [] positive, radians squared.
    """
    short, near = tau < _SWITCH, jnp.abs(d) < 0.5 * math.pi
    k = jnp.arange(1, _TERMS + 1, dtype=d.dtype).reshape(-1, *[1] * d.ndim)
    # Where an argument is clipped its term is below exp(-40) of the rest.
    clip = lambda z: jnp.clip(z, -40, 40)

    def centre(d, tau):
        e = jnp.exp(-2 * (math.pi * k) ** 2 / tau)
        z = clip(2 * math.pi * k * d / tau)
        pull = jnp.sum(2 * math.pi * k * e * jnp.sinh(z), 0)
        return (pull / (0.5 + jnp.sum(e * jnp.cosh(z), 0)) - d) / tau

    def cut(h, tau):
        c = math.pi * (2 * k - 1)
        w = jnp.exp(-2 * math.pi**2 * k * (k - 1) / tau) * (
            jnp.cosh(clip(c * h / tau)) / jnp.cosh(clip(math.pi * h / tau))
        )
        pull = jnp.sum(c * jnp.tanh(c * h / tau) * w, 0) / jnp.sum(w, 0)
        return (h - pull) / tau

    def waves(tau):
        e = jnp.exp(-0.5 * k**2 * tau)
        return -jnp.sum(2 * k * e * jnp.sin(k * d), 0) / (1 + 2 * jnp.sum(e * jnp.cos(k * d), 0))

    high, low = spaces.two_parts(math.pi, d.dtype)
    side = jnp.where(d < 0, -1, 1).astype(d.dtype)
    h = (side * high - d) + side * low
    tau_short = jnp.where(short, tau, 1.0)
    below = jnp.where(
        near, centre(jnp.where(near, d, 0.0), tau_short), cut(jnp.where(near, 1.0, h), tau_short)
    )
    return jnp.where(short, below, waves(jnp.where(short, _SWITCH, tau)))
