"""Paths against published formulas, the processes they stand for, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.paths import gaussian as paths
from gmjax.paths import learned
from gmjax.processes import gaussian, schedules
from gmjax.types import UserError

TIMES = np.linspace(0.01, 0.99, 25)
ALL = {name: form() for name, form in paths.PATHS.items()}


def test_every_path_has_its_keys():
    assert set(paths.KEYS) == set(paths.PATHS)
    for name, keys in paths.KEYS.items():
        path, t = paths.PATHS[name](**keys), jnp.asarray(0.3)
        assert float(path.sigma(t)) == float(ALL[name].sigma(t))


@pytest.mark.parametrize("name", ALL)
def test_log_snr_falls_and_its_inverse_inverts_it(name):
    with jax.enable_x64(True):
        t = jnp.asarray(TIMES)
        snr = paths.log_snr(ALL[name], t)
        assert (np.diff(snr) < 0).all()
        np.testing.assert_allclose(ALL[name].inverse(snr), t, atol=1e-9)


@pytest.mark.parametrize(
    "name", ["vp_linear", "vp_cosine", "trigonometric", "log_snr_linear", "ddpm"]
)
def test_variance_is_preserved(name):
    with jax.enable_x64(True):
        t = jnp.asarray(TIMES)
        np.testing.assert_allclose(ALL[name].alpha(t) ** 2 + ALL[name].sigma(t) ** 2, 1, atol=1e-12)


def test_ddpm_is_the_published_schedule():
    betas = np.linspace(1e-4, 0.02, 1000)
    with jax.enable_x64(True):
        t = jnp.arange(1, 1001) / 1000
        np.testing.assert_allclose(ALL["ddpm"].alpha(t) ** 2, np.cumprod(1 - betas), rtol=1e-10)
    # Ho et al. (2020): sqrt(alpha_bar_T) is about .006.
    assert 0.0063 < float(ALL["ddpm"].alpha(jnp.ones(()))) < 0.0064


def test_karras_is_the_published_grid():
    i, n = np.arange(18), 18
    want = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(ALL["karras"].sigma(1 - i / (n - 1.0)), want, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_the_process_of_a_path_has_its_marginals(name):
    """Mean and variance of dX = f X dt + g dB: m' = f m and V' = 2 f V + g^2, along the path."""
    with jax.enable_x64(True):
        process = paths.process(ALL[name], (1,))
        x = jnp.ones(1)
        for t in (0.1003, 0.3503, 0.7003):  # off the knots of the discrete schedule
            t, h = jnp.asarray(t), 1e-6
            a, s, da, ds = paths.slopes(ALL[name], t)
            # f from the generator of x, g^2 from its square's: L x = f x, L x^2 = 2 f x^2 + g^2.
            f = process.generator.apply(lambda x: x[0], x, t)
            g2 = process.generator.apply(lambda x: x[0] ** 2, x, t) - 2 * f
            mean = (ALL[name].alpha(t + h) - ALL[name].alpha(t - h)) / (2 * h)
            variance = (ALL[name].sigma(t + h) ** 2 - ALL[name].sigma(t - h) ** 2) / (2 * h)
            np.testing.assert_allclose(f * a, mean, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(2 * f * s**2 + g2, variance, rtol=1e-5, atol=1e-7)


def test_the_vp_path_is_the_vp_process():
    clock = schedules.linear(0.1, 20.0)
    ours = paths.process(paths.variance_preserving(clock), (3,))
    theirs = gaussian.vp(clock, (3,))
    x0, x, t = jnp.asarray([1.0, -2, 0.5]), jnp.asarray([0.3, 0.1, -1]), jnp.asarray(0.4)
    np.testing.assert_allclose(ours.target(x0, x, t), theirs.target(x0, x, t), rtol=1e-5)
    score = lambda x, t: -x
    np.testing.assert_allclose(ours.velocity(score)(x, t), theirs.velocity(score)(x, t), atol=2e-5)
    np.testing.assert_allclose(ours.base.log_prob(x), theirs.base.log_prob(x), atol=1e-5)


@pytest.mark.parametrize(
    "config, text",
    [
        ({"name": "nope"}, "config.path.name='nope' is unknown; valid: ddpm"),
        ({"name": "karras", "low": 90.0}, "config.path.high=80.0 must exceed config.path.low=90.0"),
        ({"name": "karras", "power": 0.0}, "config.path.power=0.0 must exceed 0"),
        ({"name": "ddpm", "steps": 0}, "config.path.steps=0 must be at least 1"),
        ({"name": "ddpm", "end": 1.0}, r"config.path.end=1.0 must lie in \(0, 1\)"),
        ({"name": "log_snr_linear", "low": 20.0}, "config.path.high=13.3 must exceed"),
        ({"name": "variance_exploding", "low": -1.0}, "config.path.low=-1.0 must exceed 0"),
    ],
)
def test_bad_input_is_named(config, text):
    with pytest.raises(UserError, match=text):
        paths.build(config)


def test_keys_of_other_paths_are_ignored():
    path = paths.build({"name": "linear", "steps": 10, "low": None})
    assert float(path.sigma(jnp.asarray(0.25))) == 0.25


@pytest.mark.parametrize("high, low", [(1.5, 0.5), (-5.0, 13.0)])
def test_a_learned_log_snr_falls_wherever_its_ends_are(high, low):
    """Training may bring them together or across; apart they are the ends, with slopes of one."""
    params = learned.init(jax.random.key(0), high, low, units=4)
    t = jnp.linspace(0, 1, 11)
    snr = lambda ends: paths.log_snr(learned.learned({**params, "ends": ends}), t)
    values, slopes = snr(params["ends"]), jax.jacobian(snr)(params["ends"])
    assert np.isfinite(slopes).all()
    if high - low >= 1:
        assert (np.diff(values) < 0).all()
        np.testing.assert_allclose(values[jnp.asarray([0, -1])], [high, low], atol=1e-3)
        np.testing.assert_allclose(slopes[jnp.asarray([0, -1])], np.eye(2), atol=1e-3)
    else:
        assert (np.diff(values) <= 0).all() and values[0] >= values[-1]
