"""Torsion angles of isoleucine in proteins: points on a torus.

Each of the 8080 residues has two angles of the backbone, phi and psi, and two of the side chain,
chi1 and chi2; phi against psi is the Ramachandran plot. The chains were chosen so that no two are
much alike, so a random split does not leak (chains that are copies of each other would).
"""

import numpy as np

from gmjax.data.files import Config, locate, read_npz
from gmjax.data.sources import build, tenths
from gmjax.types import Dataset, UserError

NAMES = ("phi", "psi", "chi1", "chi2")
ARRAY = "isoleucine_phi_psi_chi1_chi2"


def torsions(config: Config) -> Dataset:
    """Angles in [-pi, pi), of kind "torus".

    Args:
        config: `dir` (or GMJAX_DATA_DIR), which holds torsion_angles/protein_torsions.npz;
            `angles` (2: phi and psi; 4: chi1 and chi2 as well); `split_seed` (0), of the random
            split into 80, 10 and 10 percent; `held_out` ("test").

    Raises:
        UserError: another number of angles.
    """
    count = config["angles"]
    if count not in (2, 4):
        raise UserError(f"config.data.angles={count!r}; valid: 2, 4")
    angles = read_npz(locate(config, "torsion_angles/protein_torsions.npz"), ARRAY)[ARRAY]
    x = wrap(angles[:, :count])
    train, held_out = tenths(len(x), config)
    data = build({"x": x[train]}, {"x": x[held_out]}, kind="torus")
    return data._replace(spec=data.spec._replace(names=NAMES[:count]))


def wrap(angles: np.ndarray) -> np.ndarray:
    """Angles in radians brought to [-pi, pi) as float32, whose rounding may not reach pi."""
    wrapped = (np.asarray(angles, np.float64) + np.pi) % (2 * np.pi) - np.pi
    single = wrapped.astype(np.float32)
    return np.where(single >= np.float32(np.pi), np.float32(-np.pi), single)
