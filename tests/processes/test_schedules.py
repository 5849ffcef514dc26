"""Every schedule: the clock integrates the rate, and its inverse undoes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from gmjax.processes.schedules import SCHEDULES
from gmjax.types import UserError

TIMES = np.array([1e-3, 0.05, 0.3, 0.7, 0.99])


@pytest.mark.parametrize("name", SCHEDULES)
def test_clock_is_the_integral_of_the_rate(name):
    s = SCHEDULES[name]()
    with jax.enable_x64():
        for t in TIMES:
            total, _ = scipy.integrate.quad(lambda u: float(s.rate(jnp.asarray(u))), 0, t)
            np.testing.assert_allclose(float(s.clock(jnp.asarray(t))), total, rtol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_inverse_undoes_the_clock(name):
    s = SCHEDULES[name]()
    t = jnp.asarray(TIMES, jnp.float32)
    np.testing.assert_allclose(s.inverse(s.clock(t)), t, rtol=2e-4)
    assert float(s.clock(jnp.zeros(()))) == 0.0


@pytest.mark.parametrize(
    "name, kwargs",
    [
        ("constant", {"rate": 0.0}),
        ("linear", {"start": -1.0}),
        ("cosine", {"alpha_min": 1.0}),
        ("geometric", {"b": 1.0}),
        ("log_linear", {"alpha_min": 0.0}),
    ],
)
def test_bad_settings_are_named(name, kwargs):
    with pytest.raises(UserError, match=next(iter(kwargs))):
        SCHEDULES[name](**kwargs)
