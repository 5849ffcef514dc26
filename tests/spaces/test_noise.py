"""Tangent noise of every space has the covariance of its frame, whatever law draws it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
