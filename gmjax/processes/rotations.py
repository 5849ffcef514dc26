"""Brownian motion on SO(3), with its heat kernel: the isotropic Gaussian of rotations.

From x0 the law of x_t depends on tau = B(t) and on the angle w of x0^T x alone. Relative to the
Riemannian volume its density is f(w) / 8 pi^2 and its score

    grad log q(x | x0) = x hat(w) (d/dw log f)(|w|) / |w|,      exp(hat(w)) = x0^T x,

with f, its score and its draws from `gmjax.spaces.rotations_heat`. All commute with rotations
from the left and from the right. As tau grows the law tends to Haar's like exp(-tau).
Source: Leach et al. (2022); Benton et al. (2022), section 5 for the use on SO(3).
"""

import math

import jax.numpy as jnp

from gmjax.processes.diffusions import diffusion_process
from gmjax.processes.schedules import Schedule
from gmjax.spaces import rotations as space_of
from gmjax.spaces import rotations_heat as heat
from gmjax.types import Process, UserError

_TINY = 1e-12  # of tau: entries of order one are no finer than 1e-6 in single precision


def rotations(schedule: Schedule, shape: tuple[int, ...] = (3, 3)) -> Process:
    """dX = sqrt(beta) dB on SO(3), from x0 to Haar's law.

    Args:
        schedule: beta and its clock, the variance of the angle about each axis.
        shape: (3, 3), one state.

    Raises:
        UserError: another shape.
    """
    if tuple(shape) != (3, 3):
        raise UserError(f"config.process.name='rotations': states of shape {shape}; valid: (3, 3)")
    space = space_of.rotations()
    tau = lambda t: jnp.maximum(schedule.clock(t), _TINY)
    between = lambda x0, x: space_of.log(space_of.compose(x0.T, x))

    def sample(key, x0, t):
        turn = heat.draw(key, tau(t).astype(x0.dtype))
        return space_of.compose(x0, space_of.exp(turn))

    def log_prob(x, x0, t):
        w = between(x0, x)
        return heat.log_density(jnp.sum(w * w), tau(t)) - math.log(space_of.VOLUME)

    def target(x0, x, t):
        w = between(x0, x)
        return space_of.compose(x, space_of.hat(heat.slope(jnp.sum(w * w), tau(t)) * w))

    def std(t):
        return jnp.sqrt(tau(t) / (1 + tau(t)))

    assert space.uniform is not None
    return diffusion_process(
        space,
        drift=None,
        noise=lambda x, t: jnp.sqrt(schedule.rate(t)),
        std=std,
        sample=sample,
        target=target,
        base=space.uniform,
        log_prob=log_prob,
    )
