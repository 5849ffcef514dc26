"""Solvers of Gaussian paths with exact networks: the order that each claims, and the ends.

The flow of a law on the line is the monotone map between its marginals, so its exact solution is
the quantile of one at the distribution function of the other. A product of such laws, a mixture
and a Gaussian, holds every deterministic solver to the truth; the stochastic ones are affine in
state and noise when the law is Gaussian, and their mean and variance come from derivatives.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from gmjax.paths.gaussian import PATHS
from gmjax.paths.heads import HEADS
from gmjax.samplers import driver, gaussian, gaussian_flow, gaussian_multistep, gaussian_noise
from gmjax.samplers.gaussian_steps import between, denoise, reader
from gmjax.samplers.grids import path_grid
from gmjax.targets import TARGETS, laws
from gmjax.types import UserError

FLOWS = {  # solver, options -> the order of its map
    "ddim": ({}, 1),
    "euler": ({}, 1),
    "heun": ({}, 2),
    "edm": ({}, 2),
    "dpmpp_2s": ({}, 2),
    "dpmpp_2m": ({}, 2),
    "dpmpp_3m": ({}, 3),
    "unipc": ({"order": 2}, 3),
    "unipc 3": ({"order": 3}, 4),
}
NOISY = {  # solver, options as a function of the number of steps -> the order of its moments
    "ancestral": (lambda n: {}, 1),
    "ancestral large": (lambda n: {"variance": "large"}, 1),
    "ddim": (lambda n: {"eta": 1.0}, 1),
    "ddim half": (lambda n: {"eta": 0.5}, 1),
    "euler_maruyama": (lambda n: {}, 1),
    "exponential": (lambda n: {}, 1),
    "dpmpp_sde": (lambda n: {}, 2),
    "edm": (lambda n: {"churn": 4 / n}, 2),
}
MEANS, STDS, WEIGHTS = [[-1.0, 1.2], [0.5, 0.5]], [[0.4, 0.3], [0.6, 0.6]], [0.4, 0.6]
LAW = TARGETS["mixture_product"](2, WEIGHTS, MEANS, STDS)
VP = PATHS["vp_linear"]()
T_MIN = 0.02


def test_every_solver_claims_an_order():
    assert {name.split()[0] for name in (*FLOWS, *NOISY)} == set(gaussian.SOLVERS)
    assert set(gaussian.KEYS) == set(gaussian.SOLVERS)


@pytest.mark.parametrize("name", sorted(gaussian.SOLVERS.keys() - {"euler", "heun"}))
def test_a_run_to_the_data_leaves_no_noise(name):
    """All data are one point, which the network knows: ten steps to t = 0 end in it.

    But for rules in t, whose straight steps miss it by what they miss of the path.
    """
    path, point = PATHS["ddpm"](), 0.7
    network = lambda x, t, cond: jnp.full_like(x, point)
    read = reader(path, "x0")
    stepper = gaussian.build({"name": name}, path, read)
    times = path_grid("discrete", 10, path)
    noise = jax.random.normal(jax.random.key(0), (64, 3))
    x = jax.jit(lambda x: driver.reverse(stepper, network, jax.random.key(1), x, times).x)(noise)
    np.testing.assert_allclose(x, point, atol=1e-4)


def marginal(i, x, alpha, sigma):
    """The distribution function of coordinate i of the noised law."""
    scale = np.sqrt((alpha * np.array(STDS[i])) ** 2 + sigma**2)
    return np.sum(
        np.array(WEIGHTS) * scipy.stats.norm.cdf((x - alpha * np.array(MEANS[i])) / scale)
    )


def flowed(x, path, t, t_next):
    """The exact flow of LAW."""
    (a, s), (b, r) = (
        (float(path.alpha(u)), float(path.sigma(u))) for u in map(jnp.asarray, (t, t_next))
    )
    to = lambda i, p: scipy.optimize.brentq(lambda y: marginal(i, y, b, r) - p, -9, 9, xtol=1e-14)
    return np.array([[to(i, marginal(i, y, a, s)) for i, y in enumerate(row)] for row in x])


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
def test_flow_solvers_have_their_order(name):
    options, order = FLOWS[name]
    x = np.linspace(-1.5, 1.7, 8).reshape(4, 2)
    with jax.enable_x64(True):
        predict = laws.predict(LAW, VP, "v")
        stepper = gaussian.SOLVERS[name.split()[0]](VP, reader(VP, "v"), **options)
        want = flowed(x, VP, 1.0, T_MIN)
        run = jax.jit(lambda x, t: driver.reverse(stepper, predict, jax.random.key(0), x, t).x)
        few, many = (
            np.sqrt(np.mean((run(jnp.asarray(x), path_grid("log_snr", n, VP, T_MIN)) - want) ** 2))
            for n in (160, 320)
        )
    # Orders are one apart; what is left of the next order at these steps is below 0.25.
    assert abs(np.log2(few / many) - order) < 0.25, (few, many)
    assert many < 0.01


def moments(name, options, n, monkeypatch, path=VP, t_min=T_MIN, law=None, wrap=None, t_max=1.0):
    """(mean, standard deviation) at t_min of a solver on N(0.7, 0.5^2), by derivatives.

    The noise of every step is an input; the run is affine in it and in the start.
    """
    law = law or TARGETS["gaussian"]([0.7], 0.25)
    held = {}
    for module in (gaussian_flow, gaussian_multistep, gaussian_noise):
        monkeypatch.setattr(module, "normal", lambda key, x: jnp.full_like(x, held["z"].pop()))
    predict = laws.predict(law, path, "v")
    read = reader(path, "v")
    stepper = gaussian.SOLVERS[name](path, read, **options)
    stepper = wrap(stepper, path, read) if wrap else stepper
    times = path_grid("log_snr", n, path, t_min, t_max)
    a, s = path.alpha(times[0]), path.sigma(times[0])

    def end(x, z):
        def body(state, inputs):
            (x, carry), (t, t_next, z) = state, inputs
            held["z"] = list(z)
            x, carry = stepper.step(
                predict, jax.random.key(0), x, t[None], t_next[None], carry, None
            )
            return (x, carry), None

        x = x[None, None]
        inputs = times[:-1], times[1:], z
        return jax.lax.scan(body, (x, stepper.init(x)), inputs)[0][0][0, 0]

    z = jnp.zeros((n, 2))
    mean, slopes = jax.jit(jax.value_and_grad(end, (0, 1)))(a * law.mean[0], z)
    start = (a**2 * law.covariance.diagonal[0] + s**2) * slopes[0] ** 2
    return float(mean), float(jnp.sqrt(start + jnp.sum(slopes[1] ** 2)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NOISY)
def test_noisy_solvers_have_their_weak_order(name, monkeypatch):
    options, order = NOISY[name]
    with jax.enable_x64(True):
        a, s = (float(f(jnp.asarray(T_MIN))) for f in (VP.alpha, VP.sigma))
        want = np.array([0.7 * a, np.sqrt((0.5 * a) ** 2 + s**2)])
        few, many = (
            np.abs(np.array(moments(name.split()[0], options(n), n, monkeypatch)) - want)
            for n in (100, 200)
        )
    slope = np.log2(few.max() / many.max())
    assert abs(slope - order) < 0.25, (few, many)
    assert many.max() < 0.03


@pytest.mark.slow
def test_the_corrector_is_its_formula_and_repairs_an_error(monkeypatch):
    """With E[x0 | x] linear, x0-part k x: x <- (k + K (1 - k)) x + sigma sqrt(1 - K^2) z."""
    snr = 0.5
    wrap = lambda stepper, path, read: gaussian.corrected(stepper, path, read, snr, 1)
    with jax.enable_x64(True):
        # Where noise is no smaller than the data: Langevin steps mend what is of sigma's size.
        a, s = (float(f(jnp.asarray(0.2))) for f in (VP.alpha, VP.sigma))
        want = np.sqrt((0.5 * a) ** 2 + s**2)
        few = {"t_min": 0.2}
        plain = moments("ancestral", {}, 10, monkeypatch, **few)[1] - want
        repaired = moments("ancestral", {}, 10, monkeypatch, wrap=wrap, **few)[1] - want
        assert abs(repaired) < 0.8 * abs(plain), (repaired, plain)
        still = lambda stepper, path, read: wrap(
            stepper._replace(step=lambda p, k, x, t, u, carry, c: (x, carry)), path, read
        )
        got = moments("ddim", {}, 1, monkeypatch, t_min=0.3, wrap=still, t_max=0.3001)
        (a, a1), (s, s1) = (
            [float(f(jnp.asarray(t))) for t in (0.3, 0.3001)] for f in (VP.alpha, VP.sigma)
        )
        k, keep = 0.25 * a**2 / (0.25 * a**2 + s**2), np.exp(-(snr**2))
        gain = k + keep * (1 - k)
        variance = gain**2 * (0.25 * a1**2 + s1**2) + s**2 * (1 - keep**2)
        np.testing.assert_allclose(got[1] ** 2, variance, rtol=1e-12)


ENDS = [(solver, path) for solver in gaussian.SOLVERS for path in ("linear", "karras")]
VARIANCE_PRESERVING = ("trigonometric", "vp_linear")
ENDS += [(s, p) for s in ("exponential", "dpmpp_2m", "unipc") for p in VARIANCE_PRESERVING]
ENDS += [("unipc 3", "linear"), ("ancestral large", "linear")]


@pytest.mark.slow
@pytest.mark.parametrize("name, path_name", ENDS)
def test_runs_end_to_end_from_noise_to_data(name, path_name):
    """From alpha = 0 to sigma = 0 in float32: finite, and near the law; nfe is what was spent."""
    path = PATHS[path_name]()
    if name == "exponential" and path_name in ("linear", "karras"):
        with pytest.raises(UserError, match="needs a variance-preserving path"):
            gaussian.SOLVERS[name](path, reader(path, "v"))
        return
    calls = []
    exact = laws.predict(LAW, path, "x0")

    def predict(x, t, cond):
        jax.debug.callback(lambda: calls.append(1))
        return exact(x, t, cond)

    options = {"unipc 3": {"order": 3}, "ancestral large": {"variance": "large"}}.get(name, {})
    stepper = gaussian.SOLVERS[name.split()[0]](path, reader(path, "x0"), **options)
    grid = "karras" if path_name == "karras" else "uniform"
    # Euler in t is poor where sigma spans five decades.
    times = path_grid(grid, 200 if (name, path_name) == ("euler", "karras") else 24, path)
    n = 512
    std = float(path.sigma(times[0]))
    z = scipy.stats.norm.ppf((np.arange(n) + 0.5) / n)
    x = std * jnp.asarray(np.stack([z, np.random.default_rng(0).permutation(z)], 1), jnp.float32)
    run = jax.jit(lambda x: driver.reverse(stepper, predict, jax.random.key(0), x, times))
    out = run(x)
    jax.effects_barrier()
    assert np.isfinite(out.x).all()
    assert int(out.nfe) == len(calls)
    # Means and deviations of 512 draws have errors of .05; the rest is the steps' own.
    np.testing.assert_allclose(np.mean(out.x, 0), LAW.mean, atol=0.25)
    np.testing.assert_allclose(np.std(out.x, 0), LAW.covariance.diagonal**0.5, atol=0.3)


@pytest.mark.parametrize("head", HEADS)
def test_the_reader_is_finite_and_right_at_every_time(head):
    path = PATHS["linear"]()
    t = jnp.asarray([1.0, 0.999, 0.5, 1e-3, 0.0])
    x = jnp.asarray([[0.3, -0.7]] * 5)
    predict = laws.predict(LAW, path, head)
    x0, slope = jax.jit(
        lambda x: (
            reader(path, head)(predict, x, t, None),
            jax.grad(lambda x: jnp.sum(reader(path, head)(predict, x, t, None)))(x),
        )
    )(x)
    assert np.isfinite(x0).all() and np.isfinite(slope).all()
    want = jax.vmap(LAW.denoiser)(x, 1 - t, t)
    np.testing.assert_allclose(x0[2:], want[2:], atol=2e-5)
    if head in ("x0", "v", "velocity", "edm"):
        np.testing.assert_allclose(x0[:2], want[:2], atol=2e-5)


@pytest.mark.slow
def test_a_constant_prediction_is_followed_exactly():
    """With x0 known every flow solver but Euler and Heun in t is exact in any number of steps."""
    point = TARGETS["gaussian"]([0.7, -0.2], 0.0)
    x = jnp.asarray([[0.3, 1.1]])
    times = path_grid("uniform", 3, VP, 0.1)
    c = between(VP, times[:1], times[-1:])
    want = c.sigma_next / c.sigma * (x - c.alpha * point.mean) + c.alpha_next * point.mean
    predict = lambda x, t, cond: jnp.broadcast_to(jnp.asarray(point.mean, x.dtype), x.shape)
    for name in ("ddim", "edm", "dpmpp_2s", "dpmpp_2m", "dpmpp_3m", "unipc"):
        stepper = gaussian.SOLVERS[name](VP, reader(VP, "x0"))
        run = jax.jit(lambda x, s=stepper: driver.reverse(s, predict, jax.random.key(0), x, times))
        got = run(x).x
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_learned_variance_lies_between_small_and_large(monkeypatch):
    """The standard deviation of the step is the geometric mean at the network's fraction."""
    monkeypatch.setattr(gaussian_noise, "normal", lambda key, x: jnp.ones_like(x))
    t, t_next, x = jnp.full(1, 0.5), jnp.full(1, 0.4), jnp.asarray([[0.3, -0.1]])
    plain = laws.predict(LAW, VP, "eps")

    def step(variance, v=None):
        mean = reader(VP, "eps")
        both = lambda predict, x, t, cond: (mean(predict, x, t, cond), v * jnp.ones_like(x))
        read = mean if v is None else both
        stepper = gaussian.SOLVERS["ancestral"](VP, read, variance=variance)
        return jax.jit(lambda x: stepper.step(plain, jax.random.key(0), x, t, t_next, (), None)[0])(
            x
        )

    c = between(VP, t, t_next)
    left = jnp.sqrt(1 - c.decay**2)
    small, large = step("small"), step("large")
    np.testing.assert_allclose(large - small, (c.sigma - c.sigma_next) * left, rtol=1e-3)
    np.testing.assert_allclose(step("learned", 1.0), large, rtol=1e-5)
    np.testing.assert_allclose(step("learned", 0.0), small, rtol=1e-5)
    middle = small + left * (jnp.sqrt(c.sigma * c.sigma_next) - c.sigma_next)
    np.testing.assert_allclose(step("learned", 0.5), middle, rtol=1e-5)
    with pytest.raises(UserError, match="needs a network with"):
        step("learned")


def test_finish_denoises_and_clips():
    out = denoise(reader(VP, "x0", clip=0.5))(
        lambda x, t, cond: 3 * x, None, jnp.asarray([[0.1, -2.0]]), jnp.full(1, 0.2), None
    )
    np.testing.assert_allclose(out, [[0.3, -0.5]], rtol=1e-6)


@pytest.mark.parametrize(
    "config, text",
    [
        ({"name": "nope"}, "config.sample.name='nope' is unknown; valid: ancestral"),
        ({"name": "ddim", "eta": -0.1}, "config.sample.eta=-0.1 must not be negative"),
        (
            {"name": "edm", "churn": -1.0},
            r"config.sample.churn=-1.0 must lie in \[0, sqrt\(2\) - 1",
        ),
        ({"name": "edm", "s_min": 3.0, "s_max": 2.0}, "config.sample.s_min=3.0 must lie in"),
        ({"name": "edm", "s_noise": 0.0}, "config.sample.s_noise=0.0 must be positive"),
        ({"name": "unipc", "order": 4}, "config.sample.order=4 must be 2 or 3"),
        ({"name": "ancestral", "variance": "tiny"}, "config.sample.variance='tiny' must be one of"),
        ({"name": "euler", "corrector_steps": 1, "snr": 0.0}, "config.sample.snr=0.0 must be pos"),
        ({"name": "euler", "corrector_steps": -1}, "config.sample.corrector_steps=-1 must be at"),
    ],
)
def test_bad_options_are_named(config, text):
    with pytest.raises(UserError, match=text):
        gaussian.build(config, VP, reader(VP, "eps"))


def test_options_of_other_solvers_are_ignored():
    stepper = gaussian.build({"name": "heun", "eta": -1.0, "churn": None}, VP, reader(VP, "v"))
    assert int(stepper.nfe(np.linspace(1, 0.1, 11))) == 20
    with pytest.raises(UserError, match="config.sample.clip=-1.0 must be positive"):
        reader(VP, "v", clip=-1.0)


GRADIENTS = {**{name: {} for name in gaussian.SOLVERS}, "unipc 3": {"order": 3}}
GRADIENTS |= {"ancestral large": {"variance": "large"}, "ddim noisy": {"eta": 1.0}}
GRADIENTS |= {"edm churned": {"churn": 0.2}}
TIMES = ([1, 0.6, 0.3, 0], [1, 0.9, 0.3, 1e-3], [0.9, 0.5, 0.5, 0.1], [1, 0.5, 0.5, 0])
QUICK = ("dpmpp_3m",)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in GRADIENTS]
)
def test_gradients_are_those_of_differences(name):
    """In a parameter of the network, from pure noise, to the data, and over times that repeat."""
    kind = name.split()[0]
    # A path and a head each; every time at which data or noise is all there is.
    path = PATHS["trigonometric" if kind == "exponential" else "linear"]()
    head = dict(zip(gaussian.SOLVERS, [*HEADS, *HEADS], strict=True))[kind]
    x = jnp.asarray([[0.3, -1.1], [0.8, 0.2]])
    stepper = gaussian.SOLVERS[kind](path, reader(path, head, 0.7), **GRADIENTS[name])

    def value(theta, times):
        predict = lambda x, t, cond: jnp.tanh(theta * x + t[:, None])
        run = driver.reverse(stepper, predict, jax.random.key(0), x.astype(times.dtype), times)
        return jnp.sum(jnp.sin(run.x))

    with jax.enable_x64(True):
        both, h = jax.jit(jax.value_and_grad(value)), 1e-5
        for times in TIMES:
            times = jnp.asarray(times, float)
            (more, _), (less, _), (_, slope) = (
                both(theta, times) for theta in (0.8 + h, 0.8 - h, 0.8)
            )
            assert np.isfinite(slope), times
            np.testing.assert_allclose(slope, (more - less) / (2 * h), rtol=1e-6, atol=1e-8)


STEPS = [(name, n) for name in gaussian.SOLVERS for n in (2, 5)] + [("edm", 1), ("exponential", 1)]


@pytest.mark.parametrize(
    "name, n",
    [c if c == ("exponential", 2) else pytest.param(*c, marks=pytest.mark.slow) for c in STEPS],
)
def test_few_steps_end_near_the_data(name, n):
    """Of N(0.7, 0.5^2): 64 samples deviate by less than thrice their size, on two grids.

    Rules in t begin from noise of one, which they may keep; the worst is dpmpp_3m, 1.4 for 0.5.
    """
    predict = laws.predict(TARGETS["gaussian"]([0.7], 0.25), VP, "v")
    stepper = gaussian.SOLVERS[name](VP, reader(VP, "v"))
    x = jax.random.normal(jax.random.key(1), (64, 1))
    run = jax.jit(lambda t: driver.reverse(stepper, predict, jax.random.key(0), x, t).x)
    for grid in ("uniform", "log_snr"):
        assert float(jnp.sqrt(jnp.mean((run(path_grid(grid, n, VP, 1e-3)) - 0.7) ** 2))) < 1.5
