"""Importance sampling against closed forms, and the laws of entries against sums and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gmjax.likelihoods import importance, observations
from gmjax.types import DataSpec, UserError

KEY = jax.random.key(0)
SPECS = {
    "bernoulli": DataSpec((3,), 2),
    "categorical": DataSpec((3,), 5),
    "gaussian": DataSpec((3,), 0, "euclidean"),
    "discretised_logistic": DataSpec((3,), 5, "image", True),
}
DISCRETE = [name for name, spec in SPECS.items() if spec.num_values]


def law(name):
    return observations.build(name, SPECS[name], "config.model.likelihood")


def raws(name, n, scale=1.0):
    return scale * jax.random.normal(jax.random.key(n), (n, law(name).channels))


def every_log_prob(name, raw):
    """[n, V]."""
    v = SPECS[name].num_values
    x = jnp.broadcast_to(jnp.arange(v), (len(raw), v))
    return law(name).log_prob(x, jnp.broadcast_to(raw[:, None], (len(raw), v, raw.shape[-1])))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("name", DISCRETE)
def test_probabilities_add_up_and_have_their_mean(name, scale):
    raw = raws(name, 40, scale)
    log_p = np.asarray(every_log_prob(name, raw), np.float64)
    assert np.isfinite(log_p).all()
    p = np.exp(log_p)
    np.testing.assert_allclose(p.sum(1), 1, rtol=2e-5)
    np.testing.assert_allclose(law(name).mean(raw), p @ np.arange(p.shape[1]), atol=1e-4)
    slope = jax.grad(lambda raw: every_log_prob(name, raw).sum())(raw)
    assert np.isfinite(slope).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", DISCRETE)
def test_draws_have_the_probabilities(name):
    raw = raws(name, 3)
    x = law(name).sample(KEY, jnp.broadcast_to(raw, (20_000, *raw.shape)))
    p = np.exp(every_log_prob(name, raw))
    assert x.dtype == jnp.int32 and x.min() >= 0 and x.max() < p.shape[1]
    for i in range(3):
        count = np.bincount(x[:, i], minlength=p.shape[1])
        seen = p[i] > 1e-3
        # Nine tests in all at 1e-5: fails once in 10^4 runs.
        assert stats.chisquare(
            np.append(count[seen], count[~seen].sum() + 1e-9),
            len(x) * np.append(p[i][seen], p[i][~seen].sum()) + 1e-9,
            sum_check=False,
        ).pvalue > 1e-5  # fmt: skip


def test_the_logistic_masses_are_those_of_scipy():
    raw = np.array([[0.3, -1.0], [-2.0, 0.5], [0.9, -4.0]])
    scale = np.exp(8 * np.tanh(raw[:, 1] / 8))
    edges = np.array([-np.inf, -0.75, -0.25, 0.25, 0.75, np.inf])
    cdf = special.expit((edges - raw[:, :1]) / scale[:, None])
    sf = special.expit(-(edges - raw[:, :1]) / scale[:, None])
    mass = np.maximum(np.diff(cdf, axis=1), -np.diff(sf, axis=1))
    found = every_log_prob("discretised_logistic", jnp.asarray(raw, jnp.float32))
    np.testing.assert_allclose(found, np.log(mass), rtol=1e-5, atol=1e-5)


def test_log_odds_of_any_size_have_their_gradient():
    law, raw = observations.bernoulli(2), jnp.array([-1e4, -30.0, -1.0, 0.0, 1.0, 30.0, 1e4])
    for x in (0, 1):
        total = lambda raw, x=x: law.log_prob(jnp.full(7, x), raw[:, None]).sum()
        np.testing.assert_allclose(jax.grad(total)(raw), x - jax.nn.sigmoid(raw), atol=1e-6)


def test_the_normal_density():
    raw, x = raws("gaussian", 5), jnp.linspace(-3, 3, 5)
    std = np.exp(8 * np.tanh(np.asarray(raw[:, 1]) / 8))
    exact = stats.norm.logpdf(x, raw[:, 0], std)
    np.testing.assert_allclose(law("gaussian").log_prob(x, raw), exact, rtol=1e-5)
    draws = np.asarray(law("gaussian").sample(KEY, jnp.broadcast_to(raw, (20_000, 5, 2))))
    # Five tests at 1e-5.
    for i in range(5):
        assert stats.kstest(draws[:, i], stats.norm(raw[i, 0], std[i]).cdf).pvalue > 1e-5


@pytest.mark.parametrize(
    "name, spec",
    [
        ("bernoulli", SPECS["categorical"]),
        ("bernoulli", SPECS["gaussian"]),
        ("categorical", SPECS["gaussian"]),
        ("gaussian", SPECS["bernoulli"]),
        ("gaussian", DataSpec((3,), 0, "sphere")),
        ("discretised_logistic", SPECS["categorical"]),
        ("discretised_logistic", SPECS["gaussian"]),
        ("poisson", SPECS["bernoulli"]),
    ],
)
def test_a_law_that_does_not_fit_is_refused(name, spec):
    with pytest.raises(UserError, match=f"config.model.likelihood='{name}' is"):
        observations.build(name, spec, "config.model.likelihood")


def draws(x, mean, chunk, shift=0.0):
    """z ~ N(0, 1), x | z ~ N(z, 1), q = N(mean, 1)."""

    def draw(key):
        z = mean + jax.random.normal(key, (chunk, len(x)))
        log_lik = jax.scipy.stats.norm.logpdf(x, z)
        log_w = log_lik + jax.scipy.stats.norm.logpdf(z) - jax.scipy.stats.norm.logpdf(z, mean)
        return log_w + shift, {"log_lik": log_lik}

    return draw


def test_the_estimate_is_the_log_likelihood():
    x, s = jnp.array([0.3, -1.0, 2.0]), 20_000
    exact = stats.norm.logpdf(x, 0, 2**0.5)
    found = jax.jit(lambda x: importance.estimate(draws(x, x / 2, 500), KEY, s, 500))(x)
    # Three z-scores, |z| < 4.5; q has twice the variance of the posterior.
    assert (np.abs(found.log_mean - exact) < 4.5 * found.error).all()
    # E w^2 / (E w)^2 for a ratio N(m, 1/2) / N(m, 1) is 1 / sqrt(3 / 4).
    ratio = (1 / (3 / 4)) ** 0.5
    np.testing.assert_allclose(found.effective / s, 1 / ratio, rtol=0.03)
    np.testing.assert_allclose(found.error, np.sqrt((ratio - 1) / s), rtol=0.1)
    log_lik = stats.norm.logpdf(x, x / 2, 1) - 0.5
    assert (np.abs(found.parts["log_lik"] - log_lik) < 4.5 * np.sqrt(1.5 / s)).all()


@pytest.mark.parametrize("samples, chunk", [(64, 64), (60, 16), (7, 3)])
def test_chunks_change_nothing_and_what_is_over_is_not_counted(samples, chunk):
    x = jnp.array([0.3, -1.0])
    draw = draws(x, x, chunk)
    keys = jax.random.split(KEY, -(-samples // chunk))
    log_w = np.concatenate(jax.jit(jax.vmap(lambda k: draw(k)[0]))(keys))[:samples].astype(
        np.float64
    )
    run = jax.jit(lambda shift: importance.estimate(draws(x, x, chunk, shift), KEY, samples, chunk))
    for shift in (0.0, 1e4, -1e4):
        found = run(shift)
        exact = special.logsumexp(log_w, 0) - np.log(samples) + shift
        np.testing.assert_allclose(found.log_mean, exact, rtol=1e-6, atol=1e-6)
        w = np.exp(log_w)
        error = w.std(0, ddof=1) / np.sqrt(samples) / w.mean(0)
        # Log-weights of 1e4 are known to 1e-3.
        np.testing.assert_allclose(found.error, error, rtol=1e-3 if shift else 1e-4)
        np.testing.assert_allclose(found.effective, w.sum(0) ** 2 / (w**2).sum(0), rtol=1e-3)
