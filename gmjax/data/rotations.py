"""A mixture of wrapped normals on SO(3), a law of rotations that is known exactly.

A component draws R = M exp(hat(v)), v ~ N(0, I / precision) in R^3, round a mean M that is itself
drawn from Haar's law. All v along one axis with lengths w + 2 pi k give one rotation, and exp
changes volumes by 2 (1 - cos w) / |v|^2, so relative to the Riemannian volume (8 pi^2 in all)

    p(R | M) = sum_k N(u_k e; 0, I / precision) u_k^2 / (2 (1 - cos w)),     u_k = w + 2 pi k,

w the angle and e the axis of M^T R. Data of this law: Benton et al. (2022), section 5, with 16
components of precision 100, about 0.1 radians a coordinate.
"""

from typing import NamedTuple

import numpy as np

from gmjax.data.checks import positive
from gmjax.data.files import Config
from gmjax.data.sources import arrays
from gmjax.types import Dataset, DataSpec, UserError

TRAIN, TEST = 100_000, 10_000
SETTINGS = {"components": 16, "precision": 100.0, "mixture_seed": 0}


class Mixture(NamedTuple):
    """Wrapped normals of equal weight."""

    means: np.ndarray  # [K, 3, 3] float64
    precision: float  # of each tangent coordinate, 1 / radians^2


def mixture(components: int = 16, precision: float = 100.0, mixture_seed: int = 0) -> Mixture:
    """Wrapped normals round means drawn from Haar's law by `mixture_seed`."""
    z = np.random.default_rng(mixture_seed).normal(size=(components, 4))
    a, b, c, d = (z / np.linalg.norm(z, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
    ]
    return Mixture(np.moveaxis(np.asarray(rows), -1, 0), float(precision))


def sample(law: Mixture, size: int, seed: int) -> np.ndarray:
    """Rotations [size, 3, 3] float32 of the mixture, the same for the same seed."""
    rng = np.random.default_rng((seed, 1))
    chosen = law.means[rng.integers(len(law.means), size=size)]
    v = rng.normal(size=(size, 3)) / np.sqrt(law.precision)
    return (chosen @ _exp(v)).astype(np.float32)


def log_prob(law: Mixture, x: np.ndarray) -> np.ndarray:
    """The log density of rotations [n, 3, 3] relative to the Riemannian volume: [n] nats.

    It is infinite, though only just, at the angle zero from a mean if precision is of order one.
    """
    between = np.einsum("kji,njl->nkil", law.means, np.asarray(x, np.float64))
    turn = between - np.swapaxes(between, -1, -2)
    sine = np.sqrt(np.sum(turn**2, (-1, -2)) / 8)
    angle = np.arctan2(sine, (np.trace(between, axis1=-2, axis2=-1) - 1) / 2)
    angle = np.maximum(angle, 1e-9)[..., None]
    length = np.abs(angle + 2 * np.pi * np.arange(-4, 5))
    normal = 1.5 * np.log(law.precision / (2 * np.pi)) - law.precision * length**2 / 2
    each = normal + 2 * np.log(length / (2 * np.sin(angle / 2)))
    return np.logaddexp.reduce(each, (1, 2)) - np.log(len(law.means))


def rotations(config: Config) -> Dataset:
    """Rotations of a mixture of wrapped normals: 100 000 train, 10 000 test.

    Args:
        config: `components`, how many; `precision`, of each tangent coordinate;
            `mixture_seed`, of their means. What is left out is as in `SETTINGS`.

    Raises:
        UserError: a number that is not positive.
    """
    given = {key: config.get(key, default) for key, default in SETTINGS.items()}
    components = positive(given, "components")
    precision, seed = given["precision"], given["mixture_seed"]
    if isinstance(precision, bool) or not isinstance(precision, int | float) or not precision > 0:
        raise UserError(f"config.data.precision={precision!r}; valid: a positive number")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"config.data.mixture_seed={seed!r}; valid: an integer of at least 0")
    law = mixture(components, precision, seed)
    train, test = (
        arrays({"x": sample(law, size, seed)}) for seed, size in enumerate((TRAIN, TEST))
    )
    return Dataset(DataSpec((3, 3), 0, kind="rotations"), train, test)


def _exp(v: np.ndarray) -> np.ndarray:
    """Rotations [n, 3, 3] by the angles |v| about v [n, 3]."""
    angle = np.linalg.norm(v, axis=1)[:, None, None]
    hat = np.cross(np.eye(3), v[:, None])  # rows e_i x v, so that hat z = v x z
    bend = 0.5 * np.sinc(angle / 2 / np.pi) ** 2
    return np.eye(3) + np.sinc(angle / np.pi) * hat + bend * (hat @ hat)
