"""Torsion angles of isoleucine in proteins: points on a torus.

Each of the 8080 residues has two angles of the backbone, phi and psi, and two of the side chain,
chi1 and chi2; phi against psi is the Ramachandran plot. The chains were chosen so that no two are
much alike, so a random split does not leak (chains that are copies of each other would).
"""

from gmjax.data.checks import wrap
from gmjax.data.files import Config, locate, read_npz
from gmjax.data.sources import parted, tenths
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
    data = parted({"x": x}, tenths(len(x), config), kind="torus")
    return data._replace(spec=data.spec._replace(names=NAMES[:count]))
