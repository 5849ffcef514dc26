"""The probability flow's likelihood against the exact Gaussian."""

import gaussians
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.likelihoods import flow
from gmjax.samplers import grids
from gmjax.types import UserError

KEY = jax.random.key(0)
PROCESS = gaussians.process()
T_MIN = 1e-2


def log_prob(steps, probes=0, n=64, law="rademacher"):
    times = jnp.linspace(1.0, T_MIN, steps + 1)
    run = jax.jit(flow.log_likelihood(PROCESS, times, probes, law), static_argnums=0)
    return run(gaussians.predict, KEY, gaussians.data(KEY, n), None)


@pytest.mark.slow
def test_the_flow_gives_the_exact_log_density():
    """Up to KL(q_1 || base), which the shift e^{-4} of the mean makes 1e-3 at most a point."""
    x = gaussians.data(KEY, 64)
    exact = jax.vmap(lambda x: gaussians.log_q(x, jnp.asarray(T_MIN)))(x)
    np.testing.assert_allclose(log_prob(40), exact, atol=0.06)
    assert abs(float(jnp.mean(log_prob(40) - exact))) < 5e-3


def test_the_error_falls_as_the_fourth_power_of_the_step():
    best = log_prob(192, n=16)
    errors = [float(jnp.max(jnp.abs(log_prob(s, n=16) - best))) for s in (32, 64)]
    assert errors[0] / errors[1] > 8, errors


@pytest.mark.slow
@pytest.mark.parametrize("law", flow.PROBES)
def test_hutchinsons_estimate_is_unbiased(law):
    exact = log_prob(16, n=16)
    rough = log_prob(16, probes=512, n=16, law=law)
    # A normal probe of the divergence has variance |v + v^T|^2 / 2, about 10 over the path, and
    # one of signs less, by what the diagonal has of it.
    assert float(jnp.max(jnp.abs(rough - exact))) < 4.5 * np.sqrt(10 / 512)


@pytest.mark.slow
def test_it_is_differentiable():
    times = grids.uniform(8, T_MIN)
    run = flow.log_likelihood(PROCESS, times)
    x = gaussians.data(KEY, 4)

    def mean(a):
        return jnp.mean(run(lambda x, t, c: a * gaussians.predict(x, t), KEY, x, None))

    slope = jax.jit(jax.grad(mean))(1.1)
    h = 1e-2
    np.testing.assert_allclose(slope, (mean(1.1 + h) - mean(1.1 - h)) / (2 * h), rtol=2e-2)


def test_an_unknown_law_is_named():
    with pytest.raises(UserError, match="config.evaluate.probe='sign' is unknown"):
        flow.log_likelihood(PROCESS, grids.uniform(4, T_MIN), 1, "sign")


def test_without_a_flow_it_says_so():
    with pytest.raises(ValueError, match="no probability flow"):
        flow.log_likelihood(PROCESS._replace(velocity=None), grids.uniform(4, T_MIN))
