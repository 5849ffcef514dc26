"""A product's calculus is the sum of its parts', and a flow on it has the exact density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.likelihoods import flow
from gmjax.paths.interpolants import normal
from gmjax.spaces import calculus
from gmjax.spaces.euclidean import euclidean
from gmjax.spaces.product import product
from gmjax.spaces.rotations import rotations
from gmjax.spaces.sphere import sphere

KEY = jax.random.key(0)
BOTH = product({"a": sphere(2), "b": rotations()})


def state(key=KEY):
    return {n: BOTH.uniform.sample(key)[n] for n in ("a", "b")}


@pytest.mark.slow
def test_the_frame_spans_every_part_and_nothing_mixed():
    x = state()
    e = BOTH.frame(x)
    assert {n: v.shape for n, v in e.items()} == {"a": (6, 3), "b": (6, 3, 3)}
    field = lambda x: {
        "a": sphere(2).tangent(x["a"], jnp.asarray([1.0, 2.0, 3.0])),
        "b": rotations().tangent(x["b"], jnp.arange(9.0).reshape(3, 3)),
    }
    total = jnp.sum(jax.vmap(lambda v: BOTH.inner(x, v, jax.jvp(field, (x,), (v,))[1]))(e))
    parts = calculus.divergence(sphere(2), lambda y: field({**x, "a": y})["a"], x["a"])
    parts += calculus.divergence(rotations(), lambda y: field({**x, "b": y})["b"], x["b"])
    np.testing.assert_allclose(total, parts, rtol=1e-5)


def test_geodesics_distances_and_checks_go_part_by_part():
    x, y = state(), state(jax.random.key(1))
    v = BOTH.log(x, y)
    there = BOTH.project(BOTH.exp(x, v))
    for n in x:
        np.testing.assert_allclose(there[n], y[n], atol=1e-5)
    square = sum(s.inner(x[n], v[n], v[n]) for n, s in (("a", sphere(2)), ("b", rotations())))
    np.testing.assert_allclose(BOTH.inner(x, v, v), square, rtol=1e-6)
    assert BOTH.dim == 5 and BOTH.embed(x).shape == (12,)
    batch = {n: np.asarray(a)[None] for n, a in x.items()}
    assert BOTH.check(batch) == ""
    assert BOTH.check({**batch, "a": 2 * batch["a"]}).startswith("a: norms differ")
    noise = BOTH.noise(KEY, x)
    np.testing.assert_allclose(BOTH.tangent(x, noise)["a"], noise["a"], atol=1e-6)
    np.testing.assert_allclose(BOTH.uniform.log_prob(x), -np.log(4 * np.pi) - np.log(8 * np.pi**2))


@pytest.mark.slow
def test_a_flow_on_a_product_has_the_exact_density():
    """v = (k x, rotation about an axis): N(0, e^{2k}) pulled back, and nothing for the rotation."""
    k = 0.7
    spaces = {"a": euclidean(2), "b": rotations()}
    base = normal((2,))
    log_base = lambda x: base.log_prob(x["a"]) + rotations().uniform.log_prob(x["b"])
    hat = jnp.asarray([[0.0, -1, 0], [1, 0, 0], [0, 0, 0]])
    velocity = lambda out, x, t: {"a": k * x["a"], "b": x["b"] @ hat}
    run = flow.along(spaces, velocity, log_base, jnp.linspace(1, 0, 9))
    x = {
        "a": jax.random.normal(KEY, (5, 2)),
        "b": jax.vmap(rotations().uniform.sample)(jax.random.split(KEY, 5)),
    }
    found = jax.jit(lambda x: run(lambda x, t, c: None, KEY, x, None))(x)
    exact = base.log_prob
    want = jax.vmap(exact)(np.exp(k) * x["a"]) + 2 * k - np.log(8 * np.pi**2)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)
