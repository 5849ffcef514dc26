"""Interpolants against finite differences, closed-form marginals and the continuity equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.paths import heads, interpolants
from gmjax.types import UserError

ALL = {name: form() for name, form in interpolants.INTERPOLANTS.items()}
TIMES = np.concatenate([np.linspace(0.03, 0.47, 9), np.linspace(0.53, 0.97, 9)])
KEY = jax.random.key(0)

# Data: two components; source: another two. Weights, means, variances.
DATA = (np.array([0.3, 0.7]), np.array([-1.0, 0.8]), np.array([0.04, 0.16]))
SOURCE = (np.array([0.6, 0.4]), np.array([0.5, -2.0]), np.array([0.3, 0.1]))


def exact(interpolant, x, t):
    """Marginal density, velocity, E[alpha' X0 + beta' X1 | x] and E[Z | x], in closed form.

    Given both components everything is Gaussian and linear in (X0, X1, Z).
    """
    a, b, g, da, db, dg = interpolants.coefficients(interpolant, t)
    w = (DATA[0][:, None] * SOURCE[0]).reshape(-1)
    mean0, var0 = (np.repeat(v, 2) for v in DATA[1:])
    mean1, var1 = (np.tile(v, 2) for v in SOURCE[1:])
    variance = a**2 * var0 + b**2 * var1 + g**2
    off = x - a * mean0 - b * mean1
    p = w * jnp.exp(-0.5 * off**2 / variance) / jnp.sqrt(2 * jnp.pi * variance)
    over = off / variance
    drift = da * (mean0 + a * var0 * over) + db * (mean1 + b * var1 * over)
    total = jnp.sum(p)
    drift, eta = jnp.sum(p * drift) / total, jnp.sum(p * g * over) / total
    return total, drift + dg * eta, drift, eta


def draw(law, rng, n):
    k = rng.choice(len(law[0]), n, p=law[0])
    return jnp.asarray(law[1][k] + np.sqrt(law[2][k]) * rng.normal(size=n))


def test_every_interpolant_has_its_keys():
    assert set(interpolants.KEYS) == set(interpolants.INTERPOLANTS)
    for name, keys in interpolants.KEYS.items():
        built = interpolants.build({"name": name, **keys, "radius_of_another": None})
        assert float(built.alpha(jnp.asarray(0.3))) == float(ALL[name].alpha(jnp.asarray(0.3)))


@pytest.mark.parametrize("name", ALL)
def test_it_goes_from_data_to_source(name):
    a, b, g, *_ = interpolants.coefficients(ALL[name], jnp.asarray([0.0, 1.0]))
    ends = {"vp_linear": 0.01, "vp_cosine": 0.02, "log_snr_linear": 0.09, "regular_bridge": 0.21}
    slack = ends.get(name, 2e-6)
    np.testing.assert_allclose(a, [1, 0], atol=slack)
    np.testing.assert_allclose(b, [0, 1], atol=slack)
    np.testing.assert_allclose(g, 0, atol=slack)


@pytest.mark.parametrize("name", ALL)
def test_the_target_is_the_derivative_of_the_path(name):
    """With the same Z, by central differences in float64."""
    with jax.enable_x64(True):
        path = interpolants.path(ALL[name], (3,))
        x0, x1 = jax.random.normal(KEY, (2, 3), float)
        at = jax.jit(jax.vmap(lambda t: path.draw(KEY, x0, x1, t)))
        h, t = 1e-6, jnp.asarray(TIMES)
        slope = (at(t + h)[0] - at(t - h)[0]) / (2 * h)
        np.testing.assert_allclose(at(t)[1], slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ALL)
def test_the_continuity_equation(name):
    """dp/dt + d(v p)/dx = 0 for the marginal velocity, in closed form."""
    with jax.enable_x64(True):
        f = ALL[name]
        density = lambda x, t: exact(f, x, t)[0]
        current = lambda x, t: density(x, t) * exact(f, x, t)[1]
        x, t = (v.reshape(-1) for v in jnp.meshgrid(jnp.linspace(-2, 2, 9), jnp.asarray(TIMES)))
        both = lambda x, t: (jax.grad(density, 1)(x, t), jax.grad(current)(x, t))
        change, spread = jax.jit(jax.vmap(both))(x, t)
        np.testing.assert_allclose(change, -spread, atol=1e-8 * float(jnp.abs(change).max()))


@pytest.mark.parametrize("name", ["linear", "bridge", "encode_decode", "regular_bridge"])
def test_the_conditional_mean_of_the_target_is_the_marginal_velocity(name):
    """E[target f(X_t)] = E[v(X_t) f(X_t)] for seven f at three times: |z| < 4.5.

    The chance that a right code fails is 7e-6 a check, 42 checks at most a run.
    """
    n, rng = 50_000, np.random.default_rng(0)
    f, latent = ALL[name], ALL[name].gamma is not None
    path = interpolants.path(f, (1,), "parts" if latent else "velocity")
    x0, x1 = (draw(law, rng, n)[:, None].astype(jnp.float32) for law in (DATA, SOURCE))
    tests = [jnp.ones_like, jnp.sin, jnp.cos, jnp.tanh, lambda x: x, lambda x: jnp.exp(-(x**2))]
    tests.append(lambda x: jnp.sin(5 * x))
    for t in (0.1, 0.4, 0.8):
        keys = jax.random.split(KEY, n)
        x, target = jax.vmap(path.draw, (0, 0, 0, None))(keys, x0, x1, jnp.asarray(t))
        _, v, drift, eta = jax.vmap(lambda x, t=t: exact(f, x, jnp.asarray(t)))(x[:, 0])
        for want, got in zip(((drift, eta) if latent else (v,)), target.T, strict=True):
            for g in tests:
                off = np.asarray((got - want) * g(x[:, 0]), np.float64)
                assert abs(off.mean()) < 4.5 * off.std() / n**0.5 + 1e-6


@pytest.mark.parametrize("head", heads.HEADS)
@pytest.mark.parametrize("name", ["linear", "trigonometric", "vp_linear"])
def test_every_head_is_turned_into_the_velocity(name, head):
    path = interpolants.path(ALL[name], (2,), head, data_std=0.5)
    plain = interpolants.path(ALL[name], (2,))
    x0, x1 = jax.random.normal(KEY, (2, 2))
    for t in jnp.asarray([0.1, 0.5, 0.9]):
        x, out = path.draw(KEY, x0, x1, t)
        _, v = plain.draw(KEY, x0, x1, t)
        np.testing.assert_allclose(path.velocity(out, x, t), v, rtol=2e-4, atol=2e-4)


def test_velocity_and_denoiser_give_both_ends_and_the_score():
    f = ALL["bridge"]
    path = interpolants.path(f, (2,), "parts")
    x0, x1 = jax.random.normal(KEY, (2, 2))
    t = jnp.asarray(0.3)
    x, target = path.draw(KEY, x0, x1, t)
    eta = target[2:]
    found = interpolants.ends(f, path.velocity(target, x, t), eta, x, t)
    np.testing.assert_allclose(found[0], x0, atol=1e-5)
    np.testing.assert_allclose(found[1], x1, atol=1e-5)
    score = interpolants.score(f, eta, t)
    np.testing.assert_allclose(score, -(x - 0.7 * x0 - 0.3 * x1) / 0.21, rtol=1e-4)
    halves = interpolants.ends(ALL["encode_decode"], x, x, x, t)
    assert np.isfinite(halves).all()


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_infinite_at_the_ends(name):
    path = interpolants.path(ALL[name], (2,))
    x0, x1 = jax.random.normal(KEY, (2, 2))
    for t in jnp.asarray([0.0, 1.0]):
        found = jax.jacfwd(lambda t: path.draw(KEY, x0, x1, t))(t)
        assert np.isfinite(jax.tree.leaves((path.draw(KEY, x0, x1, t), found))).all()


@pytest.mark.parametrize(
    "name, head, message",
    [
        ("linear", "parts", "config.loss.head='parts' needs a path with gamma"),
        ("bridge", "x0", "config.loss.head='x0' with gamma; valid: velocity, parts"),
        ("linear", "speed", "config.loss.head='speed' is unknown"),
    ],
)
def test_a_head_that_does_not_fit_is_named(name, head, message):
    with pytest.raises(UserError, match=message):
        interpolants.path(ALL[name], (2,), head)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"name": "straight"}, "config.path.name='straight' is unknown; valid: bridge"),
        ({"name": "bridge", "strength": 0.0}, "config.path.strength=0.0 must exceed 0"),
        ({"name": "regular_bridge", "delta": -1.0}, "config.path.delta=-1.0 must exceed 0"),
    ],
)
def test_mistakes_are_named(config, message):
    with pytest.raises(UserError, match=message):
        interpolants.build(config)
