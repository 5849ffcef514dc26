"""The number of lineages against its series at 200 digits, and draws of it."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from lineages import series
from scipy.special import ndtri
from scipy.stats import chisquare

from gmjax.processes import coalescent

KEY = jax.random.key(5)


@pytest.mark.parametrize("theta", [0.3, 1.0, 4.0, 30.0])
def test_lineages_at_two_hundred_digits(theta):
    """log q_m within 1e-12 absolutely, however small q_m; the table within 1e-6 of q_m."""
    law = coalescent.lineages(theta, 5.0)
    for tau in (law.switch, 0.1, 0.7, 3.0):
        got = coalescent.log_pmf(theta, np.array([tau]), law.terms)[0]
        for m in (0, 1, 3, 12, 40, law.terms - 1):
            exact = series(theta, tau, m)
            if exact > mpmath.mpf(10) ** -100:
                assert abs(got[m] - float(mpmath.log(exact))) < 1e-12, (tau, m)
        assert abs(np.exp(got).sum() - 1) < 1e-9
    with jax.enable_x64():
        run = jax.jit(law.log_pmf)
        for tau in (1.01 * law.switch, 0.123, 1.7, 4.9):
            got = np.exp(run(jnp.asarray(tau)))
            exact = np.exp(coalescent.log_pmf(theta, np.array([tau]), law.terms)[0])
            assert np.abs(got - exact).max() < 1e-6


@pytest.mark.parametrize("theta", [0.3, 4.0, 30.0])
def test_the_normal_law_of_lineages(theta):
    """What the draws x depend on, and the distribution function where the law is worst.

    With all but no sampling error: M of 100 000 quantiles of the normal law.
    """
    switch = coalescent.lineages(theta, 1.0).switch
    with jax.enable_x64():
        z = jnp.asarray(ndtri((np.arange(100_000) + 0.5) / 100_000))
        many = {tau: np.asarray(coalescent.small_time(theta, tau, z)) for tau in (switch, 1e-3)}
    for tau, m in many.items():
        first, second = m / (theta + m), m * (m - 1) / (theta + m) / (theta + m + 1)
        assert abs((1 - first.mean()) / -np.expm1(-theta * tau / 2) - 1) < 1e-4
        assert abs((1 - second.mean()) / -np.expm1(-(theta + 1) * tau) - 1) < 1e-4
    count = int(2 / switch + 8 / switch**0.5)
    exact = np.cumsum(np.exp(coalescent.log_pmf(theta, np.array([switch]), count)[0]))
    got = np.searchsorted(np.sort(many[switch]), np.arange(count), side="right") / len(z)
    assert np.abs(got - exact).max() < 1e-3


@pytest.mark.parametrize("tau", [0.05, 0.4])
def test_the_table_is_drawn_from(tau):
    """Chi-square of 50 000 draws, bins of 20 and more; fails a correct program at 1e-4."""
    law = coalescent.lineages(4.0, 1.0)
    keys = jax.random.split(KEY, 50_000)
    draws = jax.jit(jax.vmap(lambda k: law.sample(k, jnp.asarray(tau))))(keys)
    count = np.bincount(np.asarray(draws).astype(int), minlength=law.terms)
    expected = np.exp(coalescent.log_pmf(4.0, np.array([tau]), law.terms)[0]) * 50_000
    some = expected > 20
    pooled = [np.append(a[some], a[~some].sum()) for a in (count, expected)]
    assert chisquare(pooled[0], pooled[1] / pooled[1].sum() * 50_000).pvalue > 1e-4
