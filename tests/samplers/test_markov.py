"""Reverse steppers with the exact score of a Gaussian land on the Gaussian."""

import gaussians
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.samplers import driver, markov
from gmjax.types import UserError

KEY = jax.random.key(0)
PROCESS = gaussians.process()
T_MIN = 0.02


def run(name, steps, n=20_000, project=None):
    times = jnp.linspace(1.0, T_MIN, steps + 1)
    x = jax.vmap(PROCESS.base.sample)(jax.random.split(KEY, n))
    stepper = markov.STEPPERS[name](PROCESS)
    go = jax.jit(
        lambda k, x: driver.reverse(stepper, gaussians.predict, k, x, times, project=project)
    )
    return go(jax.random.key(1), x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, steps, nfe, slack", [("walk", 200, 200, 0.02), ("flow", 30, 60, 0.01)]
)
def test_the_samples_have_the_moments_of_the_marginal(name, steps, nfe, slack):
    out = run(name, steps)
    mean, covariance = gaussians.moments(T_MIN)
    # Standard errors: of a mean sqrt(.55 / n) = .0053, of a covariance .55 sqrt(2 / n) = .0055;
    # `slack` is the discretisation's bias, of order dt beta for the walk, squared for the flow.
    np.testing.assert_allclose(out.x.mean(0), mean, atol=4.5 * 0.0053 + slack)
    np.testing.assert_allclose(np.cov(out.x.T), covariance, atol=4.5 * 0.0055 + slack)
    assert int(out.nfe) == nfe


def test_what_is_observed_is_clamped():
    n = 64
    observed = jnp.broadcast_to(jnp.asarray([True, False]), (n, 2))
    values = jnp.full((n, 2), 1.75)
    out = run("walk", 20, n, markov.infill({"observed": observed, "values": values}))
    np.testing.assert_array_equal(out.x[:, 0], 1.75)
    assert np.std(out.x[:, 1]) > 0.1


def test_a_process_without_a_flow_says_so():
    with pytest.raises(UserError, match="config.sample.name='flow'"):
        markov.flow(PROCESS._replace(velocity=None))
