"""Synthetic laws lie where they say, with the spreads they say."""

import numpy as np
from scipy.spatial.transform import Rotation

from gmjax import data
from gmjax.data import synthetic


def test_the_tree_is_on_the_hyperboloid_near_its_nodes():
    dataset = data.load({"name": "tree"})
    x = dataset.train.take(np.arange(5000))["x"].astype(np.float64)
    np.testing.assert_allclose(x[:, 0] ** 2 - (x[:, 1:] ** 2).sum(1), 1, rtol=1e-3, atol=2e-3)
    nodes = synthetic.nodes()
    assert len(nodes) == 30 and dataset.spec.kind == "hyperbolic"
    inner = np.outer(x[:, 0], nodes[:, 0]) - x[:, 1:] @ nodes[:, 1:].T
    r = np.arccosh(np.maximum(inner, 1)).min(1)
    # |v| of a normal in two dimensions: its mean square is 2 noise^2; standard error 1.4 %. The
    # nearest node need not be the drawn one, which takes a little off.
    assert abs(np.mean(r**2) / (2 * synthetic.NODE_NOISE**2) - 1) < 0.08


def test_poses_depend_on_each_other():
    dataset = data.load({"name": "poses"})
    x = dataset.train.take(np.arange(4000))["x"]
    assert x["rotation"].shape == (4000, 3, 3) and x["position"].dtype == np.float32
    np.testing.assert_allclose(np.linalg.det(x["rotation"]), 1, rtol=1e-4)

    def near(position):
        """How near the nearest tenth is once each position is carried back by its rotation."""
        arm = Rotation.from_matrix(x["rotation"]).inv().apply(position)
        apart = np.linalg.norm(arm[:, None] - arm[None, :200], axis=-1)
        return np.median(np.sort(apart, 0)[len(arm) // 10])

    # The arm of a component and noise: few values. With other rows' rotations they spread.
    assert near(x["position"]) < 3 * synthetic.PLACE_NOISE < near(np.roll(x["position"], 1, 0))


def test_both_are_always_the_same():
    for name in ("tree", "poses"):
        one, two = (data.load({"name": name}).test.take(np.arange(3))["x"] for _ in range(2))
        for a, b in zip(*map(np.atleast_1d, ([one], [two])), strict=True):
            assert str(a) == str(b)
