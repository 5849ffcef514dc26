"""Brownian motion on the sphere S^n, n = 1, 2, 3, from x0 to the uniform law.

With the clock tau(t) the kernel is p(theta, tau), theta the angle from x0: the heat kernel of
`spaces.sphere_heat`. It is drawn by its angle and a uniform direction, and as
cos theta = <x0, x> its score is

    grad log q_t|0(x | x0) = (d log p / d cos theta) (x0 - <x0, x> x),

a positive factor, smooth at both poles, times a tangent vector that points to x0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax.processes.diffusions import diffusion_process
from gmjax.processes.schedules import Schedule
from gmjax.spaces import sphere as spaces
from gmjax.spaces.sphere_heat import Heat, heat
from gmjax.types import Array, Process, UserError

_TINY = 1e-10  # an angle of 1e-5, near the resolution of single precision


def sphere(schedule: Schedule, shape: tuple[int, ...]) -> Process:
    """dX = sqrt(beta(t)) dB on S^n.

    Args:
        schedule: beta, and the clock tau; the law is uniform up to a share (n + 1) exp(-n tau / 2).
        shape: (n + 1,), one unit vector.

    Raises:
        UserError: n is not 1, 2 or 3.

    Source: De Bortoli et al. (2022, Riemannian score-based generative modelling).
    """
    if tuple(shape) not in ((2,), (3,), (4,)):
        valid = "(2,), (3,), (4,)"
        raise UserError(f"config.process.shape={tuple(shape)} is no sphere's; valid: {valid}")
    dim = shape[0] - 1
    space, kernel = spaces.sphere(dim), heat(dim)
    density = _density(kernel)
    tau = lambda t: jnp.maximum(schedule.clock(t), _TINY)

    def sample(key, x0, t):
        key_u, key_z = jax.random.split(key)
        u = jax.random.uniform(key_u, (), x0.dtype, minval=1e-7)
        theta = kernel.draw(u, tau(t).astype(x0.dtype))
        direction = spaces.project(space.noise(key_z, x0))
        return spaces.project(jnp.cos(theta) * x0 + jnp.sin(theta) * direction)

    def target(x0, x, t):
        return kernel.slope(spaces.angle(x0, x), tau(t)) * spaces.part(x, x0)

    assert space.uniform is not None
    return diffusion_process(
        space,
        drift=None,
        noise=lambda x, t: jnp.sqrt(schedule.rate(t)),
        std=lambda t: jnp.sqrt(-jnp.expm1(-tau(t))),
        sample=sample,
        target=target,
        base=space.uniform,
        log_prob=lambda x, x0, t: density(x, x0, tau(t)),
    )


def _density(kernel: Heat) -> Callable[[Array, Array, Array], Array]:
    """(x, x0, tau) -> log p, whose derivatives go through <x, x0> and so are right at the poles."""

    @jax.custom_jvp
    def density(x, x0, tau):
        return kernel.log_prob(spaces.angle(x, x0), tau)

    @density.defjvp
    def rule(primals, tangents):
        (x, x0, tau), (dx, dx0, dtau) = primals, tangents
        theta = spaces.angle(x, x0)
        value, late = jax.jvp(lambda s: kernel.log_prob(theta, s), (tau,), (dtau,))
        turn = jnp.sum(spaces.part(x, x0) * dx) + jnp.sum(spaces.part(x0, x) * dx0)
        return value, kernel.slope(theta, tau) * turn + late

    return density
