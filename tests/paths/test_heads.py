"""Every head against its definition, and back to data and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.paths import gaussian as paths
from gmjax.paths import heads
from gmjax.types import UserError

X0, EPS = np.random.default_rng(0).normal(size=(2, 4, 3))
T = np.asarray([0.02, 0.3, 0.6, 0.98])


@pytest.mark.parametrize("head", heads.HEADS)
@pytest.mark.parametrize("name", ["vp_cosine", "karras", "linear"])
def test_a_head_gives_data_and_noise_back(name, head):
    with jax.enable_x64(True):
        path, t = paths.PATHS[name](), jnp.asarray(T)
        x = path.alpha(t)[:, None] * X0 + path.sigma(t)[:, None] * EPS
        out = heads.target(head, path, jnp.asarray(X0), jnp.asarray(EPS), t, 0.5)
        x0, eps = heads.denoised(head, path, out, x, t, 0.5)
        np.testing.assert_allclose(x0, X0, atol=1e-9)
        np.testing.assert_allclose(eps, EPS, atol=1e-9)


def test_heads_are_what_they_are_called():
    with jax.enable_x64(True):
        path, t = paths.PATHS["vp_cosine"](), jnp.asarray(T)
        target = lambda head: heads.target(head, path, jnp.asarray(X0), jnp.asarray(EPS), t)
        a, s = path.alpha(t)[:, None], path.sigma(t)[:, None]
        np.testing.assert_allclose(target("v"), a * EPS - s * X0, atol=1e-12)
        np.testing.assert_allclose(target("score"), -EPS / s, atol=1e-9)
        moved = lambda t: path.alpha(t)[:, None] * X0 + path.sigma(t)[:, None] * EPS
        slope = (moved(t + 1e-6) - moved(t - 1e-6)) / 2e-6
        np.testing.assert_allclose(target("velocity"), slope, rtol=1e-5, atol=1e-6)
        # On a variance-preserving path and data of variance one the edm head is -v.
        np.testing.assert_allclose(target("edm"), -target("v"), atol=1e-10)


def test_the_edm_head_is_the_published_preconditioning():
    """x0 = c_skip x + c_out F with the c of Karras et al. (2022), table 1."""
    with jax.enable_x64(True):
        path, t, std = paths.PATHS["karras"](), jnp.asarray(T), 0.5
        s = path.sigma(t)[:, None]
        x, out = X0 + s * EPS, jnp.asarray(EPS[::-1])
        skip, scale = std**2 / (s**2 + std**2), s * std / np.sqrt(s**2 + std**2)
        x0, _ = heads.denoised("edm", path, out, x, t, std)
        np.testing.assert_allclose(x0, skip * x + scale * out, atol=1e-9)
        # Its target has variance one, whatever the noise, for data of that deviation.
        p, q = heads.coefficients("edm", path, t, std)
        np.testing.assert_allclose((p * std) ** 2 + q**2, 1, atol=1e-12)


def test_converting_there_and_back():
    with jax.enable_x64(True):
        path, t = paths.PATHS["linear"](), jnp.asarray(T)
        there = heads.convert(path, jnp.asarray(EPS), jnp.asarray(X0), t, "velocity", "score")
        back = heads.convert(path, there, jnp.asarray(X0), t, "score", "velocity")
        np.testing.assert_allclose(back, EPS, atol=1e-9)


def test_an_unknown_head_is_named():
    with pytest.raises(UserError, match="config.loss.head='nope' is unknown; valid: edm, eps"):
        heads.coefficients("nope", paths.linear(), jnp.ones(1))


def test_noise_says_nothing_of_data_where_there_are_none():
    path, x = paths.PATHS["linear"](), jnp.asarray([[0.5, -2.0]])
    x0, eps = heads.denoised("eps", path, x, x, jnp.ones(1))
    np.testing.assert_allclose(x0, 0)
    np.testing.assert_allclose(eps, x)
