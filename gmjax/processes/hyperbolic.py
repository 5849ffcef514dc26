"""Brownian motion on the hyperbolic plane and on hyperbolic 3-space.

Its kernel depends on the distance r and the clock tau alone, generator (1/2) Laplace-Beltrami:

    H^3    p = (2 pi tau)^{-3/2} (r / sinh r) exp(-tau/2 - r^2 / (2 tau))
    H^2    p = sqrt2 (2 pi tau)^{-3/2} e^{-tau/8} int_r^inf s e^{-s^2/(2 tau)} ds
                                                        / sqrt(cosh s - cosh r)     (McKean)

With s^2 = r^2 + 2 tau u^2 McKean's integrand becomes smooth and Gaussian,

    p = (1 / (pi tau)) e^{-tau/8 - r^2/(2 tau)} pi^{-1/2} int_0^inf e^{-u^2} D(u)^{-1/2} du,
    D = (cosh s - cosh r) / (tau u^2) = int_0^1 sinh(w) / w dtheta,  w^2 = r^2 + 2 tau u^2 theta,

which 12 nodes of Gauss-Hermite by 8 of Gauss-Legendre give to a relative 1e-9 for tau <= 5 and
3e-7 for tau <= 10, and which is smooth in r^2 at r = 0.

Both kernels are drawn exactly. On H^3 the radius is that of a Brownian motion in R^3 with a unit
drift, |tau e + sqrt(tau) Z|: the density of its norm is 4 pi sinh(r)^2 p. On H^2, exchange the
order in McKean's formula: s has the law of |tau e / 2 + sqrt(tau) Z|, and given s,
cosh r = cosh s - (cosh s - 1) U^2 with U uniform.

Brownian motion leaves every bounded set for good, so it has no stationary law: the base is its
law at t = 1 started at the origin, and data should lie about there.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.processes.diffusions import diffusion_process
from gmjax.processes.schedules import Schedule
from gmjax.spaces import hyperbolic
from gmjax.types import Array, Distribution, Key, Process, UserError

_TINY = 1e-10  # a distance of 1e-5, near the resolution of single precision


def brownian(schedule: Schedule, shape: tuple[int, ...]) -> Process:
    """Brownian motion on H^2 or H^3, dX = sqrt(beta(t)) dB.

    Args:
        schedule: beta, and the clock tau.
        shape: (3,) for the plane, (4,) for 3-space, points of the hyperboloid.

    Raises:
        UserError: another shape.

    Source: McKean (1970); Grigor'yan and Noguchi (1998); Rogers and Pitman (1981) for the radius.
    """
    if tuple(shape) not in ((3,), (4,)):
        raise UserError(f"config.process.shape={tuple(shape)} is unknown; valid: (3,), (4,)")
    dim = shape[0] - 1
    space = hyperbolic.hyperbolic(dim)
    clock = lambda t: jnp.maximum(schedule.clock(t), _TINY)
    radial, radius = (_log_plane, _radius_plane) if dim == 2 else (_log_space, _radius_space)

    def sample(key, x0, t):
        key_r, key_z = jax.random.split(key)
        z = jax.random.normal(key_z, (dim,), x0.dtype)
        r = radius(key_r, clock(t).astype(x0.dtype))
        return space.exp(x0, hyperbolic.lift(x0, r * z / jnp.linalg.norm(z)))

    def log_prob(x, x0, t):
        return radial(hyperbolic.square_distance(x, x0), clock(t))

    def target(x0, x, t):
        # grad of r^2 / 2 at x is -log_x(x0).
        slope = jax.grad(radial)(hyperbolic.square_distance(x, x0), clock(t))
        return -2 * slope * space.log(x, x0)

    def std(t):
        # The score is of order 1 / sqrt(tau), and tends to n - 1 and not to zero.
        tau = clock(t)
        return jnp.sqrt(tau / (1 + tau))

    start, one = hyperbolic.origin(dim), jnp.ones(())
    base = Distribution(lambda key: sample(key, start, one), lambda x: log_prob(x, start, one))
    process = diffusion_process(
        space=space,
        drift=None,
        noise=lambda x, t: jnp.sqrt(schedule.rate(t)),
        std=std,
        sample=sample,
        target=target,
        base=base,
        log_prob=log_prob,
    )
    # A network's output is the coordinates of a score: its tangential part would be x_0 larger.
    return process._replace(read=lambda out, x, t: hyperbolic.lift(x, out[1:]) / std(t))


def _log_space(r2: Array, tau: Array) -> Array:
    """log p on H^3 of r^2: [] nats."""
    return -1.5 * jnp.log(2 * jnp.pi * tau) - jnp.log(hyperbolic.sinhc(r2)) - (tau + r2 / tau) / 2


def _log_plane(r2: Array, tau: Array) -> Array:
    """log p on H^2 of r^2: [] nats."""
    u, weight, theta, share = (jnp.asarray(a, r2.dtype) for a in _nodes())
    d = jnp.sum(share * hyperbolic.sinhc(r2 + 2 * tau * u[:, None] ** 2 * theta), -1)
    return -jnp.log(jnp.pi * tau) - tau / 8 - r2 / (2 * tau) + jnp.log(jnp.sum(weight * d**-0.5))


def _nodes() -> tuple[np.ndarray, ...]:
    """Positive nodes and weights for e^{-u^2} / sqrt(pi), and those of [0, 1]."""
    u, weight = np.polynomial.hermite.hermgauss(24)
    theta, share = np.polynomial.legendre.leggauss(8)
    return u[12:], weight[12:] / np.sqrt(np.pi), (1 + theta) / 2, share / 2


def _radius_space(key: Key, tau: Array, drift: float = 1.0) -> Array:
    """|tau drift e + sqrt(tau) Z| in R^3, the radius on H^3: []."""
    z = jnp.sqrt(tau) * jax.random.normal(key, (3,), tau.dtype)
    return jnp.linalg.norm(z.at[0].add(tau * drift))


def _radius_plane(key: Key, tau: Array) -> Array:
    """The radius on H^2: []."""
    key_s, key_u = jax.random.split(key)
    half = jnp.sinh(_radius_space(key_s, tau, 0.5) / 2)
    # cosh - 1 = 2 sinh^2 of the half, which keeps its digits.
    u = jax.random.uniform(key_u, (), tau.dtype)
    return 2 * jnp.arcsinh(half * jnp.sqrt((1 - u) * (1 + u)))
