"""Every row of the table builds, and its functions agree on shapes and stay finite.

The oracles of each process are in its own file; this one keeps a row from being without a test.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.processes import LIFTS, PROCESSES, schedules
from gmjax.types import DataSpec, UserError

FLAT = DataSpec((2,), 0, "euclidean")
SPECS = {
    "vp": FLAT,
    "ve": FLAT,
    "sub_vp": FLAT,
    "multi_speed": FLAT,
    "langevin": FLAT,
    "sphere": DataSpec((3,), 0, "sphere"),
    "torus": DataSpec((2,), 0, "torus"),
    "rotations": DataSpec((3, 3), 0, "rotations"),
    "hyperbolic": DataSpec((3,), 0, "hyperbolic"),
    "half_line": DataSpec((2,), 0, "half_line"),
    "squared_bessel": DataSpec((2,), 0, "half_line"),
    "wright_fisher": DataSpec((3,), 0, "simplex"),
    "counts": DataSpec((4,), 0, "counts"),
    "table": DataSpec({"numeric": (2,), "classes": (1,)}, 3, "table"),
    "poses": DataSpec({"position": (3,), "rotation": (3, 3)}, 0, "poses"),
}
OWN = {"counts": {"cap": 16}}
KEY = jax.random.key(0)


def test_every_row_is_here():
    assert set(SPECS) == set(PROCESSES)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_a_row_builds_and_its_functions_fit(name):
    process = PROCESSES[name](
        schedules.geometric(a=1e-2, b=500.0), SPECS[name], **OWN.get(name, {})
    )

    @jax.jit
    def every(key):
        keys = jax.random.split(key, 4)
        x0, t = process.base.sample(keys[0]), jnp.asarray(0.5)
        x = process.sample(keys[1], x0, t)
        target = process.target(x0, x, t)
        score = process.read(jax.tree.map(jnp.zeros_like, target), x, t)
        back = process.reverse(lambda x, t: score).step(keys[2], x, t, jnp.asarray(0.01))
        return (
            x,
            target,
            score,
            back,
            process.phi(x, t, target, score),
            process.simple(x, t, target, score),
        )

    x, target, score, back, phi, simple = every(KEY)
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    state = (2, *FLAT.shape) if name in LIFTS else SPECS[name].shape
    assert shapes(x) == shapes(back) == state
    assert shapes(target) == shapes(score)
    for leaf in jax.tree.leaves((x, target, score, back)):
        assert np.isfinite(leaf).all()
    assert phi >= 0 and simple >= 0 and np.isfinite(phi + simple)


def test_a_table_names_its_chain():
    with pytest.raises(UserError, match="config.process.chain='gaussian'"):
        PROCESSES["table"](schedules.constant(), SPECS["table"], chain="gaussian")


def test_a_lift_gives_data_back_and_its_entropy_is_that_of_the_velocity():
    """H(v | x) of the joint normal kernel from a start, by its covariance from many draws."""
    clock, t = schedules.geometric(a=0.25, b=17.0), jnp.asarray(0.3)
    lift = LIFTS["langevin"](clock, FLAT, mass=0.4, gamma=0.1)
    process = PROCESSES["langevin"](clock, FLAT, mass=0.4, gamma=0.1)
    x0 = jnp.asarray([0.3, -1.2])
    np.testing.assert_array_equal(lift.leave(lift.enter(x0)), x0)
    n = 200_000
    draws = jax.jit(jax.vmap(lambda k: process.sample(k, lift.enter(x0), t)))(
        jax.random.split(KEY, n)
    )
    cov = np.cov(np.asarray(draws[:, :, 0]).T)
    left = cov[1, 1] - cov[0, 1] ** 2 / cov[0, 0]
    # An entropy is half the log of a variance, whose relative error is sqrt(2 / n); 4.5 of it.
    want = 2 * 0.5 * np.log(2 * np.pi * np.e * left)
    assert abs(float(lift.entropy(t)) - want) < 4.5 * np.sqrt(2 / n)


def test_langevin_refuses_a_start_without_noise():
    with pytest.raises(UserError, match="config.process.gamma=0.0 must be positive"):
        PROCESSES["langevin"](schedules.constant(), FLAT, gamma=0.0)


def test_data_of_another_kind_are_refused():
    with pytest.raises(UserError, match="for data of kind 'torus'; these are of kind 'sphere'"):
        PROCESSES["torus"](schedules.constant(), DataSpec((3,), 0, "sphere"))
