"""Where volcanoes erupted, the earth shook and rivers flooded: points on the sphere.

Latitude u and longitude v in degrees become the unit vector

    x = (cos u cos v, cos u sin v, sin u),

so that the north pole is (0, 0, 1) and (1, 0, 0) lies on the equator at Greenwich. The three tables
are those of Mathieu and Nickel (arXiv 2006.10605) and De Bortoli et al. (arXiv 2202.02763), who
report held-out likelihoods over random splits of 80, 10 and 10 percent.

Many places occur more than once (827 eruptions at 267 places), so a random split puts the same
point on both sides and a density may grow there without bound.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gmjax.data.cells import is_number, split_rows
from gmjax.data.files import Config, locate, read_text
from gmjax.data.sources import parted, tenths
from gmjax.types import Dataset, UserError


def events(name: str) -> Callable[[Config], Dataset]:
    """The loader of one table of events.

    Args:
        name: of the file below earth_sphere/, without its ending.

    Returns:
        config -> Dataset of kind "sphere", shape (3,); config: `dir` (or GMJAX_DATA_DIR);
        `split_seed` (0), of the random split; `held_out` ("test").
    """

    def load(config: Config) -> Dataset:
        x = from_degrees(read_degrees(locate(config, f"earth_sphere/{name}.csv")))
        return parted({"x": x}, tenths(len(x), config), kind="sphere")

    return load


def read_degrees(path: Path) -> np.ndarray:
    """[n, 2] latitude and longitude in degrees, from the rows that begin with a number.

    Raises:
        UserError: no such row, a row of another form, or a latitude beyond 90 degrees.
    """
    rows = [row for row in split_rows(path, read_text(path), ",")[0] if is_number(row[0])]
    if not rows or any(len(row) != 2 or not is_number(row[1]) for row in rows):
        raise UserError(f"{path}: valid: rows of latitude, longitude in degrees")
    return check_degrees(str(path), np.array(rows, np.float64))


def check_degrees(name: str, degrees: np.ndarray) -> np.ndarray:
    """Latitudes and longitudes [n, 2] as they are, if they can be such.

    Raises:
        UserError: a latitude beyond 90 degrees or a longitude beyond 360; `name` is in the message.
    """
    wrong = ~(np.abs(degrees) <= (90, 360)).all(1)
    if wrong.any():
        raise UserError(
            f"{name}: {tuple(degrees[wrong][0].tolist())}; valid: -90..90, -360..360, latitude"
            " before longitude"
        )
    return degrees


def from_degrees(degrees: np.ndarray) -> np.ndarray:
    """Unit vectors [n, 3] of latitudes and longitudes [n, 2] in degrees."""
    u, v = np.radians(np.asarray(degrees, np.float64)).T
    return np.stack([np.cos(u) * np.cos(v), np.cos(u) * np.sin(v), np.sin(u)], -1)
