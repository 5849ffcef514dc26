"""Distances and features of continuous and mixed states, in NumPy, a row a space.

Sets of states are compared as matrices [n, F] of flattened states (`flat`; the parts of a product
side by side in the order of their names). A space gives two things:

* the geodesic distance, for nearest neighbours: on the sphere 2 arcsin(|x - y| / 2), for rotations
  the angle 2 arcsin(|x - y| / sqrt 8), on the simplex that of Fisher and Rao, which is twice the
  angle between square roots, in hyperbolic space 2 arsinh(|x - y| / 2) in Minkowski's norm;
  all from chords, which keep their digits at zero, where an arc cosine would lose half of them;
* features in a Euclidean space that agree with the metric at small distances, for energy and
  projections. Energy needs them: with geodesic distances on circles and spheres it is blind to
  differences that are even under x -> -x (their arc length has odd harmonics only), and between
  unequal laws on a product of circles it may be negative; with Euclidean ones it is a metric.

On a product squared distances add up; classes that differ are at distance one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from gmjax.types import DataSpec, lookup

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # ([n, F], [m, F]) -> [n, m] float64

# The kinds of states that are dictionaries -> the kind of each of their parts.
PARTS: dict[str, dict[str, str]] = {
    "table": {"classes": "classes", "numeric": "euclidean"},
    "poses": {"position": "euclidean", "rotation": "rotations"},
}


class Geometry(NamedTuple):
    """A space as the figures see it; x [n, F] are flattened states."""

    distance: Distance
    features: Callable[[np.ndarray, int], np.ndarray]  # (x [n, F], num_values) -> [n, G]


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    sizes = (x * x).sum(1)[:, None] + (y * y).sum(1)
    square = sizes - 2.0 * (x @ y.T)
    # Equal points are at distance zero exactly, so that ties are ties: float32 cannot tell less.
    return np.where(square > 1e-14 * sizes, square, 0.0)


def chord(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Euclidean distances [n, m] of the rows of x and y."""
    return np.sqrt(_square(x, y))


def _arc(chords: np.ndarray) -> np.ndarray:
    return 2.0 * np.arcsin(np.minimum(chords / 2.0, 1.0))


def _torus(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    total = np.zeros((len(x), len(y)))
    for a, b in zip(x.T, y.T, strict=True):  # an angle at a time: no [n, m, F] array
        turn = a[:, None] - b
        total += (turn - 2 * np.pi * np.round(turn / (2 * np.pi))) ** 2
    return np.sqrt(total)


def _hyperbolic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b = x[:, 1:], y[:, 1:]  # the first coordinate follows from them
    height = [np.sqrt(1.0 + (c * c).sum(1)) for c in (a, b)]
    rise = height[0][:, None] - height[1]
    return 2.0 * np.arcsinh(0.5 * np.sqrt(np.maximum(_square(a, b) - rise * rise, 0.0)))


def _normal_coordinates(x: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(x[:, 1:], axis=1, keepdims=True)
    return x[:, 1:] * np.arcsinh(size) / np.where(size > 0, size, 1.0)


def _one_hot(x: np.ndarray, num_values: int) -> np.ndarray:
    equal = x[:, :, None] == np.arange(num_values)
    return equal.reshape(len(x), -1) / np.sqrt(2.0)


def _mismatch(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    total = np.zeros((len(x), len(y)))
    for a, b in zip(x.T, y.T, strict=True):
        total += a[:, None] != b
    return np.sqrt(total)


def _root(x: np.ndarray) -> np.ndarray:
    return 2.0 * np.sqrt(np.maximum(x, 0.0))


FLAT = Geometry(chord, lambda x, k: x)

GEOMETRIES: dict[str, Geometry] = {
    "euclidean": FLAT,
    "half_line": FLAT,
    "counts": FLAT,
    "classes": Geometry(_mismatch, _one_hot),
    "sphere": Geometry(lambda x, y: _arc(chord(x, y)), lambda x, k: x),
    "simplex": Geometry(
        lambda x, y: 2.0 * _arc(chord(_root(x), _root(y)) / 2.0), lambda x, k: _root(x)
    ),
    "rotations": Geometry(
        lambda x, y: _arc(chord(x, y) / np.sqrt(2.0)), lambda x, k: x / np.sqrt(2.0)
    ),
    "torus": Geometry(_torus, lambda x, k: np.concatenate([np.cos(x), np.sin(x)], 1)),
    "hyperbolic": Geometry(_hyperbolic, lambda x, k: _normal_coordinates(x)),
}


def flat(x: Any) -> np.ndarray:
    """States [n, *S], or a dictionary of such, as one float64 matrix [n, F]."""
    parts = [np.asarray(a, np.float64) for a in jax.tree.leaves(x)]
    return np.concatenate([a.reshape(len(a), -1) for a in parts], 1)


def parts_of(spec: DataSpec) -> dict[str, tuple[str, slice]]:
    """name -> (kind, columns of `flat`), in order; one nameless part where states are arrays."""
    kinds = PARTS.get(spec.kind, {"": spec.kind})
    shapes = spec.shape if spec.kind in PARTS else {"": spec.shape}
    ends = np.cumsum([int(np.prod(shapes[name])) for name in sorted(kinds)])
    starts = [0, *ends[:-1]]
    return {
        name: (kinds[name], slice(int(a), int(b)))
        for name, a, b in zip(sorted(kinds), starts, ends, strict=True)
    }


def geometry(spec: DataSpec) -> Geometry:
    """The space of a data set's states, a product of those of its parts.

    Args:
        spec: `kind` is a row of `GEOMETRIES` or of `PARTS`.

    Raises:
        UserError: any other kind.
    """
    rows = [
        (lookup(GEOMETRIES, kind, "config.data.kind"), columns)
        for kind, columns in parts_of(spec).values()
    ]

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if len(rows) == 1:
            return rows[0][0].distance(x, y)
        return np.sqrt(sum(g.distance(x[:, c], y[:, c]) ** 2 for g, c in rows))

    def features(x: np.ndarray, num_values: int) -> np.ndarray:
        return np.concatenate([g.features(x[:, c], num_values) for g, c in rows], 1)

    return Geometry(distance, features)
