"""Clocks of time-changed Markov chains.

A chain with rates R_t = beta(t) R has the kernel exp(B(t) R) with the clock
B(t) = int_0^t beta(s) ds, so a schedule is three functions: beta, B and B^-1. Uniform and
absorbing chains are normalised so that a site is untouched with probability
alpha(t) = exp(-B(t)); schedules known by their alpha are therefore B = -log alpha.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from gmjax.types import Array, UserError

_LEAST, _MOST = 1e-6, 1e6  # of a rate: clocks stay numbers that single precision can tell apart
_FINEST = 1e-8  # of an alpha, a tenth of the distance of 1 from the next number


class Schedule(NamedTuple):
    """The clock of a chain on t in [0, 1]."""

    rate: Callable[[Array], Array]  # beta(t) >= 0
    clock: Callable[[Array], Array]  # B(t) = int_0^t beta
    inverse: Callable[[Array], Array]  # B -> t


def constant(rate: float = 1.0) -> Schedule:
    """beta(t) = rate."""
    _positive("rate", rate)
    return Schedule(
        lambda t: rate * jnp.ones_like(t),
        lambda t: rate * t,
        lambda b: b / rate,
    )


def linear(start: float = 0.1, end: float = 10.0) -> Schedule:
    """beta(t) = start + (end - start) t, as in the variance-preserving diffusion."""
    _positive("start", start)
    _positive("end", end)
    slope = end - start
    return Schedule(
        lambda t: jnp.maximum(start + slope * t, min(start, end)),  # rounding may pass the end
        lambda t: start * t + 0.5 * slope * t**2,
        # The root of slope t^2 / 2 + start t = b, in the form that survives slope = 0.
        lambda b: 2 * b / (start + jnp.sqrt(start**2 + 2 * slope * b)),
    )


def cosine(alpha_min: float = 1e-4) -> Schedule:
    """alpha(t) = cos(w t)^2 with w such that alpha(1) = alpha_min."""
    _fraction("alpha_min", alpha_min)
    w = float(np.arccos(np.sqrt(alpha_min)))

    def clock(t):
        # 1 - cos^2 = sin^2 keeps the digits at small t, and cos those at the other end.
        hidden = jnp.sin(w * t) ** 2
        early = hidden < 0.5
        begun = jnp.where(early, hidden, 0.0)
        left = jnp.where(early, 1.0, jnp.cos(w * t))
        return -jnp.log1p(-begun) - 2 * jnp.log(left)

    return Schedule(
        lambda t: 2 * w * jnp.tan(w * t),
        clock,
        lambda b: jnp.arcsin(jnp.sqrt(-jnp.expm1(-b))) / w,
    )


def geometric(a: float = 3.0, b: float = 100.0) -> Schedule:
    """beta(t) = a b^t log b, B(t) = a (b^t - 1) (Campbell et al. 2022)."""
    _positive("a", a)
    if not 1 < b <= _MOST:
        raise UserError(f"config.process.schedule.b={b} must lie in (1, {_MOST:g}]")
    log_b = float(np.log(b))
    return Schedule(
        lambda t: a * log_b * jnp.exp(log_b * t),
        lambda t: a * jnp.expm1(log_b * t),
        lambda clock: jnp.log1p(clock / a) / log_b,
    )


def log_linear(alpha_min: float = 1e-4) -> Schedule:
    """alpha(t) = 1 - (1 - alpha_min) t: a masked share that grows linearly."""
    _fraction("alpha_min", alpha_min)
    c = 1 - alpha_min

    def clock(t):
        # 1 - c t keeps its digits near t = 1 where c rounds to 1, and log1p those at small t.
        early = t < 0.5
        late = jnp.where(early, 1.0, (1 - t) + alpha_min * t)
        return jnp.where(early, -jnp.log1p(-c * t), -jnp.log(late))

    return Schedule(
        lambda t: c / ((1 - t) + alpha_min * t),
        clock,
        lambda b: -jnp.expm1(-b) / c,
    )


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "geometric": geometric,
    "log_linear": log_linear,
}


def _positive(name: str, value: float) -> None:
    if not _LEAST <= value <= _MOST:
        raise UserError(
            f"config.process.schedule.{name}={value} must be positive, in [{_LEAST:g}, {_MOST:g}]"
        )


def _fraction(name: str, value: float) -> None:
    if not _FINEST <= value < 1:
        raise UserError(
            f"config.process.schedule.{name}={value} must lie in (0, 1), at least {_FINEST:g}:"
            " single precision knows no time nearer to 1"
        )
