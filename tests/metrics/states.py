"""Random states of every continuous and mixed kind, more or less concentrated."""

import numpy as np
from scipy.spatial.transform import Rotation

from gmjax.types import DataSpec

SPECS = {
    "euclidean": DataSpec((2,), 0, "euclidean"),
    "half_line": DataSpec((1,), 0, "half_line"),
    "counts": DataSpec((2,), 0, "counts"),
    "sphere": DataSpec((3,), 0, "sphere"),
    "simplex": DataSpec((3,), 0, "simplex"),
    "rotations": DataSpec((3, 3), 0, "rotations"),
    "torus": DataSpec((2,), 0, "torus"),
    "hyperbolic": DataSpec((3,), 0, "hyperbolic"),
    "table": DataSpec({"numeric": (2,), "classes": (2,)}, 3, "table"),
    "poses": DataSpec({"rotation": (3, 3), "position": (3,)}, 0, "poses"),
}


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def states(kind, n, seed=0):
    """n states of a law whose coordinates depend on each other, far from uniform."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 4))
    side = np.sign(z[:, :1])
    pair = side * 1.5 + 0.5 * z[:, 1:3]
    make = {
        "euclidean": lambda: pair,
        "half_line": lambda: rng.gamma(2.0, 1.0, (n, 1)),
        "counts": lambda: rng.poisson(np.where(side > 0, 2.0, 30.0), (n, 2)),
        "sphere": lambda: unit(np.eye(3)[0] * side + 0.3 * z[:, 1:]),
        "simplex": lambda: rng.dirichlet([8.0, 2.0, 2.0], n),
        "rotations": lambda: Rotation.from_rotvec(0.3 * z[:, :3]).as_matrix(),
        "torus": lambda: (pair + np.pi) % (2 * np.pi) - np.pi,
        "hyperbolic": lambda: np.concatenate(
            [np.sqrt(1 + (pair**2).sum(1, keepdims=True)), pair], 1
        ),
        "table": lambda: {
            "numeric": pair,
            "classes": np.concatenate([side > 0, 2 * (side > 0)], 1).astype(np.int32),
        },
        "poses": lambda: {
            "rotation": Rotation.from_rotvec(np.pi / 2 * side * np.eye(3)[2]).as_matrix(),
            "position": side + 0.3 * z[:, 1:],
        },
    }
    return make[kind]()
