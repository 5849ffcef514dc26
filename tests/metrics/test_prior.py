"""The split of the KL divergence, on a linear encoder of Gaussian data where all of it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from gmjax.metrics import prior
from gmjax.types import UserError

N, Q = 4000, 2
SPREAD = np.array([[1.2, 0.3], [0.3, 0.5]])  # covariance of the posterior means
SHIFT = np.array([0.4, -0.2])
STD = np.array([0.6, 0.8])  # of a posterior


def kl(m, c):
    """KL(N(m, c) || N(0, I))."""
    return 0.5 * (np.trace(c) + m @ m - len(m) - np.linalg.slogdet(c)[1])


@pytest.fixture(scope="module")
def codes():
    factor = np.linalg.cholesky(SPREAD)
    mean = SHIFT + np.random.default_rng(0).normal(size=(N, Q)) @ factor.T
    return jnp.asarray(mean, jnp.float32), jnp.log(jnp.tile(jnp.asarray(STD, jnp.float32), (N, 1)))


def exact():
    whole = SPREAD + np.diag(STD**2)
    mismatch = kl(SHIFT, whole)
    information = 0.5 * (np.linalg.slogdet(whole)[1] - np.log(STD**2).sum())
    return mismatch + information, information, mismatch


def test_all_three_parts_are_the_closed_forms(codes):
    expected = exact()
    for own in (True, False):
        found = prior.split(jax.random.key(1), *codes, draws=2, own=own)
        # The mixture of N posteriors has a bias of order 1 / N beyond the errors: with one's own
        # posterior q(z) gains (1 / N) E q(z|x)/q(z), here 1.5 / N nats. Three z-scores, |z| < 4.
        for (value, error), right in zip(found, expected, strict=True):
            assert 0 < error < 0.03
            assert abs(value - right) < 4 * error + 2 / N
        total = found.information[0] + found.mismatch[0]
        np.testing.assert_allclose(found.kl[0], total, rtol=1e-6)


def test_errors_are_those_of_repeated_data(codes):
    """The spread of estimates from disjoint parts is what a part says of itself."""
    mean, log_std = codes
    parts = [prior.split(jax.random.key(i), mean[i::20], log_std[i::20]).kl for i in range(20)]
    spread = np.std([value for value, _ in parts], ddof=1)
    said = np.mean([error for _, error in parts])
    # The relative error of a standard deviation of 20 values is 0.16.
    assert 0.5 < spread / said < 1.6


@pytest.mark.parametrize("m, n", [(7, 5), (600, 1300)])
def test_the_mixture_is_that_of_scipy_with_and_without_its_own(m, n):
    rng = np.random.default_rng(2)
    z, mean = rng.normal(size=(m, 3)), rng.normal(size=(n, 3))
    log_std = 0.5 * rng.normal(size=(n, 3))
    index = rng.integers(n, size=m)
    law = [
        multivariate_normal(a, np.diag(np.exp(2 * b))).pdf(z)
        for a, b in zip(mean, log_std, strict=True)
    ]
    law = np.stack(law, 1)
    args = [jnp.asarray(a, jnp.float32) for a in (z, mean, log_std)]
    np.testing.assert_allclose(
        prior.log_aggregate(*args), np.log(law.mean(1)), rtol=1e-4, atol=1e-4
    )
    law[np.arange(m), index] = 0
    np.testing.assert_allclose(
        prior.log_aggregate(*args, jnp.asarray(index), own=False),
        np.log(law.sum(1) / (n - 1)), rtol=1e-4, atol=1e-4,
    )  # fmt: skip


@pytest.mark.slow
def test_narrow_posteriors_carry_all_the_information_there_is(codes):
    mean, log_std = codes
    found = prior.split(jax.random.key(0), mean[:100], jnp.full((100, Q), -9.0))
    np.testing.assert_allclose(found.information[0], np.log(100), rtol=1e-4)
    none = prior.split(jax.random.key(0), jnp.zeros((100, Q)), jnp.zeros((100, Q)), draws=3)
    np.testing.assert_allclose([none.information[0], none.mismatch[0]], 0.0, atol=1e-5)


def test_another_prior_and_fewer_codes(codes):
    whole = jnp.asarray(SPREAD + np.diag(STD**2), jnp.float32)
    law = lambda z: jax.scipy.stats.multivariate_normal.logpdf(z, jnp.asarray(SHIFT), whole)
    value, error = prior.split(jax.random.key(3), *codes, log_prior=law, limit=1000).mismatch
    assert abs(value) < 4 * error + 2 / N
    with pytest.raises(UserError, match="draws=0"):
        prior.split(jax.random.key(0), *codes, draws=0)
