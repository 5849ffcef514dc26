"""Bounds at the exact denoiser against the exact likelihood of a law on levels.

One entry with V equally likely levels: x_t is a mixture of V normal laws, its denoiser is a sum,
and -log p(x0) = log V. In continuous time the bound at the exact denoiser loses nothing but the
prior's mismatch; with T steps it loses O(1 / T).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.likelihoods import gaussian
from gmjax.losses import gaussian_steps, times
from gmjax.paths import gaussian as paths

V = 4
LEVELS = jnp.linspace(-1, 1, V)
X0 = jnp.tile(LEVELS, 2048)[:, None]


def exact(path, wrong=0.0):
    """The x0 head of the exact posterior mean, plus an error."""

    def predict(x, t, cond):
        a, s = path.alpha(t)[:, None], path.sigma(t)[:, None]
        logits = -0.5 * ((x - a * LEVELS) / s) ** 2
        return jnp.sum(jax.nn.softmax(logits) * LEVELS, -1, keepdims=True) + wrong

    return predict


def run(bound, predict):
    parts = jax.jit(lambda key: bound(predict, key, X0, None))(jax.random.key(1))
    nats = np.asarray(parts["nats"])
    np.testing.assert_allclose(
        nats, sum(np.asarray(v) for k, v in parts.items() if k != "nats"), rtol=1e-5
    )
    return nats.mean(), nats.std() / np.sqrt(len(nats))


@pytest.mark.parametrize("name", ["vp_cosine", "log_snr_linear"])
def test_the_continuous_bound_is_tight(name):
    keys = {"vp_cosine": {"alpha_min": 1e-6}, "log_snr_linear": {"low": -12.0}}[name]
    path = paths.PATHS[name](**keys)
    t_min = 0.02
    sampler = times.uniform_in_log_snr(path, t_min)
    make = lambda: gaussian.continuous(path, "x0", sampler, t_min, LEVELS, 100)
    mean, error = run(make(), exact(path))
    # 4.5 standard errors; the reconstruction and the prior are below 1e-4 here.
    assert abs(mean - np.log(V)) < 4.5 * error + 1e-4, (mean, error)
    assert error < 0.01
    worse, _ = run(make(), exact(path, 0.1))
    assert worse > mean + 0.05


@pytest.mark.slow
def test_the_discrete_bound_tends_to_it_like_one_over_steps():
    """T (bound - log V) is the same at 100 and 400 steps, and variances above q's cost more."""
    gaps = {}
    for steps, variance in ((100, "small"), (400, "small"), (400, "large")):
        path = paths.from_betas(np.linspace(0.02, 16.0, steps) / steps)
        decode = gaussian_steps.discretised(V)
        bound = gaussian.discrete(path, "x0", steps, decode, variance, num_times=steps)
        mean, error = run(bound, exact(path))
        gaps[steps, variance] = mean - np.log(V), error
    (coarse, coarse_error), (fine, fine_error) = gaps[100, "small"], gaps[400, "small"]
    assert fine > 4.5 * fine_error  # a bound from above, and not yet tight
    assert abs(coarse - 4 * fine) < 4.5 * np.hypot(coarse_error, 4 * fine_error)
    assert gaps[400, "large"][0] > 5 * fine


@pytest.mark.slow
def test_few_of_the_steps_estimate_them_all():
    path = paths.from_betas(np.linspace(0.02, 16.0, 60) / 60)
    make = lambda n: gaussian.discrete(path, "x0", 60, gaussian_steps.discretised(V), num_times=n)
    (few, few_error), (every, every_error) = (run(make(n), exact(path)) for n in (7, 59))
    assert abs(few - every) < 4.5 * np.hypot(few_error, every_error)
