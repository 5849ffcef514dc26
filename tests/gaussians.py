"""A correlated Gaussian under variance-preserving noise: every marginal, score and likelihood.

x0 ~ N(M, C) on R^2, dX = -X beta/2 dt + sqrt(beta) dB with beta constant, so that
X_t ~ N(e^{-B/2} M, e^{-B} C + (1 - e^{-B}) I).
"""

import jax
import jax.numpy as jnp

from gmjax.processes.diffusions import diffusion_process
from gmjax.processes.schedules import constant
from gmjax.spaces.euclidean import euclidean
from gmjax.types import Distribution

MEAN = jnp.asarray([0.8, -0.5])
COVARIANCE = jnp.asarray([[0.5, 0.3], [0.3, 0.4]])
SPEED = 8.0


def normal_log_prob(x, mean, covariance):
    gap = x - mean
    quad = gap @ jnp.linalg.solve(covariance, gap)
    return -0.5 * (quad + jnp.linalg.slogdet(2 * jnp.pi * covariance)[1])


def process():
    clock = constant(SPEED).clock
    variance = lambda t: -jnp.expm1(-clock(t))
    center = lambda x0, t: jnp.exp(-0.5 * clock(t)) * x0

    def sample(key, x0, t):
        z = jax.random.normal(key, x0.shape)
        return center(x0, t) + jnp.sqrt(variance(t)) * z

    return diffusion_process(
        euclidean(2),
        lambda x, t: -0.5 * SPEED * x,
        lambda x, t: jnp.sqrt(SPEED),
        lambda t: jnp.sqrt(variance(t)),
        sample,
        lambda x0, x, t: (center(x0, t) - x) / variance(t),
        Distribution(
            lambda key: jax.random.normal(key, (2,)),
            lambda x: normal_log_prob(x, jnp.zeros(2), jnp.eye(2)),
        ),
        lambda x, x0, t: normal_log_prob(x, center(x0, t), variance(t) * jnp.eye(2)),
    )


def moments(t):
    shrink = jnp.exp(-SPEED * t)
    return jnp.sqrt(shrink) * MEAN, shrink * COVARIANCE + (1 - shrink) * jnp.eye(2)


def log_q(x, t):
    return normal_log_prob(x, *moments(t))


def score(x, t):
    return jax.grad(log_q)(x, t)


def predict(x, t, cond=None):
    """The network whose score is exact: std times the score."""
    std = lambda t: jnp.sqrt(-jnp.expm1(-SPEED * t))
    return jax.vmap(lambda x, t: std(t) * score(x, t))(x, t)


def data(key, n):
    z = jax.random.normal(key, (n, 2))
    return MEAN + z @ jnp.linalg.cholesky(COVARIANCE).T
