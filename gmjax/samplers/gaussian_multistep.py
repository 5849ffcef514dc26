"""Multistep solvers: x0-predictions of earlier steps extrapolate the present one in lambda.

The exact solution of the flow over a step is, with D = E[x0 | x] along it and lambda = log(alpha /
sigma) (Lu et al. 2022, proposition 4.1),

    x' = (sigma' / sigma) x + alpha' int_0^h e^{-(h - u)} D(lambda + u) du,

and a solver is a polynomial for D. With p_0 = 1 - e^{-h} and p_k = int_0^h e^{-(h-u)} u^k / k! du,
the value, slope and curvature of D at lambda enter with p_0, p_1 = h - p_0 and
p_2 = h^2 / 2 - p_1. Divided differences of earlier predictions estimate them:

    dpmpp_2m    one earlier prediction, p_1 replaced by p_0 h / 2
    dpmpp_3m    two earlier predictions
    dpmpp_sde   2M of the reverse SDE, whose x0 enters by alpha' (1 - e^{-2h})
    unipc       predictor as above, then the same step again with the prediction made at its end,
                which the next step needs anyhow (Zhao et al. 2023, B(h) = e^h - 1)

A step of infinite h, and one without the history that it needs, takes the highest order it can. The
third-order solver's first step is a midpoint step with one evaluation more, so that its start does
not spoil its order.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.paths.gaussian import GaussianPath
from gmjax.samplers.driver import count_steps
from gmjax.samplers.gaussian_flow import between_each, midpoint
from gmjax.samplers.gaussian_steps import (
    Read,
    Step,
    between,
    data,
    half_log_snr,
    normal,
    require,
    transfer,
)
from gmjax.types import Array, Stepper


class History(NamedTuple):
    """The latest predictions, the newest first."""

    x0: Array  # [K, B, *S]
    half: Array  # [K], lambda of each
    size: Array  # [] int32, how many there are


def _empty(x: Array, size: int) -> History:
    return History(
        jnp.zeros((size, *x.shape), x.dtype), jnp.zeros(size, x.dtype), jnp.zeros((), jnp.int32)
    )


def _push(history: History, x0: Array, half: Array, c: Step) -> History:
    """With a new prediction, unless it was made in pure noise, or by a step that stays."""
    shifted = History(
        jnp.concatenate([x0[None], history.x0[:-1]]),
        jnp.concatenate([half[None], history.half[:-1]]),
        jnp.minimum(history.size + 1, len(history.half)),
    )
    new = jnp.isfinite(half) & (c.h > 0)
    return jax.tree.map(lambda a, b: jnp.where(new, a, b), shifted, history)


def _gaps(history: History, half: Array, c: Step) -> Array:
    """How far back each prediction is, in steps; one where it does not count.

    Predictions are divided by it in branches that are not taken too, whose gradient is zero times
    what they hold: it is finite.
    """
    counts = c.finite & (jnp.arange(len(history.half)) < history.size)
    return jnp.where(counts, (half - history.half) / jnp.where(counts, c.h, 1.0), 1.0)


def dpmpp_2m(path: GaussianPath, read: Read) -> Stepper:
    """DPM-Solver++(2M); one evaluation a step (Lu et al. 2022, algorithm 2)."""
    return _second(path, read, noisy=False)


def dpmpp_sde(path: GaussianPath, read: Read) -> Stepper:
    """SDE-DPM-Solver++(2M); one evaluation a step (Lu et al. 2022, section 5)."""
    return _second(path, read, noisy=True)


def _second(path, read, noisy):
    first = data(read)

    def step(predict, key, x, t, t_next, history, cond):
        c = between(path, t, t_next, x.dtype)
        half = half_log_snr(path, t[0].astype(x.dtype))
        x0 = first(predict, x, t, cond)
        linear = c.finite & (history.size > 0)
        # Half a step ahead, on the line through the two predictions.
        weight = jnp.where(linear, 0.5, 0.0) / _gaps(history, half, c)[0]
        ahead = x0 + weight * (x0 - history.x0[0])
        if noisy:
            left = (1 - c.decay) * (1 + c.decay)
            mean = c.sigma_next / c.sigma * c.decay * x + c.alpha_next * left * ahead
            x = mean + c.sigma_next * jnp.sqrt(left) * normal(key, x)
        else:
            x = transfer(c, x, ahead)
        return x, _push(history, x0, half, c)

    return Stepper(lambda x: _empty(x, 1), step, count_steps)


def dpmpp_3m(path: GaussianPath, read: Read) -> Stepper:
    """DPM-Solver++(3M), one evaluation a step and one more at the start.

    Source: Lu et al. (2022), appendix B, as a multistep method.
    """
    first = data(read)

    def step(predict, key, x, t, t_next, history, cond):
        c = between(path, t, t_next, x.dtype)
        half = half_log_snr(path, t[0].astype(x.dtype))
        x0 = first(predict, x, t, cond)
        h = jnp.where(c.finite, c.h, 1.0)
        p0, p1, p2 = _integrals(h, 2)
        g1, g2 = _gaps(history, half, c)
        older, oldest = history.x0
        slope = (x0 - older) / g1
        bend = jnp.where(g2 == g1, 0.0, 1.0) / jnp.where(g2 == g1, 1.0, g2 - g1)
        curve = (slope - (older - oldest) * bend) / g2  # half the second derivative, h = 1
        full = history.size > 1
        # Newton's polynomial through the three, in units of h: value, slope and curvature.
        d1 = slope + jnp.where(full, g1, 0.0) * curve
        d2 = jnp.where(full, 2.0, 0.0) * curve

        def multistep():
            line = 0.5 * p0 * slope
            parabola = p1 / h * d1 + p2 / h**2 * d2
            added = jnp.where(full, parabola, line)
            return transfer(c, x, x0) + c.alpha_next * added

        def start():
            return transfer(c, x, midpoint(path, first, predict, x, t, t_next, x0, cond))

        which = jnp.where(c.finite, jnp.where(history.size > 0, 2, 1), 0)
        x = jax.lax.switch(which, [lambda: transfer(c, x, x0), start, multistep])
        return x, _push(history, x0, half, c)

    def nfe(times):
        return len(times) - 1 + jnp.any(between_each(path, times))

    return Stepper(lambda x: _empty(x, 2), step, nfe)


def unipc(path: GaussianPath, read: Read, order: int = 2) -> Stepper:
    """UniPC of predictor order 2 or 3; one evaluation a step.

    Args:
        path, read: the path, and how the network is read.
        order: of the predictor; the corrector adds one to it.

    Raises:
        UserError: another order.

    Source: Zhao et al. (2023), algorithms 5 and 6, B_2(h) = e^h - 1 for x0-prediction.
    """
    require(order in (2, 3), "order", order, "be 2 or 3")
    first = data(read)

    def init(x):
        none = jnp.zeros((), x.dtype)
        return _empty(x, order), x, none, jnp.zeros((), bool)

    def solve(c, x, history, end):
        """The step from x with `history`, whose newest is at its start, and, if given, D at the
        end."""
        h = jnp.where(c.finite, c.h, 1.0)
        gaps = _gaps(history, history.half[0], c)[1:]
        slopes = [(history.x0[0] - old) / g for old, g in zip(history.x0[1:], gaps, strict=True)]
        if end is not None:
            slopes, gaps = [*slopes, end - history.x0[0]], jnp.append(gaps, -1.0)
        # Orders grow with the history; each has its weights, zero for what it does not use.
        known = jnp.where(c.finite, jnp.maximum(history.size - 1, 0), 0)
        weights = jnp.stack([_weights(h, gaps, k, end is not None) for k in range(order)])[known]
        added = sum(w * s for w, s in zip(weights, slopes, strict=True))
        return transfer(c, x, history.x0[0]) + c.alpha_next * (1 - c.decay) * added

    def step(predict, key, x, t, t_next, carry, cond):
        history, before, t_before, begun = carry
        x0 = first(predict, x, t, cond)
        c = between(path, jnp.where(begun, t_before, t[0]), t[0], x.dtype)
        usable = begun & c.finite
        again = solve(c._replace(**_still(c, usable)), before, history, x0)
        x = jnp.where(usable, again, x)
        c = between(path, t, t_next, x.dtype)
        history = _push(history, x0, half_log_snr(path, t[0].astype(x.dtype)), c)
        start = jnp.isfinite(half_log_snr(path, t[0].astype(x.dtype)))
        ahead = jnp.where(start, solve(c, x, history, None), transfer(c, x, x0))
        return ahead, (history, x, t[0].astype(x.dtype), jnp.ones((), bool))

    return Stepper(init, step, count_steps)


def _still(c, usable):
    """Harmless numbers for a step that is not taken."""
    one = jnp.ones_like(c.h)
    return {name: jnp.where(usable, getattr(c, name), one) for name in c._fields}


def _integrals(h: Array, last: int) -> list[Array]:
    """p_0 .. p_last, p_k = int_0^h e^{-(h-u)} u^k / k! du, without cancellation at small h."""
    p = [-jnp.expm1(-h)]
    for k in range(1, last + 1):
        terms = ((-1.0) ** j * h ** (j + k + 1) / _factorial(j + k + 1) for j in range(10))
        p.append(jnp.where(h < 0.5, sum(terms), h**k / _factorial(k) - p[-1]))
    return p


def _weights(h: Array, gaps: Array, known: int, has_end: bool) -> Array:
    """UniPC's weights of the divided differences, with `known` earlier predictions and the end.

    They solve sum_m w_m z_m^k = b_k with b_k = (k + 1)! p_{k+1} / (p_0 h^{k+1}) for k below their
    number, z being where a prediction was made, in steps from the present: w_m is the functional
    b of Lagrange's polynomial that is one at z_m. One alone has weight 1 / 2, as published.
    """
    used = [*range(known), *([len(gaps) - 1] if has_end else [])]
    if len(used) < 2:
        return jnp.zeros_like(gaps).at[np.asarray(used, int)].set(0.5)
    p = _integrals(h, len(used))
    b = [_factorial(k) * p[k] / (p[0] * h**k) for k in range(1, len(used) + 1)]
    weights = jnp.zeros_like(gaps)
    for m in used:
        polynomial, scale = [jnp.ones_like(h)], jnp.ones_like(h)
        for z in (-gaps[i] for i in used if i != m):
            shifted, lower = [jnp.zeros_like(h), *polynomial], [*polynomial, jnp.zeros_like(h)]
            polynomial = [up - z * same for up, same in zip(shifted, lower, strict=True)]
            scale = scale * (-gaps[m] - z)
        total = sum(c * moment for c, moment in zip(polynomial, b, strict=True))
        weights = weights.at[m].set(total / scale)
    return weights


def _factorial(n: int) -> float:
    return float(math.factorial(n))  # as an integer it would overflow int32
