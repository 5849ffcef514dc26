"""Laws in the plane that show what a flow does: eight Gaussians, two moons, a checkerboard.

All are centred, with coordinates of order one, and always the same points: 50 000 train, 5 000
test. A set may bring a second one as "source", where a flow between the two begins.
"""

from collections.abc import Callable

import numpy as np

from gmjax.data.files import Config
from gmjax.data.sources import arrays
from gmjax.types import Dataset, DataSpec

TRAIN, TEST = 50_000, 5_000


def eight_gaussians(rng: np.random.Generator, n: int) -> np.ndarray:
    """[n, 2]: normals of deviation 0.1 at eight places of the circle of radius 1.5."""
    angle = 2 * np.pi * rng.integers(8, size=n) / 8
    return 1.5 * np.stack([np.cos(angle), np.sin(angle)], -1) + 0.1 * rng.normal(size=(n, 2))


def moons(rng: np.random.Generator, n: int) -> np.ndarray:
    """[n, 2]: two half circles that interlock, with normal noise of deviation 0.05."""
    angle, upper = np.pi * rng.random(n), rng.random(n) < 0.5
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle)) - 0.5
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle)) - 0.25
    return np.stack([x, y], -1) + 0.05 * rng.normal(size=(n, 2))


def checkerboard(rng: np.random.Generator, n: int) -> np.ndarray:
    """[n, 2]: uniform on the eight dark squares of a 4 x 4 board of side 4."""
    row = rng.integers(4, size=n)
    column = 2 * rng.integers(2, size=n) + row % 2
    return np.stack([column, row], -1) + rng.random((n, 2)) - 2


LAWS = {"eight_gaussians": eight_gaussians, "moons": moons, "checkerboard": checkerboard}


def plane(name: str, source: str = "") -> Callable[[Config], Dataset]:
    """The loader of a law in `LAWS`, of kind "euclidean", perhaps with a second as "source".

    Args:
        name, source: rows of `LAWS`. The loader reads no keys.
    """

    def load(config: Config) -> Dataset:
        def side(size: int, seed: int) -> dict[str, np.ndarray]:
            columns = {"x": LAWS[name](np.random.default_rng((seed, 0)), size)}
            if source:
                columns["source"] = LAWS[source](np.random.default_rng((seed, 1)), size)
            return {key: value.astype(np.float32) for key, value in columns.items()}

        train, test = (arrays(side(size, seed)) for seed, size in enumerate((TRAIN, TEST)))
        return Dataset(DataSpec((2,), 0, kind="euclidean"), train, test)

    return load
