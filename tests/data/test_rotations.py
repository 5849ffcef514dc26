import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.spatial.transform import Rotation

from gmjax.data import rotations
from gmjax.types import UserError

WIDE = rotations.mixture(components=3, precision=9.0, mixture_seed=4)
ORIGIN = np.eye(3)[None]


def about(angle, axis=(0.6, 0.0, 0.8)):
    return Rotation.from_rotvec(angle * np.asarray(axis)).as_matrix()[None]


@pytest.mark.parametrize("precision", [0.3, 4.0, 100.0])
def test_one_component_integrates_to_one(precision):
    """The volume between two angles is 8 pi int (1 - cos w) dw."""
    law = rotations.Mixture(ORIGIN, precision)
    density = lambda w: np.exp(rotations.log_prob(law, about(w))[0]) * 8 * np.pi * (1 - np.cos(w))
    mass = quad(density, 0, np.pi, epsabs=1e-11, points=[min(3, precision**-0.5)])[0]
    np.testing.assert_allclose(mass, 1, rtol=1e-9)


def test_one_component_is_the_pushed_normal():
    """At small angles the normal density, over the volume factor of exp by differences."""
    law, w, h = rotations.Mixture(ORIGIN, 100.0), 0.7, 1e-5
    v = w * np.asarray([0.6, 0.0, 0.8])
    turn = lambda u: Rotation.from_rotvec(v + u).as_matrix()
    at = turn(np.zeros(3)).T
    skew = np.stack([at @ (turn(h * e) - turn(-h * e)) / (2 * h) for e in np.eye(3)])
    factor = np.abs(np.linalg.det(skew[:, [2, 0, 1], [1, 2, 0]]))
    expected = stats.multivariate_normal(np.zeros(3), np.eye(3) / 100).logpdf(v) - np.log(factor)
    np.testing.assert_allclose(rotations.log_prob(law, about(w)), expected, rtol=1e-8)


def test_density_and_draws_of_a_mixture():
    """Mass one on a grid of Euler angles, and the draws' means against the grid's integrals."""
    n = 31  # exact to spin 30, where exp(-l^2 / 18) is 1e-22
    a = 2 * np.pi * np.arange(n) / n
    cosine, weights = np.polynomial.legendre.leggauss(16)
    grid = np.stack(np.meshgrid(a, np.arccos(cosine), a, indexing="ij"), -1).reshape(-1, 3)
    x = Rotation.from_euler("ZYZ", grid).as_matrix()
    volume = np.broadcast_to(weights[None, :, None], (n, 16, n)).ravel() * (2 * np.pi / n) ** 2
    p = np.exp(rotations.log_prob(WIDE, x)) * volume
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-9)

    drawn = rotations.sample(WIDE, 20_000, seed=0)
    features = lambda x: np.concatenate([x.reshape(-1, 9), x.reshape(-1, 9) ** 2], 1)
    mean, values = p @ features(x), features(drawn.astype(np.float64))
    # 18 means at |z| < 5: exceeded with probability 1e-5.
    assert (np.abs(values.mean(0) - mean) < 5 * values.std(0) / len(values) ** 0.5).all()
    entropy = -rotations.log_prob(WIDE, drawn)
    error = entropy.mean() + p @ rotations.log_prob(WIDE, x)
    assert abs(error) < 4.5 * entropy.std() / len(drawn) ** 0.5


def test_far_and_coinciding_points_are_finite():
    law = rotations.mixture()
    x = np.concatenate([law.means, rotations.sample(law, 10, 0), about(np.pi)])
    assert np.isfinite(rotations.log_prob(law, x)).all()


def test_dataset():
    data = rotations.rotations({})
    assert (data.spec.shape, data.spec.num_values, data.spec.kind) == ((3, 3), 0, "rotations")
    assert (data.train.size, data.test.size) == (100_000, 10_000)
    x = data.train.take(np.arange(1000))["x"]
    assert x.dtype == np.float32
    np.testing.assert_allclose(
        np.swapaxes(x, 1, 2) @ x, np.tile(np.eye(3), (1000, 1, 1)), atol=1e-6
    )
    assert (np.linalg.det(x) > 0).all()
    again = rotations.rotations({"components": 16, "precision": 100.0})
    np.testing.assert_array_equal(again.train.take([3, 5])["x"], x[[3, 5]])
    # The true law scores its own data best: two settings, one set of means.
    law, broad = rotations.mixture(), rotations.mixture(precision=50.0)
    assert rotations.log_prob(law, x).mean() > rotations.log_prob(broad, x).mean() + 0.1
    assert (data.test.take(np.arange(1000))["x"] != x).any()


@pytest.mark.parametrize("bad", [{"components": 0}, {"precision": -1.0}, {"mixture_seed": -3}])
def test_bad_settings_are_named(bad):
    with pytest.raises(UserError, match=f"config.data.{next(iter(bad))}"):
        rotations.rotations(bad)
