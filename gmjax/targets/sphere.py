"""The uniform law on a sphere of R^d, under noise.

With r = |x|, k = alpha R r / sigma^2 and nu = d / 2 - 1, averaging the kernel over the sphere gives

    p(x) = (2 pi sigma^2)^{-d/2} exp(-(r - alpha R)^2 / (2 sigma^2)) F_nu(k) e^{-k},

F and a as in `targets.bessel`. The posterior of x0 is the von Mises-Fisher law about x, with mean

    E[x0 | x] = R (I_{nu+1} / I_nu)(k) x / r = (alpha R^2 / sigma^2) a(k^2) x

and covariance R^2 (a I + 2 (alpha R / sigma^2)^2 a'(k^2) x x^T). Functions of k^2 are smooth at
x = 0.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.targets import bessel
from gmjax.targets.laws import Covariance, Target, diagonal, resolved
from gmjax.types import UserError


def sphere(dim: int, radius: float = 1.0) -> Target:
    """The uniform law on the sphere of a radius about the origin of R^dim; in R two points.

    Args:
        dim: d.
        radius: R > 0.
    """
    if dim < 1:
        raise UserError(f"config.target.dim={dim} must be at least 1")
    if not radius > 0:
        raise UserError(f"config.target.radius={radius} must be positive")
    order = 0.5 * dim - 1

    def scale(alpha, sigma):
        return alpha * radius / resolved(sigma) ** 2

    def log_prob(x, alpha, sigma):
        variance = resolved(sigma) ** 2
        # The root is kept off zero, where it has no derivative.
        r = jnp.sqrt(jnp.maximum(x @ x, jnp.finfo(x.dtype).tiny))
        shell = -0.5 * (
            (r - alpha * radius) ** 2 / variance + dim * jnp.log(2 * math.pi * variance)
        )
        return shell + bessel.log_mean_exp(order, scale(alpha, sigma) * r)

    def denoiser(x, alpha, sigma):
        k = scale(alpha, sigma)
        return radius * k * bessel.scaled_ratio(order, k**2 * (x @ x)) * x

    def score(x, alpha, sigma):
        return (alpha * denoiser(x, alpha, sigma) - x) / resolved(sigma) ** 2

    def posterior(x, alpha, sigma):
        k = scale(alpha, sigma)
        a, slope = jax.value_and_grad(lambda s: bessel.scaled_ratio(order, s))(k**2 * (x @ x))
        across = jnp.full(dim, radius**2 * a)
        return Covariance(across, (k * x)[:, None], 2 * radius**2 * slope[None])

    def sample(key):
        z = jax.random.normal(key, (dim,))
        return radius * z / jnp.linalg.norm(z)

    mean = np.zeros(dim)
    spread = diagonal(np.full(dim, radius**2 / dim))
    return Target(dim, mean, spread, sample, log_prob, score, denoiser, posterior)
