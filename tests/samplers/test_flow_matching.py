"""Samplers of flows with exact velocities and posteriors land on the data's law."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gmjax.paths import conditional, geodesic, interpolants, mixture
from gmjax.samplers import driver
from gmjax.samplers import flow_matching as steppers
from gmjax.samplers.guidance import classifier_free
from gmjax.spaces import calculus
from gmjax.types import UserError

KEY = jax.random.key(0)


def load(name):
    """A neighbour's test file, for its oracle."""
    path = Path(__file__).parents[1] / name
    spec = importlib.util.spec_from_file_location(path.stem + "_oracle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LINES, TINY = load("paths/test_interpolants.py"), load("paths/test_mixture.py")
COUNT = 20_000


def line(name, head):
    """The path and its exact network, for the mixtures on a line."""
    f = LINES.ALL[name]
    path = interpolants.path(f, (1,), head)

    def predict(x, t, cond):
        def one(x, t):
            _, v, drift, eta = LINES.exact(f, x[0], t)
            return jnp.stack([drift, eta]) if head == "parts" else v[None]

        return jax.vmap(one)(x, t)

    return path, predict


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, stepper, steps",
    [
        ("linear", steppers.euler, 400),
        ("linear", steppers.midpoint, 40),
        ("bridge", steppers.midpoint, 80),
        ("bridge", steppers.sde, 800),
        ("encode_decode", steppers.midpoint, 80),
        ("smooth_bridge", lambda path: steppers.sde(path, 0.3), 800),
    ],
)
def test_a_source_set_is_carried_to_the_data(name, stepper, steps):
    """Kolmogorov and Smirnov at level 1e-3; what is left of the path's noise is convolved."""
    head = "velocity" if name == "linear" else "parts"
    path, predict = line(name, head)
    low, high = (0.0, 1.0) if head == "velocity" else (1e-3, 1 - 1e-3)
    rng = np.random.default_rng(0)
    x1 = LINES.draw(LINES.SOURCE, rng, COUNT)[:, None].astype(jnp.float32)

    @jax.jit
    def run(key, x1):
        keys = jax.random.split(key, COUNT)
        x = jax.vmap(path.start, (0, 0, None))(keys, x1, high)
        # Small steps at both ends, where the drift of a bridge is steep.
        times = low + (high - low) * (1 + jnp.cos(jnp.pi * jnp.linspace(0, 1, steps + 1))) / 2
        return driver.reverse(stepper(path), predict, key, x, times).x

    x = np.asarray(run(KEY, x1))[:, 0]
    gamma = float(interpolants.coefficients(LINES.ALL[name], jnp.asarray(low))[2])
    w, mean, variance = LINES.DATA
    cdf = lambda q: sum(
        a * scipy.stats.norm.cdf(q, m, np.sqrt(v + gamma**2))
        for a, m, v in zip(w, mean, variance, strict=True)
    )
    assert scipy.stats.kstest(x, cdf).pvalue > 1e-3


@pytest.mark.parametrize("stepper, order", [(steppers.euler, 1), (steppers.midpoint, 2)])
def test_the_order_of_the_rule(stepper, order):
    path, predict = line("linear", "velocity")
    with jax.enable_x64(True):
        x = jnp.linspace(-2.0, 1.0, 33)[:, None]

        def end(steps):
            times = jnp.linspace(1.0, 0.3, steps + 1)
            return jax.jit(lambda x: driver.reverse(stepper(path), predict, KEY, x, times).x)(x)

        best = end(2048)
        errors = [float(jnp.sqrt(jnp.mean((end(n) - best) ** 2))) for n in (64, 256)]
    assert abs(np.log2(errors[0] / errors[1]) / 2 - order) < 0.2, errors


def test_gaussian_noise_as_source_needs_no_second_head():
    """N(0, 1) to N(m, s^2) by the stochastic sampler with the velocity alone."""
    m, s = 1.5, 0.5
    path = interpolants.path(LINES.ALL["linear"], (1,))

    def predict(x, t, cond):
        t = t[:, None]
        slope = (t - (1 - t) * s**2) / ((1 - t) ** 2 * s**2 + t**2)
        return -m + slope * (x - (1 - t) * m)

    x = jax.random.normal(KEY, (COUNT, 1))
    run = jax.jit(
        lambda x: driver.reverse(steppers.sde(path), predict, KEY, x, jnp.linspace(1, 0, 401)).x
    )
    x = np.asarray(run(x))
    # Standard errors .0035 and .0025, and a bias of order 1 / 400.
    assert abs(x.mean() - m) < 4.5 * 0.0035 + 5e-3 and abs(x.std() - s) < 4.5 * 0.0025 + 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sphere", "torus", "rotations", "hyperbolic"])
def test_a_closed_form_field_lands_on_the_data(name):
    """One datum: the marginal velocity is log_x(x0) / -t, and every sample ends at it."""
    shape = {"sphere": (3,), "torus": (2,), "rotations": (3, 3), "hyperbolic": (3,)}[name]
    space, base = geodesic.SPACES[name](shape, 1.0)
    path = geodesic.path(space, base)
    x0 = base.sample(jax.random.key(3))

    def predict(x, t, cond):
        def one(x, t):
            v = -space.log(x, x0) / t
            return jax.vmap(lambda e: space.inner(x, e, v))(space.frame(x))

        return jax.vmap(one)(x, t)

    x = jax.vmap(base.sample)(jax.random.split(KEY, 64))

    @jax.jit
    def run(x):
        end = driver.reverse(steppers.midpoint(path), predict, KEY, x, jnp.linspace(1, 0.01, 21)).x
        return end, jax.vmap(lambda a: calculus.distance(space, a, x0))(end)

    end, far = run(x)
    start = jax.vmap(lambda a: calculus.distance(space, a, x0))(x)
    # At t = .01 a hundredth of the way is left, and rounding of a distance.
    np.testing.assert_allclose(far, 0.01 * start, atol=6e-3)
    assert space.check(np.asarray(end)) == ""


def chi_square(m, x, law):
    """p-value of the counts of the states x [n, D] under a law of all of them."""
    place = np.array([m.num_states**i for i in reversed(range(TINY.D))])
    seen = np.bincount(np.asarray(x) @ place, minlength=len(law)).astype(float)
    likely = law * len(x) > 5
    seen, law = (np.append(a[likely], a[~likely].sum()) for a in (seen, law * len(x)))
    keep = law > 0
    assert seen[~keep].sum() == 0
    return scipy.stats.chisquare(seen[keep], law[keep] * seen.sum() / law.sum()).pvalue


def masses(m, t):
    p = np.asarray(TINY.marginal(m, t), np.float64)
    return p / p.sum()


def source(m, n=COUNT):
    base = mixture.path(m, (TINY.D,)).base
    return jax.vmap(base.sample)(jax.random.split(KEY, n))


@pytest.mark.slow
@pytest.mark.parametrize("share", TINY.SHARES)
@pytest.mark.parametrize("name, t_min", [("masked", 0.0), ("masked", 0.3), ("uniform", 0.1)])
def test_exact_simulation_has_the_marginal(name, share, t_min):
    m = TINY.world(name, share)
    run = jax.jit(lambda k, x: steppers.exact(m, TINY.network(m), k, x, t_min))
    x, count = run(jax.random.key(1), source(m))
    if (name, t_min) == ("masked", 0.0):
        assert int(count) == TINY.D and int(x.max()) < TINY.V
    assert chi_square(m, x, masses(m, t_min)) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", mixture.SOURCES)
@pytest.mark.parametrize("corrected", [False, True])
def test_euler_and_correctors_have_the_marginal(name, corrected):
    """Many steps to t = .1, level 1e-3; then the last draw gives values and no mask."""
    m = TINY.world(name)
    path = mixture.path(m, (TINY.D,))
    stepper = steppers.corrected(path, m) if corrected else steppers.euler(path)
    finish = steppers.classes(m)

    @jax.jit
    def run(key, x):
        times = jnp.geomspace(1.0, 0.1, 201)
        out = driver.reverse(stepper, TINY.network(m), key, x, times)
        return out, finish(TINY.network(m), key, out.x, jnp.full(len(x), 0.1), None)

    out, end = run(jax.random.key(2), source(m))
    assert int(out.nfe) == 200 * (2 if corrected else 1)
    assert chi_square(m, out.x, masses(m, 0.1)) > 1e-3
    assert int(end.max()) < TINY.V


def test_correctors_keep_the_marginal_where_it_is():
    """From the exact marginal at t = .5, leaps alone stay; forward rates alone would not."""
    m = TINY.world("uniform")
    path, law = mixture.path(m, (TINY.D,)), masses(m, 0.5)
    start = TINY.states(m)[np.random.default_rng(0).choice(len(law), COUNT, p=law)]
    stepper = steppers.corrected(path, m, steps=100, size=50.0)

    @jax.jit
    def run(key, x):
        # A predictor step of no length to speak of, and leaps of 50 times it.
        return driver.reverse(stepper, TINY.network(m), key, x, jnp.asarray([0.5001, 0.5])).x

    x = run(jax.random.key(3), jnp.asarray(start, jnp.int32))
    assert np.mean(np.asarray(x) != start) > 0.3  # it moves
    assert chi_square(m, x, law) > 1e-3


def test_rates_are_guided_by_their_geometric_mean():
    """Guided log rates w c + (1 - w) u, with no norm, give jumps at their own total rate."""
    m = mixture.mixture(2, mixture.power(), "uniform", unnormalised=True)
    path = mixture.path(m, (1,))
    c, u = jnp.log(jnp.asarray([[0.9, 0.1]])), jnp.log(jnp.asarray([[0.5, 0.5]]))
    network = lambda x, t, cond: jnp.where((cond["label"] == 3)[:, None, None], u, c)
    out = classifier_free(network, 2.0, 3)(
        jnp.ones((2, 1), int), jnp.ones(2), {"label": jnp.zeros(2, int)}
    )
    np.testing.assert_allclose(jnp.exp(out[0, 0]), [0.81 / 0.5, 0.01 / 0.5], rtol=1e-5)
    n, dt = 40_000, 1e-2
    x = jnp.ones((n, 1), jnp.int32)
    y = jax.jit(jax.vmap(path.step, (0, None, 0, None, None)))(
        jax.random.split(KEY, n), out[0], x, 0.5, 0.5 - dt
    )
    rate = 0.81 / 0.5 / 0.5  # the guided rate over lambda, times lambda = 1 / t
    share = np.mean(np.asarray(y) == 0)
    # A first-order step: relative error of order total * dt.
    assert abs(share - rate * dt) < 4.5 * np.sqrt(rate * dt / n) + rate * dt * 4 * dt


def test_rates_past_the_largest_number_keep_their_ratios():
    m = mixture.mixture(3, mixture.power(), "uniform", unnormalised=True)
    out = jnp.broadcast_to(jnp.asarray([300.0, 301.0, -5.0]), (4000, 1, 3))
    step = jax.jit(jax.vmap(mixture.path(m, (1,)).step, (0, 0, 0, None, None)))
    x = step(jax.random.split(KEY, 4000), out, jnp.full((4000, 1), 2), 0.5, 0.49)
    share = 1 / (1 + np.exp(-1))
    assert int(x.max()) < 2 and abs(np.mean(x) - share) < 4.5 * np.sqrt(share * (1 - share) / 4000)


@pytest.mark.parametrize("stepper", ["euler", "midpoint"])
def test_products_run_together(stepper):
    """One datum of numbers and classes: both parts end at it."""
    m = mixture.mixture(3, mixture.power(), "masked")
    parts = {"a": interpolants.path(LINES.ALL["linear"], (2,)), "b": mixture.path(m, (4,))}
    path = conditional.product(parts)
    a0, b0 = jnp.asarray([0.5, -1.0]), jnp.asarray([0, 1, 2, 1])

    def predict(x, t, cond):
        sure = jnp.broadcast_to(30.0 * jax.nn.one_hot(b0, 3), (len(t), 4, 3))
        return {"a": (x["a"] - a0) / t[:, None], "b": sure}

    x = jax.vmap(path.base.sample)(jax.random.split(KEY, 32))
    out = driver.reverse(
        steppers.STEPPERS[stepper](path), predict, KEY, x, jnp.linspace(1, 0, 9), trajectory=2
    )
    np.testing.assert_allclose(out.x["a"], jnp.broadcast_to(a0, (32, 2)), atol=1e-5)
    np.testing.assert_array_equal(out.x["b"], jnp.broadcast_to(b0, (32, 4)))
    assert out.trajectory["b"].shape == (9, 2, 4)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: steppers.sde(line("bridge", "velocity")[0]), "config.sample.name='sde' needs"),
        (lambda: steppers.sde(line("linear", "velocity")[0], -1.0), "config.sample.noise=-1.0"),
        (
            lambda: steppers.corrected(None, TINY.world("masked"), steps=0),
            "config.sample.corrector.steps=0",
        ),
        (
            lambda: steppers.corrected(None, TINY.world("masked"), size=0.0),
            "config.sample.corrector.size=0.0",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
