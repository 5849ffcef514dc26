"""Importance-weighted likelihoods: exact for linear decoders, and against quadrature for others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from gmjax.classical import laplace


@pytest.mark.slow
def test_a_linear_decoder_needs_one_draw():
    rng = np.random.default_rng(0)
    w, b, m, x = rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=3), rng.normal(size=5)
    c = np.cov(rng.normal(size=(3, 9)))
    exact = multivariate_normal(w @ m + b, w @ c @ w.T + 0.2 * np.eye(5)).logpdf(x)
    for guess in (np.zeros(3), 5 * np.ones(3)):
        found = laplace.log_likelihood(
            jax.random.key(0), *map(jnp.asarray, (x, guess)), lambda z: w @ z + b,
            *map(jnp.asarray, (m, c, 0.2)), 1,
        )  # fmt: skip
        np.testing.assert_allclose(found, exact, rtol=1e-10)


def test_the_mean_weight_is_the_likelihood_of_a_curved_decoder():
    decode = lambda z: jnp.stack([z[0], jnp.sin(z[0]), 0.3 * z[0] ** 2])
    x, noise, c = jnp.asarray([0.7, 0.5, 0.3]), 0.1, 1.5
    z = np.linspace(-12, 12, 20_001)
    law = np.exp(-0.5 * z**2 / c) / np.sqrt(2 * np.pi * c)
    rest = np.asarray(x)[:, None] - np.asarray(decode(jnp.asarray(z)[None]))
    law = law * np.exp(-0.5 * (rest**2).sum(0) / noise) / (2 * np.pi * noise) ** 1.5
    exact = law.sum() * (z[1] - z[0])
    one = lambda key: laplace.log_likelihood(
        key, x, jnp.asarray([0.6]), decode, jnp.zeros(1), c * jnp.eye(1), jnp.asarray(noise), 4
    )
    weights = np.exp(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 5000)))
    # One z-score, |z| < 4: fails once in 10^4 runs.
    assert abs(weights.mean() - exact) < 4 * weights.std() / np.sqrt(5000)
    assert weights.std() / exact < 0.2
