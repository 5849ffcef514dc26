"""Flow matching losses: the couplings in them, straightness by transport, MeanFlow's identity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.losses import flow_matching, meanflow
from gmjax.paths import conditional, couplings, geodesic, interpolants, mixture
from gmjax.samplers import driver
from gmjax.samplers import flow_matching as steppers
from gmjax.spaces.euclidean import euclidean
from gmjax.types import UserError

KEY = jax.random.key(0)
LINEAR = interpolants.path(interpolants.INTERPOLANTS["linear"](), (2,))
TIMES = flow_matching.uniform(0.0, 1.0)


@pytest.mark.parametrize("name", flow_matching.TIMES)
def test_times_stay_in_their_range(name):
    t = np.asarray(flow_matching.TIMES[name](0.1, 0.7)(KEY, 1000))
    assert t.min() >= 0.1 and t.max() <= 0.7 and abs(t.mean() - 0.4) < 0.02
    assert t.std() < 0.18 if name == "uniform" else t.std() < 0.14


def test_the_loss_is_least_at_the_conditional_mean():
    """Data N(m, s^2), noise N(0, 1): v is linear, and its coefficients have zero gradient."""
    m, s, n = 1.5, 0.5, 200_000
    path = interpolants.path(interpolants.INTERPOLANTS["linear"](), (1,))

    def predict(shift):
        def v(x, t, cond):
            var = (1 - t) ** 2 * s**2 + t**2
            slope = (t - (1 - t) * s**2) / var
            out = -m + slope[:, None] * (x - (1 - t)[:, None] * m)
            return out + shift[0] + shift[1] * x + shift[2] * t[:, None]

        return v

    x0 = m + s * jax.random.normal(KEY, (n, 1))
    loss = flow_matching.matching(path, TIMES)
    each = jax.jit(jax.jacfwd(lambda a: loss(predict(a), KEY, x0, None)[0]))
    found = np.asarray(each(jnp.zeros(3)), np.float64)
    assert np.all(np.abs(found.mean(0)) < 4.5 * found.std(0) / n**0.5)


def test_a_source_and_a_users_coupling_are_used():
    x0, x1 = jnp.arange(8.0)[:, None] * jnp.ones(2), -jnp.arange(8.0)[:, None] * jnp.ones(2)
    back = lambda key, x0, x1: jnp.arange(8)[::-1]
    zero = lambda x, t, cond: jnp.zeros_like(x)
    value, _ = flow_matching.matching(LINEAR, TIMES, back)(zero, KEY, x0, {"source": x1})
    np.testing.assert_allclose(value, (x1[::-1] - x0)[:, 0] ** 2, rtol=1e-5)


def test_a_coupling_of_a_wrong_shape_is_named():
    loss = flow_matching.matching(LINEAR, TIMES, lambda key, x0, x1: jnp.zeros((3, 3), int))
    with pytest.raises(UserError, match=r"the coupling gave shape \(3, 3\)"):
        loss(lambda x, t, c: x, KEY, jnp.zeros((4, 2)), None)


def test_products_of_numbers_classes_and_rotations():
    """Every part is noised at one time, and the loss is the sum of the parts'."""
    m = mixture.mixture(3, mixture.power(), "uniform")
    parts = {
        "numeric": LINEAR,
        "classes": mixture.path(m, (4,)),
        "rotation": geodesic.path(*geodesic.SPACES["rotations"]((3, 3), 1.0)),
    }
    path = conditional.product(parts)
    x0 = jax.jit(jax.vmap(path.base.sample))(jax.random.split(KEY, 5))
    zeros = lambda x, t, cond: {n: jnp.zeros((5, *p.output)) for n, p in parts.items()}
    seen = {}

    def predict(x, t, cond):
        seen.update(x)
        return zeros(x, t, cond)

    value = jax.jit(lambda x0: flow_matching.matching(path, TIMES)(predict, KEY, x0, None)[0])(x0)
    assert value.shape == (5,) and np.isfinite(value).all() and set(seen) == set(parts)
    assert seen["classes"].dtype == x0["classes"].dtype
    assert path.velocity is None and path.walk is None  # classes jump, rotations have no noise
    with pytest.raises(UserError, match="config.path.parts"):
        conditional.product({})


def moons(n, rng):
    angle = np.pi * rng.random(n)
    upper = rng.random(n) < 0.5
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    return np.stack([x - 0.5, y - 0.25], -1) + 0.05 * rng.normal(size=(n, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "sinkhorn"])
def test_transport_straightens_the_pairs(name):
    """Batches of 64 moons and noise: mean squared length and crossing of the pairs' lines.

    The variance of the target given x_t, the least loss there is, is estimated by the squared
    difference of the targets of the two nearest x_t of 4096 at one time.
    """
    if name == "sinkhorn":
        pytest.importorskip("ott", reason="ott-jax is not installed")
    rng, n = np.random.default_rng(0), 2048
    x0 = jnp.asarray(moons(n, rng), jnp.float32)
    x1 = jnp.asarray(rng.normal(size=(n, 2)), jnp.float32)

    def crossing(kind):
        couple = couplings.build({"name": kind, "group": 64}, euclidean(2))
        order = jax.jit(couple)(KEY, x0, x1)
        v = x1[order] - x0
        x = x0 + 0.5 * v
        far = jnp.sum((x[:, None] - x) ** 2, -1) + 1e9 * jnp.eye(n)
        near = jnp.argmin(far, -1)
        return float(jnp.mean(jnp.sum((v - v[near]) ** 2, -1)) / 2)

    plain, coupled = crossing("independent"), crossing(name)
    assert coupled < 0.5 * plain, (plain, coupled)


# MeanFlow. Data N(M, S^2) and noise N(0, 1), linear path: the flow maps normal to normal.
M, S = 1.5, 0.5


def scales(t):
    return (1 - t) * M, jnp.sqrt((1 - t) ** 2 * S**2 + t**2)


def velocity(x, t):
    mean, std = scales(t)
    return -M + ((t - (1 - t) * S**2) / std**2)[:, None] * (x - mean[:, None])


def average(x, t, cond):
    """The exact average velocity, (x - flow of x to r) / (t - r); the velocity where r = t."""
    r = cond["until"]
    (mean, std), (to, width) = scales(t), scales(r)
    apart = t - r > 1e-3
    span = jnp.where(apart, t - r, 1.0)[:, None]
    there = to[:, None] + (width / std)[:, None] * (x - mean[:, None])
    return jnp.where(apart[:, None], (x - there) / span, velocity(x, t))


def test_the_exact_average_velocity_satisfies_the_identity():
    with jax.enable_x64(True):
        t = jnp.asarray([0.3, 0.6, 1.0, 1.0, 0.5])
        r = jnp.asarray([0.1, 0.2, 0.0, 0.4, 0.5])
        x = jnp.linspace(-2, 2, 5)[:, None]
        u, target = meanflow.regression(average, x, velocity(x, t), r, t)
        np.testing.assert_allclose(u, target, atol=1e-10)


@pytest.mark.slow
def test_the_exact_average_velocity_has_zero_gradient():
    """In three directions of perturbation, |z| < 4.5, with conditional velocities as targets."""
    n = 200_000
    path = interpolants.path(interpolants.INTERPOLANTS["linear"](), (1,))
    x0 = M + S * jax.random.normal(KEY, (n, 1))

    def perturbed(a):
        def u(x, t, cond):
            more = a[0] + a[1] * x + a[2] * cond["until"][:, None]
            return average(x, t, cond) + more

        return u

    loss = meanflow.mean_flow(path, TIMES, share=0.75, power=0.0)

    def values(a):
        # The target holds no gradient; forward derivatives of it are stopped as well.
        return loss(perturbed(a), KEY, x0, None)[0]

    slopes = np.asarray(
        jax.jit(jax.jacrev(lambda a: values(a).reshape(100, -1).mean(1)))(jnp.zeros(3))
    )
    assert np.all(np.abs(slopes.mean(0)) < 4.5 * slopes.std(0, ddof=1) / 10)
    off = np.asarray(
        jax.jit(jax.jacrev(lambda a: values(a).reshape(100, -1).mean(1)))(jnp.asarray([0.1, 0, 0]))
    )
    assert off.mean(0)[0] > 4.5 * off.std(0, ddof=1)[0] / 10


@pytest.mark.parametrize("steps", [1, 3])
def test_the_exact_average_velocity_samples_in_one_step(steps):
    x = jax.random.normal(KEY, (64, 1))
    grid = jnp.linspace(1.0, 0.0, steps + 1)
    out = driver.reverse(steppers.mean(LINEAR), average, KEY, x, grid)
    np.testing.assert_allclose(out.x, M + S * x, atol=1e-5)
    assert int(out.nfe) == steps


@pytest.mark.parametrize("own", [{"share": 1.5}, {"power": -1.0}])
def test_meanflow_refuses(own):
    with pytest.raises(UserError, match="config.loss"):
        meanflow.mean_flow(LINEAR, TIMES, **own)


def test_an_example_at_a_time_has_its_share_of_spans():
    """Of batches of one, three in four have two times; their average velocity is wrong by far."""
    loss = meanflow.mean_flow(LINEAR, TIMES, share=0.75, power=0.0)
    average = lambda x, t, cond: 1e4 * (t - cond["until"]).reshape(t.shape + (1,) * (x.ndim - 1))
    x0 = jnp.zeros((1, 2))
    wrong = jax.jit(jax.vmap(lambda key: loss(average, key, x0, None)[0][0] > 1e3))
    apart = np.mean(wrong(jax.random.split(jax.random.key(3), 2000)))
    assert abs(apart - 0.75) < 4.5 * np.sqrt(0.75 * 0.25 / 2000) + 0.02
