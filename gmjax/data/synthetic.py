"""Synthetic laws on spaces that no small real set lives on.

`tree`: the nodes of a binary tree in the hyperbolic plane, every edge of one length, which is
where trees embed with little distortion; a state is a node and noise in its tangent plane.

`poses`: SO(3) x R^3, a mixture in which both parts depend on the component, and the position on
the rotation besides: rotation R = M_k exp(hat(noise)), position p = R a_k + noise.
"""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from gmjax.data.files import Config
from gmjax.data.sources import arrays
from gmjax.types import Dataset, DataSpec

DEPTH, EDGE, NODE_NOISE = 4, 0.9, 0.1
COMPONENTS, TURN_NOISE, PLACE_NOISE = 4, 0.15, 0.15
TRAIN, TEST = 20_000, 2_000


def nodes() -> np.ndarray:
    """The 2^(DEPTH + 1) - 2 nodes below the root on the hyperboloid: [n, 3] float64.

    A node at the distance EDGE * level from the origin, in the direction of the middle of its
    share of the circle.
    """
    points = []
    for level in range(1, DEPTH + 1):
        angle = 2 * np.pi * (np.arange(2**level) + 0.5) / 2**level
        r = EDGE * level * np.ones_like(angle)
        points.append(
            np.stack([np.cosh(r), np.sinh(r) * np.cos(angle), np.sinh(r) * np.sin(angle)], -1)
        )
    return np.concatenate(points)


def tree(config: Config) -> Dataset:
    """Points near the nodes of a tree in the hyperbolic plane, of kind "hyperbolic".

    Args:
        config: no keys.
    """

    def draw(size: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        at = nodes()[rng.integers(len(nodes()), size=size)]
        v = NODE_NOISE * rng.normal(size=(size, 2))
        return _exp(at, _boost(at, v)).astype(np.float32)

    train, test = (arrays({"x": draw(size, seed)}) for seed, size in enumerate((TRAIN, TEST)))
    return Dataset(DataSpec((3,), 0, kind="hyperbolic"), train, test)


def poses(config: Config) -> Dataset:
    """Rotations and positions that depend on each other, of kind "poses".

    Args:
        config: no keys.
    """
    rng = np.random.default_rng(0)
    middle = Rotation.random(COMPONENTS, random_state=rng)
    arm = 1.5 * rng.normal(size=(COMPONENTS, 3)) / np.sqrt(3)

    def draw(size: int, seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((seed, 1))
        k = rng.integers(COMPONENTS, size=size)
        turn = middle[k] * Rotation.from_rotvec(TURN_NOISE * rng.normal(size=(size, 3)))
        place = turn.apply(arm[k]) + PLACE_NOISE * rng.normal(size=(size, 3))
        matrix = turn.as_matrix()
        return {"position": place.astype(np.float32), "rotation": matrix.astype(np.float32)}

    columns: list[dict[str, Any]] = [
        {"x": draw(size, seed)} for seed, size in enumerate((TRAIN, TEST))
    ]
    train, test = map(arrays, columns)
    return Dataset(DataSpec({"position": (3,), "rotation": (3, 3)}, 0, kind="poses"), train, test)


def _boost(at: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Tangent coordinates v [n, 2] at the origin carried to `at` [n, 3] along the geodesic."""
    inner = (at[:, 1:] * v).sum(-1, keepdims=True)
    return np.concatenate([inner, v + at[:, 1:] * inner / (1 + at[:, :1])], -1)


def _exp(at: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The point at the end of the geodesic from `at` along v, |v| in Minkowski's metric."""
    size = np.sqrt(np.maximum((v[:, 1:] ** 2).sum(-1) - v[:, 0] ** 2, 1e-30))[:, None]
    return np.cosh(size) * at + np.sinh(size) / size * v
