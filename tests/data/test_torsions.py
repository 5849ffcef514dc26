import numpy as np
import pytest

from gmjax import data
from gmjax.data import torsions
from gmjax.types import DataSpec, UserError


def test_wrap_stays_below_pi_in_float32():
    up, down = np.nextafter(np.pi, 4), np.pi - 1e-8  # nearest float32 of both: pi
    x = torsions.wrap(np.array([np.pi, -np.pi, up, down, 3 * np.pi, 0.5, 2 * np.pi - 0.25]))
    assert x.dtype == np.float32
    assert (x < np.float32(np.pi)).all()
    low = np.float32(-np.pi)
    np.testing.assert_allclose(x, [low, low, low, low, low, 0.5, -0.25], atol=1e-7)


@pytest.mark.parametrize("count", [2, 4])
def test_angles(count, config_of):
    dataset = data.load(config_of("torsions", angles=count))
    names = ("phi", "psi", "chi1", "chi2")[:count]
    assert dataset.spec == DataSpec((count,), 0, "torus", names=names)
    assert (dataset.train.size, dataset.test.size) == (48, 6)
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, (60, 4))[:, :count]
    x = np.concatenate([s.take(np.arange(s.size))["x"] for s in (dataset.train, dataset.test)])
    expected = {tuple(np.exp(1j * a).round(4)) for a in angles}
    assert {tuple(np.exp(1j * a.astype(float)).round(4)) for a in x} <= expected


@pytest.mark.parametrize("count", [0, 3, "2"])
def test_other_numbers_of_angles(count, config_of):
    with pytest.raises(UserError, match=r"config.data.angles=.*; valid: 2, 4"):
        data.load(config_of("torsions", angles=count))


def test_real_angles(real):
    """Isoleucine: half of all residues in helices, phi and psi near -1.1 and -0.7; no phi near 2.

    8080 residues, so the share in the helix has a standard error of 0.6 %.
    """
    dataset = data.load({"name": "torsions", "dir": real})
    assert (dataset.train.size, dataset.test.size) == (6464, 808)
    phi, psi = dataset.train.take(np.arange(6464))["x"].T
    assert 0.3 < np.mean(np.hypot(phi + 1.1, psi + 0.75) < 0.5) < 0.6
    assert np.mean(np.abs(phi - 2) < 0.5) < 0.01
