"""Couplings against scipy's assignment, their marginals, and the straightness they give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from gmjax.paths import couplings, geodesic
from gmjax.spaces.discrete import discrete
from gmjax.types import UserError

KEY = jax.random.key(0)
SHAPES = {"euclidean": (3,), "sphere": (3,), "torus": (2,), "rotations": (3, 3)}


def pairs(name, n):
    space, base = geodesic.SPACES[name](SHAPES[name], 1.0)
    x0, x1 = (jax.vmap(base.sample)(jax.random.split(k, n)) for k in jax.random.split(KEY))
    return space, x0, x1


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_exact_is_the_assignment_of_least_cost(name):
    space, x0, x1 = pairs(name, 24)
    cost = couplings.squared_distances(space, x0, x1)
    one = lambda a, b: space.inner(a, space.log(a, b), space.log(a, b))
    np.testing.assert_allclose(cost[3, 5], one(x0[3], x1[5]), rtol=1e-5)
    order = np.asarray(jax.jit(couplings.exact(space))(KEY, x0, x1))
    best = np.asarray(cost)[linear_sum_assignment(np.asarray(cost))].sum()
    assert sorted(order) == list(range(24))
    np.testing.assert_allclose(np.asarray(cost)[np.arange(24), order].sum(), best, rtol=1e-5)


def test_products_and_finite_sets_add_up():
    space, x0, x1 = pairs("torus", 6)
    sites = jax.random.randint(KEY, (2, 6, 4), 0, 3)
    tree = {"a": space, "b": discrete((4,), 3)}
    cost = couplings.squared_distances(tree, {"a": x0, "b": sites[0]}, {"a": x1, "b": sites[1]})
    plain = couplings.squared_distances(space, x0, x1)
    differ = np.sum(np.asarray(sites[0])[:, None] != np.asarray(sites[1]), -1)
    np.testing.assert_allclose(cost, plain + differ, rtol=1e-5)


def test_sinkhorn_draws_from_the_entropic_plan():
    """Against POT's plan: mean cost within 4.5 standard errors over 500 draws of a batch of 16."""
    ot = pytest.importorskip("ot", reason="POT is not installed")
    pytest.importorskip("ott", reason="ott-jax is not installed")
    space, x0, x1 = pairs("euclidean", 16)
    cost = np.asarray(couplings.squared_distances(space, x0, x1), np.float64)
    plan = ot.sinkhorn(np.full(16, 1 / 16), np.full(16, 1 / 16), cost, 0.1 * cost.mean())
    couple = couplings.sinkhorn(space, 0.1, 500)
    orders = np.asarray(jax.jit(jax.vmap(lambda k: couple(k, x0, x1)))(jax.random.split(KEY, 500)))
    seen = cost[np.arange(16), orders]
    rows = plan / plan.sum(1, keepdims=True)
    spread = np.sqrt(np.sum(rows * cost**2, 1) - np.sum(rows * cost, 1) ** 2).mean()
    want = np.sum(rows * cost, 1).mean()
    # The threshold of 1e-2 on the marginals moves the mean by as much at most.
    assert abs(seen.mean() - want) < 4.5 * spread / np.sqrt(8000) + 0.01 * want
    often = np.bincount(orders.reshape(-1), minlength=16) / 8000
    np.testing.assert_allclose(often, 1 / 16, atol=4.5 * np.sqrt(1 / 16 / 8000) + 1e-2 / 16)


def test_independent_parts_what_came_in_pairs():
    x = jnp.arange(100.0)[:, None]
    order = np.asarray(couplings.independent(KEY, x, x))
    assert sorted(order) == list(range(100)) and np.sum(order == np.arange(100)) < 10
    assert list(couplings.paired(KEY, x, x)) == list(range(100))


def test_groups_are_coupled_by_themselves():
    space, x0, x1 = pairs("euclidean", 24)
    couple = couplings.build({"name": "exact", "group": 8}, space)
    order = np.asarray(jax.jit(couple)(KEY, x0, x1)).reshape(3, 8)
    alone = couplings.exact(space)
    for g in range(3):
        rows = slice(8 * g, 8 * g + 8)
        np.testing.assert_array_equal(order[g] - 8 * g, alone(KEY, x0[rows], x1[rows]))


def test_a_users_coupling_is_taken_as_it_is():
    own = lambda key, x0, x1: jnp.argsort(x1[:, 0])
    assert couplings.build({"name": own}, None) is own


@pytest.mark.parametrize(
    "config, message",
    [
        ({"name": "greedy"}, "config.coupling.name='greedy' is unknown; valid: exact"),
        ({"name": "exact", "group": -1}, "config.coupling.group=-1"),
        ({"name": "sinkhorn", "regularisation": 0.0}, "config.coupling.regularisation=0.0"),
        ({"name": "sinkhorn", "iterations": 0}, "config.coupling.iterations=0"),
    ],
)
def test_mistakes_are_named(config, message):
    with pytest.raises(UserError, match=message):
        couplings.build(config, geodesic.SPACES["euclidean"]((2,), 1.0)[0])


def test_a_group_must_divide_the_batch():
    couple = couplings.build({"name": "exact", "group": 5}, pairs("euclidean", 1)[0])
    with pytest.raises(UserError, match="config.coupling.group=5 must divide the batch of 12"):
        couple(KEY, jnp.zeros((12, 3)), jnp.zeros((12, 3)))
