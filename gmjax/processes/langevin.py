"""Critically damped Langevin diffusion: noise enters through a velocity alone.

The state is [2, *S], position x and velocity v of mass M. With Gamma^2 = 4 M,

    dx = beta v / M dt,    dv = -beta x dt - beta Gamma v / M dt + sqrt(2 Gamma beta) dB,

which keeps N(0, I) x N(0, M I). In u = v / sqrt(M) and the clock s = B(t) / sqrt(M) it is

    dx = u ds,    du = -(x + 2 u) ds + 2 dB,

whose matrix has one double eigenvalue -1, so that from (x0, u0)

    mean  e^{-s} [ (1 + s) x0 + s u0,  (1 - s) u0 - s x0 ]
    Var x = 1 - e^{-2s} (1 + 2 s + 2 s^2) = e^{-y} sum_{n >= 3} y^n / n!,   y = 2 s,
    Cov   = 2 s^2 e^{-2s},
    Var u = 1 - e^{-2s} (1 - 2 s + 2 s^2).

At small s these are 4/3 s^3, 2 s^2 and 4 s, so everything is kept as Var x / s^2, Cov / s and
Var u, whose determinant is not lost. A start drawn from u0 ~ N(m, gamma) adds gamma p p^T with
p = e^{-s} (s, 1 - s), and to the determinant only what is not negative: data have positions
but no velocities, and the kernel from the position alone is the better target.

sigma is zero on positions, so the reversal, Phi and the losses see the velocity's score alone.
Source: Dockhorn, Vahdat and Kreis (2022), equations 5 to 9 and appendix B.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.processes.gaussian import normal, rooted
from gmjax.processes.schedules import Schedule
from gmjax.types import Array, Lift, Process, UserError

_TINY = 1e-12  # the least s: the inverse of s^3 stays inside float32
_SERIES = [1 / math.factorial(m + 3) for m in range(22)]  # to 1e-17 of the sum for y < 2


def langevin(
    schedule: Schedule, shape: tuple[int, ...], mass: float = 0.25, gamma: float = 0.0
) -> Process:
    """Critically damped Langevin diffusion on states [2, *S]: positions, then velocities.

    Args:
        schedule: beta and its clock.
        shape: [2, *S], one state.
        mass: M, the variance of the velocity in the reference law.
        gamma: the kernel starts from velocities N(v0, gamma M); zero gives the kernel of the
            Markov process. With gamma > 0 and `start`, data enter by position alone.

    Raises:
        UserError: the state is not a pair, or a number is out of range.
    """
    if len(shape) == 0 or shape[0] != 2:
        raise UserError(
            f"config.process.shape={tuple(shape)} must start with 2: positions and velocities"
        )
    if not mass > 0:
        raise UserError(f"config.process.mass={mass} must be positive")
    if not gamma >= 0:
        raise UserError(f"config.process.gamma={gamma} must not be negative")
    unit = math.sqrt(mass)  # of velocity: v = unit u
    size = math.prod(shape[1:])
    time = lambda t: jnp.maximum(schedule.clock(t) / unit, _TINY)
    factors = lambda t: cholesky(time(t), gamma)

    def mean(x0, t):
        s, (x, u) = time(t), (x0[0], x0[1] / unit)
        return jnp.exp(-s) * ((1 + s) * x + s * u), jnp.exp(-s) * ((1 - s) * u - s * x)

    def sample(key, x0, t):
        (x, u), (xx, ux, uu) = mean(x0, t), factors(t)
        z = jax.random.normal(key, shape, x0.dtype)
        return jnp.stack([x + xx * z[0], unit * (u + ux * z[0] + uu * z[1])])

    def whiten(x0, x, t):
        """L^-1 (state - mean), in the unit of velocity."""
        (mean_x, mean_u), (xx, ux, uu) = mean(x0, t), factors(t)
        first = (x[0] - mean_x) / xx
        return first, (x[1] / unit - mean_u - ux * first) / uu

    def log_prob(x, x0, t):
        xx, _, uu = factors(t)
        standard = normal(shape).log_prob(jnp.stack(whiten(x0, x, t)))
        return standard - size * (jnp.log(xx) + jnp.log(uu) + math.log(unit))

    def target(x0, x, t):
        (first, second), (xx, ux, uu) = whiten(x0, x, t), factors(t)
        by_u = second / uu
        return -jnp.stack([(first - ux * by_u) / xx, by_u / unit])

    def drift(x, t):
        v = x[1] / mass
        return schedule.rate(t) * jnp.stack([v, -x[0] - 2 * unit * v])

    def root(t, v):
        return jnp.sqrt(4 * unit * schedule.rate(t)) * v.at[0].set(0.0)

    def read(out, x, t):
        """The velocity's score; the position's never enters and is zero."""
        return out.at[0].set(0.0) / (unit * factors(t)[2])

    def simple(x, t, target, score):
        return jnp.mean((unit * factors(t)[2] * (target - score)[1]) ** 2)

    process = rooted(
        shape,
        drift=drift,
        root=root,
        sample=sample,
        target=target,
        base=normal(shape, np.array([1.0, unit]).reshape(2, *[1] * len(shape[1:]))),
        log_prob=log_prob,
    )
    return process._replace(simple=simple, read=read)


def start(x: Array) -> Array:
    """Data as a state: positions [*S] at velocity zero, to which `gamma` adds its noise."""
    return jnp.stack([x, jnp.zeros_like(x)])


def lift(
    schedule: Schedule, shape: tuple[int, ...], mass: float = 0.25, gamma: float = 0.04
) -> Lift:
    """Data [*S] as positions, for a bound on their likelihood alone.

    -log p(x) is at most -log p(x, v) less the entropy of v given x, and in the kernel from any
    data v given x is normal with the deviation `cholesky` ends with.

    Args:
        schedule, mass, gamma: of the process.
        shape: [*S], one example.
    """
    unit, size = math.sqrt(mass), math.prod(shape)

    def entropy(t):
        _, _, uu = cholesky(jnp.maximum(schedule.clock(t) / unit, _TINY), gamma)
        return size * (jnp.log(uu * unit) + 0.5 * math.log(2 * math.pi * math.e))

    return Lift(start, lambda state: state[0], entropy)


def cholesky(s: Array, gamma: float) -> tuple[Array, Array, Array]:
    """The factor (xx, ux, uu) of the kernel's covariance [[xx, 0], [ux, uu]] [..]^T.

    Args:
        s: [] positive, the clock in the units of the module's equations.
        gamma: variance of the start's velocity.
    """
    y = 2 * s
    small = y < 2
    low, high = jnp.where(small, y, 1.0), jnp.where(small, 2.0, y)
    series = jnp.zeros_like(s)
    for term in reversed(_SERIES):
        series = series * low + term
    decay = jnp.exp(-y)
    a = jnp.where(
        small,
        4 * decay * low * series,
        4 * (1 - jnp.exp(-high) * (1 + high + 0.5 * high**2)) / high**2,
    )
    b = y * decay
    c = -jnp.expm1(-y) + decay * (y - 0.5 * y**2)
    spread = gamma * decay
    det = (a * c - b**2) + spread * (c - 2 * (1 - s) * b + (1 - s) ** 2 * a)
    xx = jnp.sqrt(a + spread)
    return s * xx, (b + spread * (1 - s)) / xx, jnp.sqrt(det) / xx
