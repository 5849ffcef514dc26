import numpy as np
import pytest
from scipy import linalg

from gmjax.metrics.frechet import (
    frechet_distance,
    gaussian_frechet,
    moments,
    symmetric_root,
)


def random_covariance(rng, dims, rank=None):
    a = rng.normal(size=(rank or dims, dims))
    return a.T @ a / len(a)


def test_one_dimension_is_the_gap_of_means_and_of_deviations():
    one = lambda v: np.array([[v]])
    got = gaussian_frechet(np.array([1.0]), one(4.0), np.array([-2.0]), one(0.25))
    assert got == pytest.approx(3.0**2 + (2.0 - 0.5) ** 2)


def test_commuting_covariances():
    # C_i = Q diag(w_i) Q^T: the Bures part is sum (sqrt w1 - sqrt w2)^2.
    rng = np.random.default_rng(0)
    q = linalg.qr(rng.normal(size=(5, 5)))[0]
    w1, w2 = rng.uniform(0.1, 3.0, (2, 5))
    m1, m2 = rng.normal(size=(2, 5))
    expected = np.sum((m1 - m2) ** 2) + np.sum((np.sqrt(w1) - np.sqrt(w2)) ** 2)
    assert gaussian_frechet(m1, q * w1 @ q.T, m2, q * w2 @ q.T) == pytest.approx(expected)


def test_general_covariances_against_the_matrix_square_root():
    rng = np.random.default_rng(1)
    c1, c2 = random_covariance(rng, 6), random_covariance(rng, 6)
    m1, m2 = rng.normal(size=(2, 6))
    cross = np.trace(linalg.sqrtm(c1 @ c2).real)
    expected = np.sum((m1 - m2) ** 2) + np.trace(c1) + np.trace(c2) - 2 * cross
    assert gaussian_frechet(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-9)


def test_root_squares_back():
    cov = random_covariance(np.random.default_rng(2), 7)
    root = symmetric_root(cov)
    np.testing.assert_allclose(root @ root, cov, atol=1e-12)
    np.testing.assert_allclose(root, root.T, atol=1e-12)


def test_singular_covariances_stay_real_and_finite():
    # Rank one against rank one along u and v: tr (C1^1/2 C2 C1^1/2)^1/2 = |u.v|.
    rng = np.random.default_rng(3)
    u, v = rng.normal(size=(2, 9))
    expected = u @ u + v @ v - 2 * abs(u @ v)
    zero = np.zeros(9)
    got = gaussian_frechet(zero, np.outer(u, u), zero, np.outer(v, v))
    assert got == pytest.approx(expected, abs=1e-6)


def test_moments_are_those_of_numpy():
    x = np.random.default_rng(4).integers(0, 17, (30, 2, 3))
    mean, cov = moments(x)
    np.testing.assert_allclose(mean, x.reshape(30, 6).mean(0))
    np.testing.assert_allclose(cov, np.cov(x.reshape(30, 6).T))


def test_same_set_is_at_distance_zero_and_a_shift_adds_its_square():
    x = np.random.default_rng(5).normal(size=(40, 4))
    shift = np.array([1.0, -2.0, 0.0, 0.5])
    assert frechet_distance(x, x[::-1]) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(x, x + shift) == pytest.approx(shift @ shift)


def test_symmetry():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3))
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))


def test_constant_images_and_a_single_one():
    x = np.ones((10, 4, 4))
    assert frechet_distance(x, 3 * x) == pytest.approx(16 * 4.0)
    assert frechet_distance(x[:1], 3 * x) == pytest.approx(16 * 4.0)
