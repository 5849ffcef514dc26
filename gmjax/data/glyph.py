"""A glyph on the 32 x 32 grid, a law in two discrete dimensions that is known exactly.

The toy of the discrete diffusion paper (Campbell, Benton et al., 2022, section 6.1) with a
drawing of our own: the letter G as a stroke of Gaussian profile,

    pmf(i, j)  proportional to  exp(-d(i, j)^2 / 2 w^2)  where d <= 3 w, else 0,

with d the distance in grid units from the cell to the stroke, w = 1. Every marginal of a
noising chain that starts from it is a sum over 1024 states.
"""

import numpy as np

from gmjax.data.files import Config
from gmjax.data.sources import arrays
from gmjax.types import Dataset, DataSpec

SIZE = 32
TRAIN, TEST = 1_000_000, 100_000
WIDTH = 1.0


def stroke() -> np.ndarray:
    """[n, 2] points (row, column) along the letter: an open arc, a spur and a bar inwards."""
    angle = np.linspace(np.radians(45), np.radians(345), 400)
    arc = np.stack([15.5 - 10.5 * np.sin(angle), 15.5 + 10 * np.cos(angle)], -1)
    corner = arc[-1]
    end, middle = np.array([17.0, 25.2]), np.array([17.0, 17.2])
    u = np.linspace(0, 1, 80)[:, None]
    return np.concatenate([arc, (1 - u) * corner + u * end, (1 - u) * end + u * middle])


def glyph_pmf() -> np.ndarray:
    """The law of a point.

    Returns:
        [32, 32] float64, pmf[i, j] = P(x = (i, j)): i the row from the top, j the column.
    """
    cells = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij"), -1)
    squared = ((cells[:, :, None] - stroke()) ** 2).sum(-1).min(-1)
    weight = np.where(squared <= 9 * WIDTH**2, np.exp(-squared / (2 * WIDTH**2)), 0.0)
    return weight / weight.sum()


def glyph(config: Config) -> Dataset:
    """Points (i, j) drawn from `glyph_pmf`, always the same: 1 000 000 train, 100 000 test.

    Args:
        config: no keys.
    """
    upto = np.cumsum(glyph_pmf())

    def points(size: int, seed: int) -> np.ndarray:
        u = np.random.default_rng(seed).random(size) * upto[-1]
        cell = np.searchsorted(upto, u, side="right")
        return np.stack(np.divmod(cell, SIZE), -1).astype(np.uint8)

    return Dataset(
        DataSpec((2,), SIZE, kind="vector", ordinal=True),
        arrays({"x": points(TRAIN, 0)}),
        arrays({"x": points(TEST, 1)}),
    )
