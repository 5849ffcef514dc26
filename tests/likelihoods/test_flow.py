"""The probability flow's likelihood against the exact Gaussian."""

import gaussians
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.likelihoods import flow
from gmjax.paths import gaussian as paths
from gmjax.paths.heads import HEADS
from gmjax.samplers import grids
from gmjax.targets import TARGETS, laws
from gmjax.types import UserError

KEY = jax.random.key(0)
PROCESS = gaussians.process()
T_MIN = 1e-2


def log_prob(steps, probes=0, n=64, law="rademacher"):
    times = jnp.linspace(1.0, T_MIN, steps + 1)
    run = jax.jit(flow.log_likelihood(PROCESS, times, probes, law), static_argnums=0)
    return run(gaussians.predict, KEY, gaussians.data(KEY, n), None)


@pytest.mark.slow
def test_the_flow_gives_the_exact_log_density():
    """Up to KL(q_1 || base), which the shift e^{-4} of the mean makes 1e-3 at most a point."""
    x = gaussians.data(KEY, 64)
    exact = jax.vmap(lambda x: gaussians.log_q(x, jnp.asarray(T_MIN)))(x)
    np.testing.assert_allclose(log_prob(40), exact, atol=0.06)
    assert abs(float(jnp.mean(log_prob(40) - exact))) < 5e-3


def test_the_error_falls_as_the_fourth_power_of_the_step():
    best = log_prob(192, n=16)
    errors = [float(jnp.max(jnp.abs(log_prob(s, n=16) - best))) for s in (32, 64)]
    assert errors[0] / errors[1] > 8, errors


@pytest.mark.slow
@pytest.mark.parametrize("law", flow.PROBES)
def test_hutchinsons_estimate_is_unbiased(law):
    exact = log_prob(16, n=16)
    rough = log_prob(16, probes=512, n=16, law=law)
    # A normal probe of the divergence has variance |v + v^T|^2 / 2, about 10 over the path, and
    # one of signs less, by what the diagonal has of it.
    assert float(jnp.max(jnp.abs(rough - exact))) < 4.5 * np.sqrt(10 / 512)


@pytest.mark.slow
def test_it_is_differentiable():
    times = grids.uniform(8, T_MIN)
    run = flow.log_likelihood(PROCESS, times)
    x = gaussians.data(KEY, 4)

    def mean(a):
        return jnp.mean(run(lambda x, t, c: a * gaussians.predict(x, t), KEY, x, None))

    slope = jax.jit(jax.grad(mean))(1.1)
    h = 1e-2
    np.testing.assert_allclose(slope, (mean(1.1 + h) - mean(1.1 - h)) / (2 * h), rtol=2e-2)


def test_an_unknown_law_is_named():
    with pytest.raises(UserError, match="config.evaluate.probe='sign' is unknown"):
        flow.log_likelihood(PROCESS, grids.uniform(4, T_MIN), 1, "sign")


def test_without_a_flow_it_says_so():
    with pytest.raises(ValueError, match="no probability flow"):
        flow.log_likelihood(PROCESS._replace(velocity=None), grids.uniform(4, T_MIN))


LAW = TARGETS["gaussian"]([2.0], 0.25)
X = np.linspace(0.5, 3.5, 8)[:, None]
EACH = [(p, [*HEADS][i % len(HEADS)], "uniform") for i, p in enumerate(paths.PATHS)]
EACH += [
    ("linear", "eps", "log_snr"),
    ("linear", "x0", "karras"),
    ("trigonometric", "score", "quadratic"),
]
QUICK = ("linear", "eps", "uniform")


@pytest.mark.parametrize(
    "name, head, grid", [QUICK, *(pytest.param(*c, marks=pytest.mark.slow) for c in EACH)]
)
def test_every_path_head_and_grid_is_of_order_four(name, head, grid):
    """N(2, 1/4), whose exact flow is affine; in double precision, from 32 to 64 steps."""
    path, std = paths.PATHS[name](), 0.8

    @jax.jit
    def error(times):
        run = flow.on_path(path, head, (1,), times, data_std=std)
        found = run(laws.predict(LAW, path, head, std), None, X, None)
        (a, s), (a1, s1) = ((path.alpha(t), path.sigma(t)) for t in (times[-1], times[0]))
        grown = jnp.sqrt((a1**2 / 4 + s1**2) / (a**2 / 4 + s**2))
        end = jax.vmap(paths.process(path, (1,), std).base.log_prob)(2 * a1 + grown * (X - 2 * a))
        return jnp.max(jnp.abs(found - end - jnp.log(grown)))

    with jax.enable_x64(True):
        few, many = (grids.path_grid(grid, n, path, 1e-3) for n in (32, 64))
        few = error(jnp.append(few, jnp.full(32, few[-1])))  # steps that stay, for one compilation
        many = error(many)
    assert many < 2e-4 and 3.5 < np.log2(few / many) < 5, (few, many)


def test_from_pure_noise_the_score_gives_no_velocity():
    """It has lost alpha' E[x0]; a process that keeps some of the data has its flow."""
    assert paths.process(paths.linear(), (1,)).velocity is None
    assert paths.process(paths.PATHS["vp_cosine"](), (1,)).velocity is not None
    with pytest.raises(ValueError, match="flow.on_path"):
        flow.log_likelihood(paths.process(paths.linear(), (1,)), grids.uniform(4, T_MIN))
