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


@pytest.mark.parametrize("alpha_min", [1e-8, 1e-4, 0.1])
def test_the_cosine_keeps_its_digits_at_both_ends(alpha_min):
    """In single precision, against double: alpha(1) = alpha_min, and B ~ (w t)^2 at small t."""
    s, t = SCHEDULES["cosine"](alpha_min), np.array([1e-4, 0.3, 0.5, 0.9, 1.0])
    w = np.arccos(np.sqrt(alpha_min))
    # At the end an angle's rounding, 6e-8 of pi / 2, is over the angle left.
    near = 1e-5 + 4e-7 / np.sqrt(alpha_min)
    want = np.where(t < 0.1, -np.log1p(-(np.sin(w * t) ** 2)), -2 * np.log(np.cos(w * t)))
    clock = jax.vmap(jax.value_and_grad(s.clock))(jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(clock[0], want, rtol=near)
    np.testing.assert_allclose(clock[1], 2 * w * np.tan(w * t), rtol=near)


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
