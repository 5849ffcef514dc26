"""Grids of a Gaussian path: ends, spacing, and the theory's step sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.paths.gaussian import PATHS, from_log_snr, log_snr, variance_preserving
from gmjax.processes.schedules import constant
from gmjax.samplers.grids import PATH_GRIDS, path_grid
from gmjax.types import UserError


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", PATH_GRIDS)
def test_grids_fall_between_exact_ends(name, path):
    path = PATHS[path]()
    for steps, t_min in ((10, 0.0), (20, 1e-3)):
        times = path_grid(name, steps, path, t_min)
        assert times.shape == (steps + 1,) and (np.diff(times) < 0).all()
        assert float(times[0]) == 1.0 and float(times[-1]) == np.float32(t_min)


def test_spacing_is_what_the_name_says():
    path = PATHS["vp_linear"]()
    with jax.enable_x64(True):
        equal = lambda a: np.testing.assert_allclose(np.diff(a), np.diff(a).mean(), rtol=1e-6)
        grid = lambda name, **own: path_grid(name, 12, path, 1e-3, 0.9, **own)
        equal(grid("uniform"))
        equal(jnp.sqrt(grid("quadratic")))
        equal(log_snr(path, grid("log_snr")))
        times = grid("karras", power=5.0)
        equal((path.sigma(times) / path.alpha(times)) ** 0.2)


def test_karras_is_the_published_grid():
    with jax.enable_x64(True):
        path, n, i = PATHS["karras"](), 18, np.arange(18)
        want = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        np.testing.assert_allclose(path.sigma(path_grid("karras", n - 1, path)), want, rtol=1e-9)


@pytest.mark.parametrize("steps", [40, 400])
def test_exponential_decay_is_the_theorys(steps):
    """The published t_k, and g_k <= kappa min(1, T - t_{k+1}) with kappa of its stated order."""
    last, delta = 5.0, 1e-3
    with jax.enable_x64(True):
        path = variance_preserving(constant(2 * last))  # alpha = e^{-T t}
        times = path_grid("exponential_decay", steps, path, delta / last)
        k = np.arange(steps + 1)
        reverse = np.where(
            k <= steps // 2,
            2 * (last - 1) * k / steps,
            last - delta ** ((2 * k - steps) / steps),
        )
        np.testing.assert_allclose(last - last * np.asarray(times), reverse, atol=1e-9)
        kappa = (np.diff(reverse) / np.minimum(1, last - reverse[1:])).max()
        assert kappa < 3 * (last + np.log(1 / delta)) / steps


def test_short_paths_only_decay():
    path = variance_preserving(constant(1.0))  # T = 1 / 2
    with jax.enable_x64(True):
        times = np.asarray(path_grid("exponential_decay", 8, path, 1e-3))
        np.testing.assert_allclose(times[1:] / times[:-1], 1e-3 ** (1 / 8), rtol=1e-8)


def test_discrete_spacings():
    path = PATHS["ddpm"]()
    at = lambda spacing: np.round(
        np.asarray(path_grid("discrete", 4, path, spacing=spacing)) * 1000
    )
    np.testing.assert_array_equal(at("trailing"), [1000, 750, 500, 250, 0])
    np.testing.assert_array_equal(at("leading"), [751, 501, 251, 1, 0])
    np.testing.assert_array_equal(at("linspace"), [1000, 667, 334, 1, 0])


RISING = from_log_snr(lambda t: 10 * t - 5, lambda snr: (snr + 5) / 10)


@pytest.mark.parametrize(
    "args, own, text",
    [
        (("uniform", 10, RISING), {}, "signal-to-noise ratio must rise along the 10 steps"),
        (("uniform", 0, PATHS["linear"]()), {}, "config.sample.steps=0 must be a positive integer"),
        (("uniform", 2.5, PATHS["linear"]()), {}, "config.sample.steps=2.5 must be a positive"),
        (("no", 2, PATHS["linear"]()), {}, "config.sample.grid='no' is unknown; valid: discrete"),
        (("uniform", 2, PATHS["linear"]()), {"t_min": 1.0}, "t_min=1.0 and config.sample.t_max"),
        (("karras", 2, PATHS["linear"]()), {"power": 0.0}, "config.sample.power=0.0 must be pos"),
        (("discrete", 1001, PATHS["ddpm"]()), {}, "config.sample.steps=1001 must be at most 1000"),
        (("discrete", 10, PATHS["ddpm"]()), {"spacing": "x"}, "config.sample.spacing='x' is unkn"),
        (
            ("discrete", 1, PATHS["ddpm"]()),
            {"spacing": "leading"},
            "steps=1: .*'leading'.*trailing",
        ),
        (
            ("no", 2, PATHS["linear"]()),
            {"key": "config.evaluate.grid"},
            "config.evaluate.grid='no'",
        ),
    ],
)
def test_bad_input_is_named(args, own, text):
    with pytest.raises(UserError, match=text):
        path_grid(*args, **own)


def test_a_grid_is_made_inside_a_compiled_function():
    path = PATHS["vp_cosine"]()
    got = jax.jit(lambda x: x * path_grid("log_snr", 5, path))(1.0)
    np.testing.assert_allclose(got, path_grid("log_snr", 5, path), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_discrete_levels_above_the_end(spacing):
    """Every spacing falls and stays above t_min, also where the first levels lie below it."""
    path = PATHS["vp_cosine"]()
    for steps in (50, 334, 500, 997):
        times = path_grid("discrete", steps, path, 3e-3, spacing=spacing)
        assert len(times) == steps + 1 and (np.diff(times) < 0).all()
    with pytest.raises(UserError, match="must be at most 997"):
        path_grid("discrete", 998, path, 3e-3, spacing=spacing)
