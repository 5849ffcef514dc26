"""The reduction to two numbers a particle against the library's gradients and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest
import scipy.stats

from experiments import linear_gaussian as lg
from experiments import vr_iwae_snr as experiment
from experiments.snr_gradients import CURVES, DREP, V, drawn, parts, reduced, simulated


@pytest.fixture(scope="module")
def small():
    """Five dimensions, four points: alpha 0 and 1/2, one and four particles."""
    x, w = lg.problem(jax.random.key(0), 5, 4, 0.3)
    run = jax.jit(lambda key: reduced(key, x, w, (0.0, 0.5), (1, 4), 10_000, share=1))
    return x, w, jax.device_get(run(jax.random.key(1)))


def test_one_particle_is_known(small):
    """c = 1: G has mean -2 h, so E g = -2 delta and std g = |k|, each over the points."""
    x, w, found = small
    delta = np.asarray(lg.offset(w, x))
    for a in (0, 1):
        b = np.mean(-2 * delta, 0)
        exact = np.concatenate([np.mean(-2 * delta * x, 0), b])
        size = np.sqrt(np.mean(np.asarray(x) ** 2, 0)) / 2
        whole = np.concatenate([size, np.full(5, 0.5)])
        for curve, k in (("rep", -2 * V**0.5), ("drep", DREP)):
            i = CURVES.index(curve)
            # The mean is drep's in both, by 10 000 draws of G, whose deviation is |k|.
            np.testing.assert_allclose(found.mean[i, a, 0], exact, atol=5 * abs(DREP) * 0.01)
            np.testing.assert_allclose(found.std[i, a, 0], abs(k) * whole, rtol=0.04)
        mean = np.mean(np.asarray(w.a * x + w.b - w.theta), 0)
        np.testing.assert_allclose(found.mean[0, a, 0, 5:], mean, atol=5 * V**0.5 * 0.01)
        np.testing.assert_allclose(found.std[0, a, 0, 5:], V**0.5 / 2, rtol=0.04)
        elbo = lg.elbo_gap(5, found.h2).mean()
        # One draw of log w at each of four points has a deviation of about 1.
        assert abs(found.gap[a, 0] - elbo) < 0.05


@pytest.mark.slow
def test_it_is_what_the_library_differentiates(small):
    """Means and deviations over 20 000 replicates of four particles."""
    x, w, exact = small
    repeats = 20_000
    found = simulated(jax.random.key(2), x, w, 4, (0.0, 0.5), repeats, 2000)
    for a in (0, 1):
        for curve in CURVES:
            name, i = ("rep" if curve == "theta" else curve), CURVES.index(curve)
            part, own = (slice(5), slice(5, 10)) if curve == "theta" else (slice(5, 15), slice(10))
            mean, var = found.mean[name][0, a, part], found.variance[name][0, a, part]
            std = exact.std[i, a, 1, own]
            # Both have errors: of 1 / sqrt(20 000) and 1 / sqrt(10 000) of a deviation at most.
            # 50 z-scores, |z| < 4.5: fails once in 3 x 10^3 runs.
            z = (mean - exact.mean[i, a, 1, own]) / (std * np.sqrt(1 / repeats + 1e-4))
            assert np.abs(z).max() < 4.5
            # Log variances have errors of sqrt(2 / 20 000) and about as much: 4.5 of them.
            assert np.abs(np.log(var / std**2)).max() < 4.5 * 0.02


@pytest.mark.slow
def test_averages_of_more_draws_have_less_variance(small):
    x, w, _ = small
    found = simulated(jax.random.key(3), x, w, 2, (0.0,), 2000, 500, (1, 4))
    for name in ("rep", "drep"):
        ratio = found.variance[name][0] / found.variance[name][1]
        # Each log variance has an error of sqrt(2 / 2000); 30 ratios, 4.5 of sqrt(2) of them.
        assert np.abs(np.log(ratio / 4)).max() < 4.5 * 0.045


def test_what_an_estimate_shows():
    snr = np.array([0.0, 0.05, 1.0])
    draws = np.random.default_rng(0).normal(snr, 1000**-0.5, (100_000, 3))
    np.testing.assert_allclose(experiment.shown(snr), np.abs(draws).mean(0), rtol=0.01)


def test_the_slope_of_a_known_curve():
    sizes, rng = (16, 32, 64, 128, 256), np.random.default_rng(0)
    n = np.array(sizes)[:, None]
    snr = n**0.5 * np.exp(3 / n) * rng.uniform(1, 2, (6, 1, 1, 1)) * np.ones((6, 1, 5, 4))
    std = np.ones_like(snr)
    found = experiment.Reduced(*(np.stack([v] * 3, 1) for v in (snr, std)), gap=None, h2=None)
    fit = experiment.slopes(found, sizes, "drep", 0)
    np.testing.assert_allclose(fit, 0.5, atol=1e-6)
    assert "holds" in experiment.slope_verdict("", 0.5, fit)
    assert "DOES NOT HOLD" in experiment.slope_verdict("", -0.5, fit)


@pytest.fixture(scope="module")
def keys(small):
    """A hundred keys: 50 draws each of both gradients, and the reduction in blocks."""
    x, w, _ = small
    count, repeats, alphas = 100, 50, (0.0, 0.5)
    delta = np.asarray(lg.offset(w, x))
    h = np.linalg.norm(delta, axis=1)
    own = jax.jit(jax.vmap(lambda key: parts(key, 5, h, alphas, (4,), 5, 1)))
    truth = jax.device_get(own(jax.random.split(jax.random.key(5), 10 * count)))
    truth = [np.float64(f).reshape(count, 10, *f.shape[1:]) for f in truth[:3]]
    g = drawn(jax.random.key(6), x, w, 4, alphas, count * repeats, 500)
    g = {k: np.float64(v).reshape(count, repeats, 2, -1)[..., 5:] for k, v in g.items()}
    points = np.float64(x), delta / h[:, None]

    def tests(name, a, planted=lambda g: g):
        return np.array([
            experiment.agreement(
                planted(g[name][i, :, a]), points, [f[i, :, :, a, 0] for f in truth],
                CURVES.index(name),
            )
            for i in range(count)
        ])  # fmt: skip

    return tests


@pytest.mark.slow
@pytest.mark.parametrize("a", [0, 1])
@pytest.mark.parametrize("name", ["rep", "drep"])
def test_agreement_over_many_keys_is_uniform(keys, name, a):
    """Kolmogorov-Smirnov at 1e-3 each; variances leave their 99.9 % interval 3 times at most."""
    p, excess, half = keys(name, a).T
    assert scipy.stats.kstest(p, "uniform").pvalue > 1e-3
    assert (np.abs(excess) > half).sum() <= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rep", "drep"])
def test_planted_errors_of_the_library_are_found(keys, name):
    """A mean off by a deviation, and draws half as wide again."""
    p = keys(name, 0, lambda g: g + g.std(0))[:, 0]
    assert (p < 1e-4).all()
    _, excess, half = keys(name, 0, lambda g: g.mean(0) + 2 * (g - g.mean(0))).T
    assert (excess - half > 0).mean() > 0.9


def test_the_verdict_of_an_agreement_follows_it():
    made = experiment.Agreement(5, 4, 0.0, "rep", 0.5, 0.01, 0.1)
    say = lambda **of: experiment.verdicts([], [made._replace(**of)], [])[0]
    assert say().count(": holds") == 2
    assert ": DOES NOT HOLD" in say(p_value=1e-6)
    assert ": undecided" in say(p_value=3e-3)
    assert say(excess=1.0).endswith("DOES NOT HOLD")
    assert ": undecided" in say(half=0.5)


def test_a_published_figure_can_be_refuted():
    check = experiment.Check(20, 0.01, 0.0, "gap at 512", -1.0, -1.0, 0.01)
    say = lambda **of: experiment.verdicts([check._replace(**of)], [], [])[0]
    assert say().endswith("holds") and say(ours=-2.0).endswith("DOES NOT HOLD")
    assert ": undecided" in say(error=1.0)


@pytest.mark.slow
def test_smoke(tmp_path):
    lines = experiment.run(experiment.PRESETS["smoke"], tmp_path)
    rows = pages.read(tmp_path, "snr.csv", lines)
    for wrong in ("DOES NOT", "DO NOT"):
        assert not [line for line in lines if wrong in line]
    snr = {(r["alpha"], r["n"]): float(r["snr"]) for r in rows if r["curve"] == "rep"}
    assert snr["0.0", "2"] > snr["0.0", "32"] and snr["0.5", "2"] < snr["0.5", "32"]
    assert jnp.isfinite(jnp.asarray([float(r["snr"]) for r in rows])).all()
