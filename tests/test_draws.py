"""Draws by inverse CDF against the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gmjax import draws


@pytest.mark.parametrize("k", [1, 2, 3, 17, 129, 256])
def test_categorical_is_the_inverse_cdf(k):
    rng = np.random.default_rng(k)
    w = rng.gamma(0.3, size=(500, k)).astype(np.float32)
    u = rng.uniform(size=500).astype(np.float32)
    cdf = np.cumsum(w.astype(np.float64), -1)
    expected = (cdf <= (u * cdf[:, -1])[:, None]).sum(-1)
    # A draw within float32 rounding of a boundary may fall to either side.
    edge = np.abs(cdf / cdf[:, -1:] - u[:, None]).min(-1) < 1e-6
    np.testing.assert_array_equal(np.asarray(draws.categorical(u, w))[~edge], expected[~edge])
    assert edge.mean() < 0.01


def test_categorical_never_takes_an_impossible_value():
    w = np.zeros((1000, 20), np.float32)
    w[:, [3, 11]] = [1.0, 2.0]
    u = np.concatenate([[0.0, np.float32(1 - 2**-24)], np.random.default_rng(0).uniform(size=998)])
    x = np.asarray(draws.categorical(jnp.asarray(u, jnp.float32), jnp.asarray(w)))
    assert set(x) == {3, 11}


@pytest.mark.parametrize("rate", [0.0, 1e-3, 0.4, 3.0, 40.0, 300.0])
def test_poisson_is_the_inverse_cdf(rate):
    u = np.linspace(1e-3, 1 - 1e-3, 999).astype(np.float32)
    expected = scipy.stats.poisson.ppf(u, rate) if rate else np.zeros(999)
    n = np.asarray(jax.jit(draws.poisson)(u, jnp.full(999, rate, jnp.float32)))
    assert np.mean(n != expected) < 0.005  # rounding at the boundaries
    assert np.abs(n - expected).max() <= 1
    assert n[0] == expected[0] and draws.poisson(jnp.zeros(1), jnp.full(1, rate))[0] <= expected[0]


def test_poisson_ends_at_the_largest_uniform_number():
    u = jnp.full(3, 1 - 2**-24, jnp.float32)
    n = draws.poisson(u, jnp.asarray([0.0, 1.0, 100.0]))
    assert n[0] <= 16 and n[1] <= 40 and n[2] <= 250
