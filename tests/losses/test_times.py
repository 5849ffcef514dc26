"""Time samplers integrate what they should, and spread as they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.losses import times
from gmjax.processes.schedules import SCHEDULES


@pytest.mark.parametrize("spread", times.SPREADS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_integrals_are_unbiased(name, spread):
    """int_{t_min}^1 beta alpha t dt within four standard errors of 400 batches."""
    schedule = SCHEDULES[name]()
    t_min = 0.01
    f = lambda t: schedule.rate(t) * jnp.exp(-schedule.clock(t)) * (0.2 + t)
    grid = np.linspace(t_min, 1, 400_001)
    truth = np.trapezoid(np.asarray(f(jnp.asarray(grid, jnp.float32)), np.float64), grid)
    for sampler in (
        times.uniform_in_t(t_min, times.SPREADS[spread]),
        times.uniform_in_noise(schedule, t_min, times.SPREADS[spread]),
    ):

        def mean(key, sampler=sampler):
            t, weight = sampler(key, 63)
            return jnp.mean(weight * f(t))

        values = np.asarray(jax.vmap(mean)(jax.random.split(jax.random.key(0), 400)))
        error = values.std() / 20 + 1e-5 * abs(truth)
        assert abs(values.mean() - truth) < 4 * error


def test_stratified_times_fill_every_cell():
    t = np.sort(np.asarray(times.stratified(jax.random.key(0), 32)))
    np.testing.assert_allclose(np.diff(t), 1 / 32, atol=1e-6)
    u = np.asarray(times.antithetic(jax.random.key(0), 7))
    np.testing.assert_allclose(u[:3] + u[4:], 1, atol=1e-6)
