"""Of every space: the covariance of its tangent noise, and derivatives where they could be NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.spaces import calculus
from gmjax.spaces.euclidean import euclidean
from gmjax.spaces.hyperbolic import hyperbolic, lift, origin
from gmjax.spaces.product import product
from gmjax.spaces.rotations import rotations
from gmjax.spaces.simplex import simplex
from gmjax.spaces.sphere import sphere
from gmjax.spaces.torus import torus

SPACES = {
    "euclidean": (euclidean((3,)), jnp.asarray([0.3, -1.0, 2.0])),
    "sphere": (sphere(2), jnp.asarray([0.6, 0.0, 0.8])),
    "torus": (torus(2), jnp.asarray([0.3, -1.0])),
    "rotations": (rotations(), jnp.eye(3)[jnp.asarray([1, 2, 0])]),
    "simplex": (simplex(3), jnp.asarray([0.2, 0.3, 0.5])),
    "hyperbolic": (
        hyperbolic(2),
        hyperbolic(2).exp(origin(2), lift(origin(2), jnp.asarray([0.5, 1.0]))),
    ),
}
SPACES["product"] = (
    product({"a": SPACES["sphere"][0], "b": SPACES["torus"][0]}),
    {"a": SPACES["sphere"][1], "b": SPACES["torus"][1]},
)


def flat(tree):
    return jnp.concatenate([a.reshape(len(a), -1) for a in jax.tree.leaves(tree)], -1)


@pytest.mark.parametrize("draw", [jax.random.normal, jax.random.rademacher])
@pytest.mark.parametrize("name", SPACES)
def test_the_covariance_is_that_of_the_frame(name, draw):
    space, x = SPACES[name]
    n = 4096
    keys = jax.random.split(jax.random.key(0), n)
    v = np.asarray(flat(jax.jit(jax.vmap(lambda k: space.noise(k, x, draw)))(keys)), np.float64)
    e = np.asarray(flat(space.frame(x)), np.float64)
    found, want = v.T @ v / n, e.T @ e
    error = np.std(v[:, :, None] * v[:, None, :], 0) / np.sqrt(n)
    assert (np.abs(found - want) <= 4.5 * error + 1e-5).all()
    assert (np.abs(v.mean(0)) <= 4.5 * v.std(0) / np.sqrt(n) + 1e-5).all()


TURN = jnp.asarray([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
# name -> points on the edge of what log and exp reach from the point of SPACES
EDGES = {
    "euclidean": [jnp.full(3, 1e15)],
    "sphere": [-SPACES["sphere"][1], jnp.asarray([0.8, 0.0, -0.6])],
    "torus": [SPACES["torus"][1] - jnp.pi, jnp.full(2, -jnp.pi)],
    "rotations": [SPACES["rotations"][1] @ TURN],
    "simplex": [jnp.asarray([1.0, 0, 0]), jnp.asarray([0.5, 0.5, 0])],
    "hyperbolic": [hyperbolic(2).project(jnp.asarray([1.0, 1e17, -2e17]))],
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow) if n in ("hyperbolic", "rotations") else n
        for n in EDGES
    ],
)
def test_derivatives_are_finite_at_the_point_itself_and_at_the_edge(name):
    space, x = SPACES[name]

    def all_of(y):
        v = space.log(x, y)
        there = space.exp(x, v), space.log(x, y), space.project(y), space.embed(y)
        return *there, calculus.distance(space, x, y)

    ys = jnp.stack([x, *EDGES[name]])
    values, slopes = jax.jit(jax.vmap(lambda y: (all_of(y), jax.jacrev(all_of)(y))))(ys)
    still = jax.jacfwd(lambda v: space.exp(x, v))(jnp.zeros_like(x))
    for leaf in jax.tree.leaves((values, slopes, still)):
        assert np.isfinite(leaf).all()
    np.testing.assert_allclose(values[-1][0], 0, atol=1e-6)
