"""Guidance samples the law it claims: power laws, and posteriors that have a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gmjax.paths import gaussian as paths
from gmjax.paths import heads
from gmjax.processes import ctmc, schedules, sphere
from gmjax.samplers import guidance, shifts
from gmjax.types import UserError


def test_guided_posterior_is_the_tempered_product():
    key_c, key_u = jax.random.split(jax.random.key(0))
    c, u = jax.random.normal(key_c, (3, 2, 5)), jax.random.normal(key_u, (3, 2, 5))

    def predict(x, t, cond):
        null = (cond["label"] == 7)[:, None, None]
        return jnp.where(null, jnp.tile(u, (2, 1, 1)), jnp.tile(c, (2, 1, 1)))

    x, t, cond = jnp.zeros((3, 2), jnp.int32), jnp.full(3, 0.5), {"label": jnp.arange(3)}
    p, q = jax.nn.softmax(c), jax.nn.softmax(u)
    for scale in (0.0, 1.0, 2.5):
        out = guidance.classifier_free(predict, scale, 7)(x, t, cond)
        truth = p**scale * q ** (1 - scale)
        truth /= truth.sum(-1, keepdims=True)
        np.testing.assert_allclose(jax.nn.softmax(out), truth, rtol=1e-5)


def test_guidance_commutes_with_the_parametrisation():
    """Guided leave-one-out logits are the leave-one-out of the guided posterior."""
    w = tiny.world("rates")
    x = jnp.asarray([[0, 2]])
    t = jnp.full(1, 0.5)
    key_c, key_u = jax.random.split(jax.random.key(1))
    c, u = jax.random.normal(key_c, (2, 3)), jax.random.normal(key_u, (2, 3))
    to = lambda g: ctmc.leave_one_out_to_posterior(w.ctmc, g, x[0], t[0])
    scale = 1.7
    mixed = to(u + scale * (c - u))
    posterior = jax.nn.log_softmax(to(u) + scale * (to(c) - to(u)), -1)
    np.testing.assert_allclose(mixed, posterior, atol=1e-4)


def test_the_interval_and_the_rescaling():
    c, u = jnp.asarray([[4.0, 0.0]] * 3), jnp.asarray([[1.0, 1.0]] * 3)
    predict = lambda x, t, cond: jnp.where((cond["label"] == 7)[:, None], u[:1], c[:1])
    x, t, cond = jnp.zeros((3, 2)), jnp.asarray([0.1, 0.5, 0.9]), {"label": jnp.arange(3)}
    out = guidance.classifier_free(predict, 3.0, 7, (0.3, 0.7))(x, t, cond)
    np.testing.assert_allclose(out, [c[0], u[0] + 3 * (c[0] - u[0]), c[0]])
    whole = guidance.classifier_free(predict, 3.0, 7, rescale=1.0)(x, t, cond)
    np.testing.assert_allclose(np.std(whole, -1), np.std(c, -1), rtol=1e-6)
    half = guidance.classifier_free(predict, 3.0, 7, rescale=0.5)(x, t, cond)
    plain = guidance.classifier_free(predict, 3.0, 7)(x, t, cond)
    np.testing.assert_allclose(half, 0.5 * (whole + plain), rtol=1e-6)


STD, NOISE = 0.8, 0.3


@pytest.mark.parametrize("way", ["classifier", "reconstruction"])
def test_a_guided_flow_lands_on_the_posterior(way):
    """Data N(0, s^2 I) in the plane, y = x0[0] + noise: exact posterior, by the flow in float64.

    The flow is a linear map of Gaussian noise, so its mean and variance are read off two starts.
    """
    with jax.enable_x64(True):
        path, y = paths.linear(), 0.9

        def predict(x, t, cond):
            a, s = path.alpha(t)[:, None], path.sigma(t)[:, None]
            x0 = a * STD**2 * x / ((a * STD) ** 2 + s**2)
            return heads.target("velocity", path, x0, (x - a * x0) / s, t)

        shift = shifts.gaussian(path, "velocity")
        if way == "reconstruction":
            guided = guidance.linear(
                predict,
                lambda out, x, t: heads.denoised("velocity", path, out, x, t)[0],
                shift,
                [[1.0, 0.0]],
                jnp.asarray([y]),
                NOISE,
                shifts.remaining_std(path, STD),
            )
        else:

            def log_prob(x, t, cond):
                a, s = path.alpha(t), path.sigma(t)
                mean = a * STD**2 * x[:, 0] / ((a * STD) ** 2 + s**2)
                var = NOISE**2 + (STD * s) ** 2 / ((a * STD) ** 2 + s**2)
                return -0.5 * (y - mean) ** 2 / var

            guided = guidance.classifier(predict, log_prob, shift)
        starts = jnp.asarray([[0.0, 0.0], [1.0, 1.0]])
        grid = jnp.linspace(1 - 1e-6, 1e-6, 2001)

        def move(x, pair):
            t, h = pair[0], pair[1] - pair[0]
            at = lambda x, t: guided(x, jnp.full(2, t), None)
            v = at(x, t)
            return x + 0.5 * h * (v + at(x + h * v, t + h)), None

        ends, _ = jax.jit(lambda x: jax.lax.scan(move, x, jnp.stack([grid[:-1], grid[1:]], -1)))(
            starts
        )
        precision = 1 / STD**2 + 1 / NOISE**2
        mean, std = ends[0], ends[1] - ends[0]
        np.testing.assert_allclose(mean, [y / NOISE**2 / precision, 0.0], atol=2e-4)
        np.testing.assert_allclose(std, [precision**-0.5, STD], atol=2e-4)


MATRICES = {
    "mean": np.full((1, 3), 1 / 3),
    "oblique": np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0]]),
    "twice": np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]]),  # of rank one
}


@pytest.mark.parametrize("name", MATRICES)
def test_any_matrix_has_the_exact_posterior_mean(name):
    """Data N(0, s^2 I): E[x0 | x_t, y] in closed form is the guided denoiser, at every noise."""
    with jax.enable_x64(True):
        path, a = paths.PATHS["vp_cosine"](), MATRICES[name]
        rng = np.random.default_rng(0)
        x, t = jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray([0.1, 0.8])
        y = jnp.asarray(rng.normal(size=(2, len(a))))

        def predict(x, t, cond):
            a, s = path.alpha(t)[:, None], path.sigma(t)[:, None]
            return a * STD**2 * x / ((a * STD) ** 2 + s**2)

        found = guidance.linear(
            predict, lambda out, x, t: out, shifts.gaussian(path, "x0"), a, y, NOISE,
            shifts.remaining_std(path, STD),
        )(x, t, None)  # fmt: skip
        for i in range(2):
            alpha, sigma = float(path.alpha(t[i])), float(path.sigma(t[i]))
            precision = np.eye(3) * (STD**-2 + (alpha / sigma) ** 2) + a.T @ a / NOISE**2
            want = np.linalg.solve(precision, alpha / sigma**2 * x[i] + a.T @ y[i] / NOISE**2)
            np.testing.assert_allclose(found[i], want, rtol=1e-9)


def test_a_level_of_logits_says_nothing_to_the_rescaling():
    rng = np.random.default_rng(0)
    c, u = rng.normal(size=(2, 1, 4, 3))
    c[0, 2, 1:] = u[0, 2, 1:] = -1e30  # impossible values

    def guided(c, u):
        each = jnp.asarray(np.concatenate([c, u]), jnp.float32)
        wrapped = guidance.classifier_free(lambda *_: each, 3.0, 7, rescale=0.7, logits=True)
        return wrapped(jnp.zeros((1, 4)), jnp.ones(1), {"label": jnp.zeros(1, jnp.int32)})[0]

    plain, level = guided(c, u), 10.0 * np.arange(4)[:, None]
    np.testing.assert_allclose(
        jax.nn.softmax(guided(c + level, u - level)), jax.nn.softmax(plain), atol=1e-5
    )
    assert np.isfinite(plain).all() and (plain[2, 1:] < -1e29).all()
    np.testing.assert_array_equal(jax.nn.softmax(plain[2]), [1, 0, 0])
    # The weight of what moves: guided by 3, then seven tenths of the way to the old size.
    about = lambda a: np.where(a > -1e29, a - a.mean(-1, keepdims=True, where=a > -1e29), 0)
    mixed = about(u + 3 * (c - u))
    ratio = np.sqrt((about(c) ** 2).sum() / (mixed**2).sum())
    np.testing.assert_allclose(about(np.asarray(plain)), (0.3 + 0.7 * ratio) * mixed[0], atol=1e-5)


def test_a_learned_variance_is_not_guided():
    c, u = jnp.asarray([[0.2, 0.5]]), jnp.asarray([[0.1, -0.5]])
    both = jnp.concatenate([c, u])
    guided = guidance.classifier_free(lambda *_: (both, 0.5 * both), 4.0, 7, rescale=0.7)
    mean, fraction = guided(jnp.zeros((1, 2)), jnp.ones(1), {"label": jnp.zeros(1, jnp.int32)})
    np.testing.assert_array_equal(fraction, 0.5 * c)
    assert abs(mean - c).max() > 0.01


LEVELS = jnp.asarray([-1.0, 0.2, 1.5])


def enumerated(p, matrix, y, noise):
    """p(x0_i | y) of independent sites with laws p [D, V], by the sum over all x0."""
    x0 = np.asarray(tiny.states(3, len(p)))
    prior = np.prod(np.take_along_axis(np.asarray(p, np.float64), x0.T, 1), 0)
    gap = (y - np.asarray(LEVELS, np.float64)[x0] @ np.asarray(matrix).T) / noise
    weight = prior * np.exp(-0.5 * np.sum(gap**2, 1))
    hot = x0[..., None] == np.arange(3)
    return np.sum(hot * (weight / weight.sum())[:, None, None], 0)


@pytest.mark.parametrize("kind", ["posterior", "leave_one_out"])
@pytest.mark.parametrize("name", ["uniform", "absorbing"])
def test_sites_that_are_measured_have_their_posterior(name, kind):
    """Two rows that each measure one of three independent sites: exact, at every x_t."""
    world = tiny.world(name, dims=3)
    read = ctmc.PARAMETRISATIONS[kind](world.ctmc)
    matrix, y, noise = jnp.asarray([[0, 2.0, 0], [1.0, 0, 0]]), jnp.asarray([0.7, 1.2]), 0.4
    x = tiny.states(world.ctmc.chain.num_states, 3)[::4]
    t = jnp.full(len(x), 0.6)
    logits = jax.random.normal(jax.random.key(0), (*x.shape, 3))
    predict = lambda x, t, cond: logits
    guided = guidance.discrete_reconstruction(predict, read, LEVELS, matrix, y, noise)
    before, after = (
        jnp.exp(jax.vmap(read.log_posterior)(f(x, t, None), x, t)) for f in (predict, guided)
    )
    for p, found in zip(before, after, strict=True):
        np.testing.assert_allclose(found, enumerated(p, matrix, y, noise), atol=2e-5)
    assert np.abs(after - before).max() > 0.1


def test_sums_of_sites_have_their_posterior_to_third_order():
    """What other sites add is taken as Gaussian: off by order four in one over the noise."""
    world, rng = tiny.world("uniform"), np.random.default_rng(0)
    read = ctmc.posterior(world.ctmc)
    matrix = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
    logits = jnp.asarray(rng.normal(size=(32, 3, 3)), jnp.float32)
    x, t, before = jnp.zeros((32, 3), jnp.int32), jnp.full(32, 0.5), jax.nn.softmax(logits)
    x0 = jax.random.categorical(jax.random.key(0), logits)

    def error(noise):
        y = LEVELS[x0] @ matrix.T + noise * jax.random.normal(jax.random.key(1), (32, 2))
        guided = guidance.discrete_reconstruction(lambda *_: logits, read, LEVELS, matrix, y, noise)
        truth = np.stack([enumerated(p, matrix, v, noise) for p, v in zip(before, y, strict=True)])
        off = lambda out: np.abs(np.asarray(jax.nn.softmax(out)) - truth).mean()
        return off(guided(x, t, None)), off(logits)

    (wide, unguided), (narrow, _) = error(2.0), error(1.0)
    assert wide < 0.01 * unguided and 3 < np.log2(narrow / wide) < 5


def test_a_nearly_exact_measurement_says_the_value():
    """Noise of 1e-5: 1 - c h is then 1e-10, and comes out as zero or less in single precision."""
    read = ctmc.posterior(tiny.world("uniform").ctmc)
    logits = jax.random.normal(jax.random.key(0), (1, 64, 3))
    value = jax.random.randint(jax.random.key(1), (64,), 0, 3)
    guided = guidance.discrete_reconstruction(
        lambda *_: logits, read, LEVELS, jnp.eye(64), LEVELS[value], 1e-5
    )
    found = jax.nn.softmax(guided(jnp.zeros((1, 64), jnp.int32), jnp.ones(1), None))
    np.testing.assert_allclose(found[0], jax.nn.one_hot(value, 3), atol=1e-6)


@pytest.mark.slow
def test_a_measured_place_on_the_sphere():
    """Data of a heat kernel of width .1 at a pole, one coordinate measured with noise .1.

    On so small a cap the sphere is flat to a percent: the posterior is N(y / 2, .005) along the
    measured coordinate and the prior along the other. 4.5 standard errors and .003 for the cap.
    """
    schedule = schedules.constant(0.3)
    process = sphere.sphere(schedule, (3,))
    pole, prior, noise, y = jnp.asarray([0.0, 0.0, 1.0]), 0.01, 0.1, 0.12
    later = lambda t: (schedule.clock(t) + prior) / schedule.clock(1.0)

    def predict(x, t, cond):
        score = jax.vmap(process.target, (None, 0, 0))(pole, x, later(t))
        return score * jnp.sqrt(schedule.clock(t))[:, None]

    spread = lambda t: jnp.sqrt(noise**2 + prior * schedule.clock(t) / (prior + schedule.clock(t)))
    guided = guidance.reconstruction(
        predict,
        shifts.exponential(process, schedule.clock),
        shifts.process(process),
        lambda x0: x0[:, :1],
        jnp.asarray([y]),
        spread,
        gradient=shifts.tangent(process.space),
    )
    n, grid = 4000, jnp.geomspace(1.0, 1e-3, 101)

    @jax.jit
    def run(key):
        key, start = jax.random.split(key)
        x = jax.vmap(process.sample, (0, None, None))(jax.random.split(start, n), pole, later(1.0))

        def step(x, inputs):
            key, t, s = inputs
            score = jax.vmap(process.read)(guided(x, jnp.full(n, t), None), x, jnp.full(n, t))
            move = lambda key, x, score: process.reverse(lambda *_: score).step(key, x, t, t - s)
            return jax.vmap(move)(jax.random.split(key, n), x, score), None

        return jax.lax.scan(step, x, (jax.random.split(key, 100), grid[:-1], grid[1:]))[0]

    x = np.asarray(run(jax.random.key(0)), np.float64)
    std = 0.005**0.5
    error = 4.5 * std / n**0.5
    assert abs(x[:, 0].mean() - y / 2) < error + 0.003 and abs(x[:, 0].std() - std) < error + 0.003
    assert abs(x[:, 1].mean()) < 4.5 * 0.1 / n**0.5 and abs(x[:, 1].std() - 0.1) < 0.008


def measured(matrix, levels=LEVELS, noise=1.0, kind=ctmc.posterior):
    read = kind(tiny.world("uniform").ctmc)
    logits = jnp.zeros((1, 2, 3))
    y = jnp.zeros(len(matrix))
    guided = guidance.discrete_reconstruction(lambda *_: logits, read, levels, matrix, y, noise)
    return guided(jnp.zeros((1, 2), jnp.int32), jnp.ones(1), None)


def entries(matrix=((1.0, 0.0),), y=0.0, noise=0.1):
    path = paths.linear()
    options = (lambda out, x, t: out, shifts.gaussian(path, "x0"), matrix, jnp.zeros((3, 1)) + y)
    if jnp.ndim(y):  # as it is, where measurements of one number come in a row
        options = (*options[:2], lambda x0: x0[:, :1], y, shifts.remaining_std(path))
        guided = guidance.reconstruction(lambda x, t, cond: x, *options)
    else:
        std = shifts.remaining_std(path)
        guided = guidance.linear(lambda x, t, cond: x, *options, noise, std)
    return guided(jnp.zeros((3, 2)), jnp.full(3, 0.5), None)


def classified(x):
    log_prob = lambda x, t, cond: jnp.zeros(len(x))
    return guidance.classifier(None, log_prob, shifts.logits)(x, jnp.ones(1), None)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: guidance.classifier_free(None, 2.0, 3, (0.7, 0.2)), "config.sample.interval"),
        (lambda: guidance.classifier_free(None, 2.0, 3, rescale=2.0), "config.sample.rescale=2"),
        (
            lambda: guidance.classifier_free(None, 2.0, 3)(jnp.zeros((1, 1)), jnp.ones(1), None),
            "config.sample.guidance needs labels",
        ),
        (lambda: guidance.check((0.5,), 0.0), "config.sample.interval"),
        (
            lambda: entries(y=jnp.zeros(3)),
            r"y has shape \(3,\); valid .*: \(3, 1\), or",
        ),
        (lambda: entries(noise=-1.0), "noise=-1.0 must be 0 or more"),
        (lambda: entries(matrix=[[0.0, 0.0]]), r"shape \(1, 2\); valid: .* not all zero"),
        (lambda: classified(jnp.zeros((1, 2), jnp.int32)), r"encode=shifts.one_hot\(K\)"),
        (lambda: measured(jnp.eye(2), noise=0.0), "noise=0.0 must be positive"),
        (lambda: measured(jnp.eye(2), kind=ctmc.log_ratio), "log ratios are no logits"),
        (lambda: measured(jnp.eye(4)), r"shape \(4, 4\) .* valid for these outputs: \(M, 2\)"),
        (lambda: measured(jnp.eye(2), LEVELS[:2]), r"\(2,\) levels; valid .* and \(3,\)"),
    ],
)
def test_bad_input_is_named(make, text):
    with pytest.raises(UserError, match=text):
        make()


def test_rescaling_one_number_leaves_it():
    predict = lambda x, t, cond: jnp.where((cond["label"] == 7)[:, None], 0.2, 0.7)
    guided = guidance.classifier_free(predict, 2.0, 7, rescale=0.7)
    out = guided(jnp.zeros((2, 1)), jnp.full(2, 0.5), {"label": jnp.arange(2)})
    np.testing.assert_allclose(out, 1.2, rtol=1e-6)
