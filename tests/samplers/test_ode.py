"""The adaptive flow against the exact one, and what it spends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.paths.gaussian import PATHS
from gmjax.samplers import ode
from gmjax.samplers.gaussian_steps import reader
from gmjax.targets import TARGETS, laws
from gmjax.types import UserError

pytest.importorskip("diffrax", reason="the extra `ode`")

LAW = TARGETS["gaussian"]([0.7, -0.3], [0.25, 0.09])
X = jnp.asarray([[0.3, -1.1], [1.4, 0.2], [-0.8, 2.0]])


def exact(path, x, t_max, t_min):
    """A Gaussian's flow maps mean to mean and scales by the deviations."""
    at = lambda t: (path.alpha(jnp.asarray(t)), path.sigma(jnp.asarray(t)))
    (a, s), (b, r) = at(t_max), at(t_min)
    std = lambda a, s: jnp.sqrt(a**2 * LAW.covariance.diagonal + s**2)
    return b * LAW.mean + std(b, r) / std(a, s) * (x - a * LAW.mean)


@pytest.mark.slow
@pytest.mark.parametrize("name, t_min", [("linear", 1e-3), ("vp_linear", 1e-3), ("karras", 0.0)])
def test_the_flow_is_exact_to_its_tolerance(name, t_min):
    path = PATHS[name]()
    with jax.enable_x64(True):
        x = jnp.asarray(np.asarray(X, float)) * path.sigma(jnp.ones(()))
        predict, read = laws.predict(LAW, path, "v"), reader(path, "v")
        run = jax.jit(lambda x: ode.adaptive(path, read, predict, x, t_min, rtol=1e-8, atol=1e-8))
        out = run(x)
        np.testing.assert_allclose(out.x, exact(path, x, 1.0, t_min), atol=1e-6)


@pytest.mark.parametrize("method", ode.METHODS)
def test_nfe_counts_the_calls(method):
    path, calls = PATHS["linear"](), []
    network = laws.predict(LAW, path, "velocity")

    def predict(x, t, cond):
        jax.debug.callback(lambda: calls.append(1))
        return network(x, t, cond)

    out = jax.jit(
        lambda x: ode.adaptive(path, reader(path, "velocity"), predict, x, 1e-3, method=method)
    )(X[:1])
    jax.effects_barrier()
    assert int(out.nfe) == len(calls)


@pytest.mark.slow
def test_an_example_does_not_depend_on_its_batch():
    path = PATHS["vp_linear"]()
    predict, read = laws.predict(LAW, path, "eps"), reader(path, "eps")
    with jax.enable_x64(True):
        run = jax.jit(lambda x: ode.adaptive(path, read, predict, x, 1e-3))
        x = jnp.asarray(np.asarray(X, float))
        together, alone = run(x), run(x[1:2])
        np.testing.assert_allclose(together.x[1:2], alone.x, atol=1e-9)
    assert int(together.nfe) >= int(alone.nfe)


def test_conditions_go_with_their_examples():
    """The mean of a point is given: every example ends at its own."""
    path = PATHS["linear"]()
    predict = lambda x, t, cond: jnp.broadcast_to(cond["mean"], x.shape)
    mean = jnp.asarray([[0.0, 0.0], [0.5, 2.5], [-0.5, 0.0]])
    run = jax.jit(lambda c: ode.adaptive(path, reader(path, "x0"), predict, X, 1e-4, cond=c).x)
    np.testing.assert_allclose(run({"mean": mean}), mean, atol=1e-3)


@pytest.mark.parametrize(
    "own, text",
    [
        ({"t_min": 0.0}, "config.sample.t_min=0.0 must leave some noise"),
        ({"t_min": 1.0}, "config.sample.t_min=1.0 must lie in"),
        ({"rtol": 0.0}, "config.sample.rtol=0.0 must be positive"),
        ({"method": "rk"}, "config.sample.method='rk' is unknown; valid: dopri5, tsit5"),
        ({"max_steps": 0}, "config.sample.max_steps=0 must be at least 1"),
    ],
)
def test_bad_options_are_named(own, text):
    path = PATHS["linear"]()
    predict, read = laws.predict(LAW, path, "v"), reader(path, "v")
    with pytest.raises(UserError, match=text):
        ode.adaptive(path, read, predict, X, **{"t_min": 1e-3, **own})
