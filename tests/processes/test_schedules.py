"""Every schedule: the clock integrates the rate, and its inverse undoes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from gmjax.processes.schedules import SCHEDULES
from gmjax.samplers import grids
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
        ("log_linear", {"alpha_min": 1e-9}),
        ("cosine", {"alpha_min": 1e-12}),
        ("constant", {"rate": np.inf}),
        ("constant", {"rate": 1e30}),
        ("linear", {"end": np.nan}),
        ("geometric", {"a": 1e-9}),
        ("geometric", {"b": np.inf}),
    ],
)
def test_bad_settings_are_named(name, kwargs):
    with pytest.raises(UserError, match=next(iter(kwargs))):
        SCHEDULES[name](**kwargs)


EXTREMES = [
    ("constant", {"rate": 1e-6}),
    ("constant", {"rate": 1e6}),
    ("linear", {"start": 1e-6, "end": 1e6}),
    ("linear", {"start": 1e6, "end": 1e-6}),
    ("cosine", {"alpha_min": 1e-8}),
    ("geometric", {"a": 1e6, "b": 1e6}),
    ("geometric", {"a": 1e-6, "b": 1.001}),
    ("log_linear", {"alpha_min": 1e-8}),
    ("log_linear", {"alpha_min": 0.999}),
]


@pytest.mark.parametrize("name, kwargs", EXTREMES)
def test_what_is_accepted_has_a_finite_clock_and_grids_that_fall(name, kwargs):
    s, t = SCHEDULES[name](**kwargs), jnp.asarray([1e-4, 1e-3, 0.5, 0.9, 1.0])
    for f in (s.clock, s.rate):
        assert np.all(np.isfinite(f(t))) and np.all(f(t) > 0)
    assert np.all(np.diff(s.clock(t)) >= 0)
    for grid in grids.GRIDS:
        try:
            times = grids.build(grid, 8, 1e-3, s)
        except UserError as error:
            assert "equal in single precision" in str(error)
        else:
            assert np.all(np.diff(times) < 0) and times[0] == 1 and times[-1] == np.float32(1e-3)


def test_a_small_alpha_min_keeps_its_clock():
    s = SCHEDULES["log_linear"](1e-8)
    np.testing.assert_allclose(s.clock(jnp.ones(())), -np.log(1e-8), rtol=1e-6)
    assert np.all(np.diff(grids.build("clock", 64, 1e-3, s)) < 0)
