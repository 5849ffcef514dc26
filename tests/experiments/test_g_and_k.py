"""The exact law, its Markov chains and the rank test are right, and the experiment runs."""

import csv
import sys

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pages
import pytest
import scipy.stats

from experiments import g_and_k as experiment
from experiments import g_and_k_network as network
from experiments import g_and_k_reference as exact

THETAS = ((3.0, 1.0, 2.0, 0.5), (0.1, 7.0, 9.9, 0.0), (9.0, 0.01, 0.3, 9.5), (5.0, 2.0, 0.0, 3.0))

METHODS = ("gaussian", "diffusion")


@pytest.fixture(scope="module")
def log_density():
    """exact.log_density in float64, compiled once a shape."""
    with jax.enable_x64(True):
        yield jax.jit(exact.log_density)


def plain_quantile(z, theta):
    a, b, g, k = theta
    return a + b * (1 + mpmath.mpf("0.8") * mpmath.tanh(g * z / 2)) * (1 + z**2) ** k * z


def test_the_density_integrates_to_one_and_to_the_distribution_function(log_density):
    """Gauss-Legendre panels in u, x = A + B sinh(u), over thirty-nine orders of magnitude.

    They are fine in the middle, where at g = 9.9, k = 0 the density has a spike of width 1e-3.
    """
    sides = np.linspace(3, 45, 43)
    edges = np.concatenate([-sides[:0:-1], np.linspace(-3, 3, 601), sides[1:]])
    node, weight = np.polynomial.legendre.leggauss(20)
    half = 0.5 * np.diff(edges)[:, None]
    u = edges[:-1, None] + half * (1 + node)
    for theta in THETAS:
        x = (theta[0] + theta[1] * np.sinh(u)).ravel()
        density = np.exp(log_density(x, np.array(theta))).reshape(u.shape)
        mass = np.sum(half * weight * density * theta[1] * np.cosh(u), 1)
        np.testing.assert_allclose(mass.sum(), 1, rtol=1e-8)
        z = exact.invert(jnp.asarray(np.sinh(edges[1:])), *theta[2:])
        np.testing.assert_allclose(mass.cumsum(), scipy.stats.norm.cdf(z), atol=1e-8)


def test_the_density_is_that_of_fifty_digits(log_density):
    with mpmath.workdps(50):
        for theta in THETAS:
            for z in (-4, -0.7, -1e-3, 0.4, 5):
                z, exactly = mpmath.mpf(z), [mpmath.mpf(v) for v in theta]
                slope = mpmath.diff(lambda z, e=exactly: plain_quantile(z, e), z)
                expected = mpmath.log(mpmath.npdf(z) / slope)
                x = np.array([float(plain_quantile(z, exactly) - exactly[0])])
                # A is left out: it would cost the digits of x close to it.
                got = log_density(x, np.array((0.0, *theta[1:])))
                np.testing.assert_allclose(got[0], float(expected), rtol=1e-9)


def test_it_is_normal_where_g_and_k_are_zero(log_density):
    x = np.linspace(-30, 40, 101)
    got = log_density(x, np.array([3.0, 2.0, 0.0, 0.0]))
    np.testing.assert_allclose(got, scipy.stats.norm.logpdf(x, 3, 2), rtol=1e-12)


def test_inversion_far_from_the_truth():
    """Data of one law under the parameters of another, as a chain meets them."""
    rng, n = np.random.default_rng(0), 20_000
    with jax.enable_x64(True):
        w = rng.choice([-1, 1], n) * 10 ** rng.uniform(-8, 14, n)
        g, k = rng.uniform(0, 10, (2, n)) * rng.choice([1, 1e-3], (2, n))
        z = exact.invert(jnp.asarray(w), jnp.asarray(g), jnp.asarray(k))
        theta = jnp.stack([np.zeros(n), np.ones(n), g, k], -1)
        np.testing.assert_allclose(exact.quantile(z[:, None], theta)[:, 0], w, rtol=1e-11)
        assert exact.invert(jnp.zeros(1), 2.0, 0.5) == 0


def test_coordinates_turn_the_prior_normal():
    y = np.array([-2.0, 0.0, 1.3])
    with jax.enable_x64(True):
        np.testing.assert_allclose(exact.to_theta(y), 10 * scipy.stats.norm.cdf(y))
        np.testing.assert_allclose(exact.to_y(exact.to_theta(y)), y)


def test_sorted_normals_are_sorted_and_normal():
    """Order statistics' means, n = 5, 20 000 times, |z| < 4.5; pooled, p > 1e-4 of normality."""
    n, size = 5, 20_000
    x = np.asarray(network.sorted_normals(jax.random.key(0), size, n), np.float64)
    assert (np.diff(x) >= 0).all()
    i = np.arange(1, n + 1)
    error = np.sqrt(i * (n + 1 - i) / (n + 1) ** 2 / (n + 2) / size)
    z = (scipy.stats.norm.cdf(x).mean(0) - i / (n + 1)) / error
    assert np.abs(z).max() < 4.5
    assert scipy.stats.kstest(x.ravel(), "norm").pvalue > 1e-4


def test_features_see_one_parameter_each():
    """Scores symmetric about zero make the median A and the ratio of its sides g's alone."""
    z = np.array([-2.0, -1.0, -0.4, 0.0, 0.4, 1.0, 2.0], np.float32)
    theta = np.array([(1, 2, 3, 0.5), (9, 5, 3, 0.5), (1, 2, 3, 7), (1, 2, 0, 7)], np.float32)
    f = np.asarray(network.features(exact.quantile(z, jnp.asarray(theta))))
    assert f.shape == (4, 8)
    np.testing.assert_allclose(f[0, :6], f[1, :6], atol=1e-4)
    u = 0.8 * np.tanh(1.5 * z[:3:-1])
    for i in (0, 2):
        np.testing.assert_allclose(f[i, 3:6], np.log((1 + u) / (1 - u)), atol=1e-4)
    np.testing.assert_allclose(f[3, 3:6], 0, atol=1e-4)
    gain = np.log1p(z[:3] ** 2)
    steps = f[2, :3] - f[0, :3]  # k from 0.5 to 7, over the interquartile range
    np.testing.assert_allclose(steps[:2] - steps[2], 6.5 * (gain[:2] - gain[2]), atol=1e-4)
    tied = jnp.full((1, 8), 3.0)
    assert np.isfinite(network.features(tied)).all()


@pytest.mark.slow
def test_the_chart_is_a_gaussian():
    rng = np.random.default_rng(0)
    x = np.sort(rng.normal(3, 1, (2, 50)), 1)
    at = network.chart(jnp.asarray(rng.normal(0, 0.5, (2, 14)), jnp.float32), x)
    y = jnp.asarray(rng.normal(0, 1, (2, 7, 4)), jnp.float32)
    np.testing.assert_allclose(at.back(at.to(y)), y, atol=1e-4)
    loss = network.gaussian_loss(at.to(y[:, 0]), at.root)
    for i in range(2):
        covariance = np.linalg.inv(at.root[i].T @ at.root[i])
        log_prob = scipy.stats.multivariate_normal(at.mean[i], covariance).logpdf(y[i, 0])
        np.testing.assert_allclose(-loss[i] - 2 * np.log(2 * np.pi), log_prob, rtol=1e-3)


def test_a_network_of_zeros_leaves_the_gaussian():
    x = np.sort(np.random.default_rng(0).normal(3, 1, (2, 50)), 1).astype(np.float32)
    trained = network.Trained(
        lambda x: network.chart(jnp.zeros((len(x), 14)), x),
        lambda z, t, cond: network.output(jnp.zeros_like(z), z, t),
        lambda x: x,
        {},
    )
    draws = {
        method: network.sampler(trained, "flow", 8, method)(jax.random.key(0), x, 5)
        for method in ("gaussian", "diffusion")
    }
    assert draws["gaussian"].shape == (2, 5, 4)
    np.testing.assert_allclose(draws["diffusion"], draws["gaussian"], atol=1e-4)


@pytest.fixture(scope="module")
def gaussian_chains():
    """Four ensembles of eight walkers on a correlated Gaussian."""
    rng = np.random.default_rng(0)
    mean, root = rng.normal(0, 3, 4), np.tril(rng.normal(0, 1, (4, 4))) + 2 * np.eye(4)
    inverse = jnp.asarray(np.linalg.inv(root @ root.T))
    start = jax.random.normal(jax.random.key(1), (4, 8, 4))
    log_prob = lambda x: -0.5 * (x - mean) @ inverse @ (x - mean)
    run = jax.jit(lambda key: exact.ensembles(log_prob, key, start, 500, 8000))
    return mean, root @ root.T, jax.tree.map(np.asarray, run(jax.random.key(0)))


def test_ensembles_sample_a_gaussian(gaussian_chains):
    """Means and second moments by their effective sizes: 14 figures, |z| < 4.5."""
    mean, covariance, chains = gaussian_chains
    assert 0.3 < chains.acceptance < 0.8
    assert exact.r_hat(chains.x).max() < 1.02
    x = chains.x.astype(np.float64) - mean
    first, second = np.triu_indices(4)
    squares = x[..., first] * x[..., second]
    for values, truth in ((x, np.zeros(4)), (squares, covariance[first, second])):
        flat = values.reshape(-1, values.shape[-1])
        effective = exact.effective_size(values, groups=4)
        z = (flat.mean(0) - truth) / (flat.std(0) / np.sqrt(effective))
        assert np.abs(z).max() < 4.5
        # An ensemble of eight in four dimensions is slow: a draw in 10 to 200 steps a walker.
        assert (effective > len(flat) / 200).all() and (effective < len(flat) / 5).all()


def test_effective_size_and_r_hat_of_known_chains():
    """AR(1) of coefficient rho keeps (1 - rho) / (1 + rho) of its length; twelve chains agree to
    a standard error of about 4 %."""
    rng, n, rho = np.random.default_rng(0), 20_000, 0.8
    noise = rng.normal(size=(n, 12, 2))
    x = np.empty_like(noise)
    x[0] = noise[0]
    for i in range(1, n):
        x[i] = rho * x[i - 1] + np.sqrt(1 - rho**2) * noise[i]
    for values, share in ((noise, 1.0), (x, 0.2 / 1.8)):
        for groups in (12, 3):  # independent walkers: the grouping must not matter
            got = exact.effective_size(values, groups)
            np.testing.assert_allclose(got, 12 * n * share, rtol=0.2)
    assert exact.r_hat(x).max() < 1.01
    assert exact.r_hat(x + np.arange(12)[:, None]).min() > 1.5


def test_ranks_of_a_known_case():
    draws = np.array([[[0.0, 5.0], [1.0, 6.0], [2.0, 7.0]]])
    np.testing.assert_array_equal(experiment.ranks(np.array([[1.5, 4.0]]), draws), [[2, 0]])
    counts = experiment.rank_counts(np.array([[0], [1], [2], [3], [3]]), ranked=3, bins=2)
    np.testing.assert_array_equal(counts, [[2, 3]])


def conjugate(width: float = 1.0, bias: float = 0.0) -> float:
    """The least p-value of 2000 ranks of theta ~ N(0, I), x ~ N(theta, 1/2), by N(m, width^2 v)."""
    rng, v = np.random.default_rng(0), 1 / 3
    theta = rng.normal(size=(2000, 4))
    x = rng.normal(theta, np.sqrt(0.5))
    draws = rng.normal(size=(2000, 99, 4)) * width * np.sqrt(v) + (2 * v * x + bias)[:, None]
    counts = experiment.rank_counts(experiment.ranks(theta, draws), 99, 20)
    return experiment.uniformity(counts).min()


def test_calibration_passes_the_exact_posterior_and_no_other():
    """Four tests at 1e-4; a width off by a fifth or a bias of a quarter deviation is found."""
    assert conjugate() > 1e-4
    assert conjugate(width=0.8) < 1e-4
    assert conjugate(width=1.25) < 1e-4
    assert conjugate(bias=0.25 / np.sqrt(3)) < 1e-4


def test_the_band_holds_uniform_histograms():
    """1 - 0.01 or more of 2000; the standard error of the share is .0022."""
    low, high = experiment.band(500, 20)
    counts = np.random.default_rng(0).multinomial(500, np.full(20, 1 / 20), 2000)
    inside = np.mean(((counts >= low) & (counts <= high)).all(1))
    assert 0.99 - 4 * 0.0022 < inside < 1


def test_distances_of_a_shifted_and_widened_law():
    x = np.random.default_rng(0).normal(size=100_000)
    got = experiment.compare(2 * x + 0.5, x)
    np.testing.assert_allclose((got["shift"], got["ratio"]), (0.5, 2), atol=0.02)
    np.testing.assert_allclose(experiment.compare(x + 0.5, x)["wasserstein"], 0.5, atol=0.01)
    ks = 2 * scipy.stats.norm.cdf(0.25) - 1
    np.testing.assert_allclose(experiment.compare(x + 0.5, x)["ks"], ks, atol=0.01)


@pytest.mark.parametrize(
    ("shift", "p", "r_hat", "said"),
    [
        (0.1, 0.5, 1.01, ()),
        (0.4, 0.5, 1.01, ("close",)),
        (-0.4, 1e-3, 1.01, ("close", "uniform")),
        (0.0, 0.5, 1.2, ("converged",)),
    ],
)
def test_verdicts_say_what_was_measured(shift, p, r_hat, said):
    row = experiment.Row(0, "mcmc", "A", 3.0, 3.0, 0.1, 0.0, 1.0, 0.0, 0.0, r_hat, 1000.0)
    own = row._replace(method="diffusion", shift=shift, r_hat=np.nan, effective=np.nan)
    ranked = experiment.Ranks("diffusion", "A", 100, 9, p, (50, 50))
    text = "\n".join(experiment.verdicts([row, own], [ranked]))
    for word in ("close", "uniform", "converged"):
        assert f"{word}: {'DOES NOT HOLD' if word in said else 'holds'}" in text


def check_page(out, text):
    """The files of a run, each with a row for every method and parameter."""
    rows = pages.read(out, "posterior.csv", text, "ranks.csv")
    assert [r["method"] for r in rows] == ["mcmc", "gaussian", "diffusion"] * 4
    assert all(np.isfinite(float(r["shift"])) and float(r["std"]) > 0 for r in rows)
    ranks = list(csv.DictReader((out / "ranks.csv").open()))
    assert len(ranks) == 8 and all(float(r["p_value"]) >= 0 for r in ranks)


@pytest.mark.slow
def test_a_page_of_draws_that_agree(tmp_path):
    """Chains and draws of one law: every difference is noise, 4.5 standard errors at most."""
    rng, n = np.random.default_rng(0), 4000
    y = rng.normal(-0.8, 0.1, (n // 4, 32, 4))
    own = {m: np.asarray(exact.to_theta(rng.normal(-0.8, 0.1, (n, 4)))) for m in METHODS}
    rows = list(experiment.posterior_rows(0, exact.Chains(y, 0.5), 4, own))
    assert max(abs(r.shift) for r in rows) < 4.5 / np.sqrt(n)
    assert all(r.effective > n and r.r_hat < 1.01 for r in rows if r.method == "mcmc")
    counts = tuple(rng.multinomial(500, np.full(10, 0.1)))
    ranked = [experiment.Ranks(m, p, 500, 99, 0.5, counts) for m in METHODS for p in exact.NAMES]
    theta = {"mcmc": np.asarray(exact.to_theta(y)).reshape(-1, 4), **own}
    lines = experiment.write(rows, ranked, theta, tmp_path)
    check_page(tmp_path, "\n".join(lines) + "\n")
    assert "NOT" not in "".join(lines)


@pytest.mark.slow
def test_smoke(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["g_and_k", "--preset", "smoke", "--out", str(tmp_path)])
    experiment.main()
    check_page(tmp_path, capsys.readouterr().out)


def test_an_unknown_preset_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["g_and_k", "--preset", "huge"])
    with pytest.raises(SystemExit):
        experiment.main()
    assert "invalid choice: 'huge'" in capsys.readouterr().err
