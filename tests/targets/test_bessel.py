"""The ratio of Bessel functions against arbitrary precision."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from gmjax.targets import bessel

ORDERS = [-0.5, 0.0, 0.5, 1.0, 6.5, 30.0, 511.0, 4999.0]
ARGUMENTS = [0.0, 1e-3, 0.3, 2.0, 11.0, 60.0, 900.0, 2e4, 1e6]


def exact(order, k):
    """a, a' (in k^2) and log F - k."""
    with mpmath.workdps(60):
        order, k = mpmath.mpf(order), mpmath.mpf(k)
        series = lambda n: mpmath.hyp0f1(n + 1, k**2 / 4)
        first, second, third = series(order), series(order + 1), series(order + 2)
        a = second / first / (2 * (order + 1))
        # d hyp0f1(b, z) / dz = hyp0f1(b + 1, z) / b, z = k^2 / 4.
        slope = a / 4 * (third / second / (order + 2) - second / first / (order + 1))
        return float(a), float(slope), float(mpmath.log(first) - k)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_ratio_slope_and_logarithm(order):
    want = np.array([exact(order, k) for k in ARGUMENTS]).T

    @jax.jit
    def all_of(k):
        ratio = jax.value_and_grad(lambda s: bessel.scaled_ratio(order, s))
        return *jax.vmap(ratio)(k**2), jax.vmap(lambda k: bessel.log_mean_exp(order, k))(k)

    with jax.enable_x64(True):
        a, slope, logs = (np.asarray(q) for q in all_of(jnp.asarray(ARGUMENTS)))
    np.testing.assert_allclose(a, want[0], rtol=1e-14)
    np.testing.assert_allclose(slope, want[1], rtol=1e-12)
    np.testing.assert_allclose(logs, want[2], rtol=1e-13, atol=1e-11)
    a, slope, logs = all_of(jnp.asarray(ARGUMENTS))
    np.testing.assert_allclose(a, want[0], rtol=1e-6)
    np.testing.assert_allclose(slope, want[1], rtol=3e-6)
    # The parts that cancel are of the size (order + 24) log k, each rounded by 6e-8.
    np.testing.assert_allclose(logs, want[2], rtol=1e-6, atol=1e-6 * (25 + order))
