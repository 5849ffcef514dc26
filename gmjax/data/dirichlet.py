"""A mixture of Dirichlet laws on the triangle, whose density is known exactly.

    p(x) = sum_k w_k Dirichlet(x; a_k),    x in R^3, x >= 0, x_1 + x_2 + x_3 = 1,

four components, as in Benton et al. (2022), section 6 (the parameters are our own): one hugs each
corner or an edge, one sits in the middle, so that mass lies both inside and near the boundary.
Densities are with respect to Lebesgue measure in two of the coordinates.
"""

import numpy as np
from scipy.special import gammaln, logsumexp

from gmjax.data.files import Config
from gmjax.data.sources import arrays
from gmjax.types import Dataset, DataSpec

WEIGHTS = np.array([0.3, 0.25, 0.25, 0.2])
CONCENTRATIONS = np.array(
    [
        [1.5, 12.0, 12.0],  # along the edge x_1 = 0
        [20.0, 1.5, 3.0],  # by the first corner
        [3.0, 3.0, 24.0],  # by the third
        [30.0, 40.0, 15.0],  # inside
    ]
)
TRAIN, TEST = 200_000, 20_000


def dirichlet_sample(size: int, seed: int) -> np.ndarray:
    """[size, 3] float32 draws of the mixture."""
    rng = np.random.default_rng(seed)
    which = rng.choice(len(WEIGHTS), size, p=WEIGHTS)
    gamma = rng.standard_gamma(CONCENTRATIONS[which])
    return (gamma / gamma.sum(1, keepdims=True)).astype(np.float32)


def dirichlet_log_density(x: np.ndarray) -> np.ndarray:
    """log p(x) of points [n, 3] of the triangle: [n] nats, -inf on the boundary."""
    a = CONCENTRATIONS
    with np.errstate(divide="ignore"):
        parts = np.log(np.asarray(x, np.float64)) @ (a - 1).T
    return logsumexp(parts + gammaln(a.sum(1)) - gammaln(a).sum(1), axis=1, b=WEIGHTS)


def dirichlet(config: Config) -> Dataset:
    """Draws of the mixture, always the same: 200 000 train, 20 000 test.

    Args:
        config: no keys.
    """
    return Dataset(
        DataSpec((3,), num_values=0, kind="simplex"),
        arrays({"x": dirichlet_sample(TRAIN, 0)}),
        arrays({"x": dirichlet_sample(TEST, 1)}),
    )
