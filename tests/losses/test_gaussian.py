"""Losses on Gaussian paths against quadrature, the published formulas and exact denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gmjax.losses import gaussian, gaussian_steps, times
from gmjax.paths import gaussian as paths
from gmjax.paths import heads, learned
from gmjax.processes import schedules
from gmjax.types import UserError

KEY = jax.random.key(0)


def denoiser(path, s):
    """x, t -> E[x0 | x] for x0 ~ N(0, s^2)."""

    def of(x, t):
        a, b = heads.spread(path.alpha(t), x), heads.spread(path.sigma(t), x)
        return a * s**2 * x / (a**2 * s**2 + b**2)

    return of


def predicting(path, head, guess, std=1.0):
    """The `Predict` of a head whose x0 is `guess(x, t)`."""

    def predict(x, t, cond):
        x0 = guess(x, t)
        a, b = heads.spread(path.alpha(t), x), heads.spread(path.sigma(t), x)
        return heads.target(head, path, x0, (x - a * x0) / b, t, std)

    return predict


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp_cosine", "linear", "karras"])
def test_one_denoiser_has_one_loss_whatever_its_head(name):
    """With a weighting that is fixed in units of x0, heads are only ways to write a denoiser."""
    with jax.enable_x64(True):
        path = paths.PATHS[name]()
        x0 = jax.random.normal(KEY, (64, 2), jnp.float64)
        guess = lambda x, t: 0.7 * denoiser(path, 1.0)(x, t) + 0.1
        for weighting in set(gaussian.WEIGHTS) - {"simple"}:
            found = [
                gaussian.denoising(path, head, times.uniform_in_t(0.05), weighting, 0.5)(
                    predicting(path, head, guess, 0.5), KEY, x0, None
                )[0]
                for head in heads.HEADS
            ]
            for other in found[1:]:
                np.testing.assert_allclose(other, found[0], rtol=1e-7)


def test_simple_is_the_mean_square_of_the_head():
    with jax.enable_x64(True):
        path, x0 = paths.PATHS["ddpm"](), jax.random.normal(KEY, (8, 3), jnp.float64)
        seen = {}

        def predict(x, t, cond):
            seen.update(x=x, t=t)
            return jnp.zeros_like(x)

        value, _ = gaussian.denoising(path, "eps", times.on_grid(1000))(predict, KEY, x0, None)
        a, s = path.alpha(seen["t"])[:, None], path.sigma(seen["t"])[:, None]
        eps = (seen["x"] - a * x0) / s
        np.testing.assert_allclose(value, np.mean(np.square(eps), -1), rtol=1e-9)
        np.testing.assert_allclose(seen["t"] * 1000, np.round(seen["t"] * 1000), atol=1e-9)


def test_the_likelihood_weight_is_the_fall_of_the_snr():
    """For x0 ~ N(0, 1) and a constant guess g the diffusion part is E|x0 - g|^2 (SNR gap) / 2."""
    with jax.enable_x64(True):
        path = paths.PATHS["log_snr_linear"](high=4.0, low=-4.0)
        x0 = jnp.full((4096, 1), 1.5, jnp.float64)
        loss = gaussian.denoising(path, "x0", times.uniform_in_t(0.01), "likelihood")
        value = loss(lambda x, t, cond: jnp.full_like(x, 0.25), KEY, x0, None)[0]
        high, low = np.exp(paths.log_snr(path, jnp.asarray([0.01, 1.0])))
        # 4096 stratified times: the error of the sum is of order one over 4096 of the total.
        np.testing.assert_allclose(np.mean(value), 0.5 * 1.25**2 * (high - low), rtol=2e-3)


@pytest.mark.parametrize(
    "sampler",
    [
        lambda path: times.uniform_in_t(0.02),
        lambda path: times.uniform_in_log_snr(path, 0.02),
        lambda path: times.uniform_in_log_clock(schedules.linear(0.1, 20.0), 0.02),
        lambda path: times.log_normal(path, 1e-4, -0.5, 1.5),
        lambda path: times.logit_normal(1e-4, 0.3, 1.2),
    ],
)
def test_weights_are_inverse_densities(sampler):
    """E weight f(t) = int f for a bump f inside; stratified, so the error is that of a sum."""
    with jax.enable_x64(True):
        path = paths.PATHS["vp_cosine"](alpha_min=1e-3)
        t, weight = sampler(path)(KEY, 20_000)
        assert ((t > 0) & (t <= 1)).all()
        f = lambda t: np.exp(-0.5 * ((t - 0.5) / 0.08) ** 2)
        want = 0.08 * np.sqrt(2 * np.pi)
        np.testing.assert_allclose(np.mean(weight * f(np.asarray(t))), want, rtol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: times.log_normal(path, 0.3, 0.5, 1.0),
        lambda path: times.logit_normal(0.3, -0.5, 1.0),
    ],
)
def test_truncated_times_integrate_to_their_ends(make):
    """Half of the normal law lies below t_min: E weight = 1 - t_min none the less."""
    with jax.enable_x64(True):
        path = paths.PATHS["vp_linear"](end=3.0)
        t, weight = make(path)(KEY, 200_000)
        assert t.min() >= 0.3 and t.max() <= 1
        # The tail of 1e-6 towards t = 1 is a hundredth of the interval.
        np.testing.assert_allclose(np.mean(weight), 0.7, rtol=0.02)


def test_log_normal_times_are_those_of_edm():
    path = paths.karras()
    t, _ = times.log_normal(path, 1e-6)(KEY, 4001)
    logs = np.log(path.sigma(t))
    np.testing.assert_allclose(
        np.quantile(logs, [0.16, 0.5, 0.84]), [-2.39, -1.2, -0.01], atol=0.02
    )


def test_the_prior_part_is_a_gaussian_divergence():
    with jax.enable_x64(True):
        path, x0 = paths.PATHS["vp_linear"](end=3.0), jnp.asarray([[0.7, -1.0]])
        a, s = float(path.alpha(jnp.ones(()))), float(path.sigma(jnp.ones(())))
        x = np.linspace(-12, 12, 20001)
        want = []
        for mean in a * np.asarray(x0[0]):
            q, p = stats.norm(mean, s), stats.norm(0, 1.2)
            want.append(np.trapezoid(q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), x))
        np.testing.assert_allclose(gaussian.prior(path, x0, 1.2)[0], want, rtol=1e-6)


def test_levels_decode_by_their_posterior():
    path, levels = paths.PATHS["vp_cosine"](), jnp.linspace(-1, 1, 5)
    x, t = jnp.asarray([[0.3], [-0.9]]), jnp.asarray([0.2, 0.05])
    each = [gaussian.level_log_probs(path, jnp.full((2, 1), v), x, t, levels)[:, 0] for v in levels]
    np.testing.assert_allclose(np.sum(np.exp(each), 0), 1, rtol=1e-5)
    a, s = np.asarray(path.alpha(t)), np.asarray(path.sigma(t))
    ratio = stats.norm.logpdf(0.3, a[0] * 0.5, s[0]) - stats.norm.logpdf(0.3, 0, s[0])
    np.testing.assert_allclose(each[3][0] - each[2][0], ratio, rtol=1e-4)


def test_a_learned_schedule_is_a_schedule():
    with jax.enable_x64(True):
        params = jax.tree.map(
            lambda a: a + 0.5 * np.random.default_rng(1).normal(size=a.shape), learned.init(KEY)
        )
        path, t = learned.learned(params), jnp.linspace(0.0, 1.0, 50)
        snr = paths.log_snr(path, t)
        assert (np.diff(snr) < 0).all()
        np.testing.assert_allclose(snr[jnp.asarray([0, -1])], params["ends"], rtol=1e-9)
        np.testing.assert_allclose(path.inverse(snr), t, atol=1e-9)


@pytest.mark.slow
def test_a_learned_schedule_lowers_the_variance_and_not_the_bound():
    """For x0 ~ N(0, 1) and its exact denoiser: the integrand's variance falls, its mean stays."""
    levels = 5
    x0 = jax.random.choice(KEY, jnp.linspace(-1, 1, levels), (512, 1))
    params = learned.init(KEY, high=6.0, low=-6.0)
    guess = lambda path, x, t: denoiser(path, 0.7)(x, t)

    def objective(params, key):
        path = learned.learned(params)
        predict = lambda x, t, cond: guess(path, x, t)
        loss = gaussian.learned_path(
            learned.learned, "x0", 1e-3, levels, times.SPREADS["independent"]
        )
        return jnp.mean(loss(predict, predict, params, key, x0, None)[0])

    @jax.jit
    def spreads(params, key):
        path = learned.learned(params)
        loss = gaussian.denoising(path, "x0", times.uniform_in_t(1e-3), "likelihood")
        value = loss(lambda x, t, cond: guess(path, x, t), key, jnp.tile(x0, (20, 1)), None)[0]
        return jnp.mean(value), jnp.std(value)

    before = spreads(params, KEY)
    grad = jax.jit(jax.grad(objective))
    for i in range(60):
        g = grad(params, jax.random.fold_in(KEY, i))
        shape = jax.tree.map(lambda p, g: p - 0.3 * g, params["shape"], g["shape"])
        params = {**params, "shape": shape}
    after = spreads(params, KEY)
    assert after[1] < 0.9 * before[1]
    # Standard error of a mean of 10240: std / 101; 4.5 of both.
    assert abs(after[0] - before[0]) < 4.5 * (before[1] + after[1]) / 101


@pytest.mark.parametrize("low, high", [(-40, -39.9), (39.9, 40), (-0.1, 0.2), (-1, 7), (-30, 2)])
def test_the_mass_of_an_interval_has_no_cancellation(low, high):
    with jax.enable_x64(True):
        if high <= 0 or low >= 0:
            a, b = sorted((abs(low), abs(high)))
            want = stats.norm.logsf(a) + np.log1p(
                -np.exp(stats.norm.logsf(b) - stats.norm.logsf(a))
            )
        else:
            want = np.log(stats.norm.cdf(high) - stats.norm.cdf(low))
        found = gaussian_steps.log_mass(jnp.asarray(float(low)), jnp.asarray(float(high)))
        np.testing.assert_allclose(found, want, rtol=1e-8)
        slope = jax.grad(lambda m: gaussian_steps.log_mass(low - m, high - m))(0.0)
        assert np.isfinite(slope)


def test_bins_share_out_all_mass():
    decode = gaussian_steps.discretised(9)
    step = gaussian_steps.Step(jnp.asarray([[0.31]]), jnp.asarray([[-3.0]]))
    each = [decode(jnp.full((1, 1), v), step)[0, 0] for v in jnp.linspace(-1, 1, 9)]
    np.testing.assert_allclose(np.sum(np.exp(-np.asarray(each))), 1, rtol=1e-5)


def test_steps_are_those_of_ddpm():
    """Mean and variance of Ho et al. (2020), equations 6 and 7, in their own variables."""
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.concatenate([[1.0], np.cumprod(1 - betas)])
    with jax.enable_x64(True):
        path, i = paths.PATHS["ddpm"](), np.asarray([2, 500, 1000])
        t, s = jnp.asarray(i / 1000), jnp.asarray((i - 1) / 1000)
        x0, x = np.random.default_rng(0).normal(size=(2, 3, 2))
        beta = betas[i - 1]
        mean = (np.sqrt(bar[i - 1]) * beta / (1 - bar[i]))[:, None] * x0 + (
            np.sqrt(1 - beta) * (1 - bar[i - 1]) / (1 - bar[i])
        )[:, None] * x
        found = gaussian_steps.posterior(path, jnp.asarray(x0), jnp.asarray(x), t, s)
        np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
        tilde = (1 - bar[i - 1]) / (1 - bar[i]) * beta
        np.testing.assert_allclose(np.exp(found.log_variance[:, 0]), tilde, rtol=1e-8)
        np.testing.assert_allclose(np.exp(gaussian_steps.largest(path, t, s)), beta, rtol=1e-8)


@pytest.mark.parametrize("variance", gaussian_steps.VARIANCES)
def test_the_divergence_of_a_step(variance):
    """Against the divergence of two normal laws by quadrature."""
    with jax.enable_x64(True):
        path, t, s = paths.PATHS["ddpm"](steps=10), jnp.asarray([0.5]), jnp.asarray([0.4])
        x0, guess, x = jnp.asarray([[0.4]]), jnp.asarray([[-0.2]]), jnp.asarray([[0.9]])
        share = jnp.asarray([[0.3]])
        found = gaussian_steps.step_kl(path, variance, x0, guess, share, x, t, s)[0, 0]
        q = gaussian_steps.posterior(path, x0, x, t, s)
        mean = gaussian_steps.posterior(path, guess, x, t, s).mean
        large = float(gaussian_steps.largest(path, t, s)[0])
        small = float(q.log_variance[0, 0])
        logs = {"small": small, "large": large, "learned": 0.3 * large + 0.7 * small}[variance]
        a = stats.norm(float(q.mean[0, 0]), np.exp(0.5 * small))
        b = stats.norm(float(mean[0, 0]), np.exp(0.5 * logs))
        z = np.linspace(-3, 3, 40001)
        want = np.trapezoid(a.pdf(z) * (a.logpdf(z) - b.logpdf(z)), z)
        np.testing.assert_allclose(found, want, rtol=1e-6)


@pytest.mark.slow
def test_the_best_learned_variance_is_that_of_the_reverse_step():
    """For x0 ~ N(0, s^2) the reverse step is Gaussian: its variance is where the KL is least."""
    with jax.enable_x64(True):
        path, std = paths.from_betas(np.linspace(0.01, 0.4, 20)), 0.8
        t, s, x = jnp.asarray([0.5]), jnp.asarray([0.45]), jnp.asarray([[0.9]])
        guess = denoiser(path, std)(x, t)
        left = 1 / (1 / std**2 + (path.alpha(t) / path.sigma(t)) ** 2)  # Var(x0 | x_t)

        def mean_kl(fraction):
            # Quadratic in x0, so the mean over x0 | x_t is that over two points.
            ends = (guess + sign * jnp.sqrt(left) for sign in (-1, 1))
            each = [
                gaussian_steps.step_kl(path, "learned", x0, guess, fraction, x, t, s) for x0 in ends
            ]
            return 0.5 * jnp.sum(sum(each))

        grid = np.linspace(0.02, 0.98, 193)
        values = [float(mean_kl(jnp.full((1, 1), f))) for f in grid]
        best = grid[np.argmin(values)]
        cov = lambda u, v: path.alpha(u) * path.alpha(v) * std**2
        forward = path.alpha(t) / path.alpha(s) * path.sigma(s) ** 2
        at_s, at_t = cov(s, s) + path.sigma(s) ** 2, cov(t, t) + path.sigma(t) ** 2
        variance = at_s - (cov(s, t) + forward) ** 2 / at_t  # Var(x_s | x_t), jointly normal
        small = gaussian_steps.posterior(path, x, x, t, s).log_variance[0, 0]
        large = gaussian_steps.largest(path, t, s)[0]
        want = float((jnp.log(variance[0]) - small) / (large - small))
        assert 0.1 < want < 0.9 and abs(best - want) < 0.005


def test_the_bound_of_a_learned_variance_leaves_the_mean_alone():
    path, x0 = paths.PATHS["ddpm"](steps=20), 0.5 * jax.random.normal(KEY, (64, 1))
    loss = gaussian_steps.learned_variance(path, "eps", 20, gaussian_steps.discretised(9), 1.0)

    def bound(params):
        def predict(x, t, cond):
            guess = params["mean"] * denoiser(path, 0.5)(x, t)
            a, s = path.alpha(t)[:, None], path.sigma(t)[:, None]
            return (x - a * guess) / s, jax.nn.sigmoid(params["fraction"]) * jnp.ones_like(x)

        return jnp.mean(loss(predict, KEY, x0, None)[1]["bound"])

    grads = jax.jit(jax.grad(bound))({"mean": jnp.asarray(0.9), "fraction": jnp.asarray(0.0)})
    assert float(grads["mean"]) == 0.0 and abs(float(grads["fraction"])) > 1e-3


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: gaussian.denoising(paths.linear(), "epsilon", None), "config.loss.head='epsilon'"),
        (
            lambda: gaussian.denoising(paths.linear(), "eps", None, "snr"),
            "config.loss.weighting='snr' is unknown; valid: edm, eps",
        ),
    ],
)
def test_unknown_names(make, text):
    with pytest.raises(UserError, match=text):
        make()


def test_a_weight_of_the_noise_alone_is_that_of_every_path():
    """EDM's is 1 / s^2 + 1 / r^2 at r = sigma / alpha, whatever alpha is."""
    with jax.enable_x64(True):
        for name in set(paths.PATHS) - {"ddpm"}:
            path = paths.PATHS[name]()
            t = path.inverse(jnp.asarray([-3.0, 0.0, 2.0]))
            found = gaussian.WEIGHTS["edm"](gaussian.numbers(path, "edm", t, 0.5))
            want = jnp.exp(paths.log_snr(path, t)) + 4.0
            np.testing.assert_allclose(found, want, rtol=1e-9)
            # The head has that error already.
            np.testing.assert_allclose(gaussian.numbers(path, "edm", t, 0.5).own, want, rtol=1e-9)


def test_pure_noise_is_no_number_too_many():
    """On the linear path alpha(1) = 0: the step from there, the loss and the bound are finite."""
    path, t, s = paths.PATHS["linear"](), jnp.ones(1), jnp.full(1, 0.9)
    x0, x = jnp.full((1, 2), 0.3), jnp.ones((1, 2))
    step = gaussian_steps.posterior(path, x0, x, t, s)
    np.testing.assert_allclose(step.mean, 0.1 * x0, rtol=1e-5)  # nothing of x is known of x_s
    np.testing.assert_allclose(jnp.exp(0.5 * step.log_variance), 0.9, rtol=1e-5)
    for head in heads.HEADS:
        predict = predicting(path, head, lambda x, t: 0.1 * x)
        if head == "eps":
            predict = lambda x, t, cond: x
        for weighting in ("simple", "min_snr"):
            loss = gaussian.denoising(path, head, times.on_grid(4), weighting)
            assert np.isfinite(loss(predict, KEY, jnp.zeros((8, 2)), None)[0]).all(), head


def test_log_snr_times_of_an_endless_path():
    """int_{t_min}^1 f dt, but for the last 1e-3 of t, whose log-SNR is below -14."""
    path, t_min = paths.PATHS["linear"](), 0.05
    sampler = times.uniform_in_log_snr(path, t_min)

    def mean(key):
        t, weight = sampler(key, 63)
        return jnp.mean(weight * (0.2 + t))

    values = np.asarray(jax.vmap(mean)(jax.random.split(KEY, 400)))
    truth = 0.2 * 0.95 + 0.5 * (1 - 0.05**2)
    assert abs(values.mean() - truth) < 4 * values.std() / 20 + 1.2e-3
