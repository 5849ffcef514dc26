"""The Dirichlet mixture against scipy, a quadrature and its own moments."""

import numpy as np
from scipy import stats

from gmjax.data import dirichlet as module
from gmjax.types import DataSpec


def test_density_is_that_of_scipy_and_integrates_to_one():
    x = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    parts = [
        w * stats.dirichlet(a).pdf(x.T)
        for w, a in zip(module.WEIGHTS, module.CONCENTRATIONS, strict=True)
    ]
    got = np.exp(module.dirichlet_log_density(x))
    np.testing.assert_allclose(got, np.sum(parts, 0), rtol=1e-9)
    # x = (u, (1 - u) v, ...) turns the triangle into the square with the Jacobian 1 - u.
    nodes, weights = np.polynomial.legendre.leggauss(200)
    u, v = np.meshgrid((nodes + 1) / 2, (nodes + 1) / 2)
    points = np.stack([u, (1 - u) * v, (1 - u) * (1 - v)], -1).reshape(-1, 3)
    volume = (np.outer(weights, weights) / 4 * (1 - u)).ravel()
    total = volume @ np.exp(module.dirichlet_log_density(points))
    assert abs(total - 1) < 1e-5
    assert module.dirichlet_log_density(np.array([[0.0, 0.5, 0.5]]))[0] == -np.inf


def test_data_lie_on_the_simplex_and_have_the_moments_of_the_law():
    """20 000 draws: each z-score of 9 moments below 4.5 fails with probability 6e-5."""
    dataset = module.dirichlet({})
    assert dataset.spec == DataSpec((3,), 0, "simplex")
    assert (dataset.train.size, dataset.test.size) == (200_000, 20_000)
    x = dataset.test.take(np.arange(20_000))["x"]
    assert x.dtype == np.float32 and x.shape == (20_000, 3) and x.min() > 0
    np.testing.assert_allclose(x.sum(1), 1, atol=1e-6)
    a = module.CONCENTRATIONS
    total = a.sum(1)
    mean = module.WEIGHTS @ (a / total[:, None])
    second = a[:, :, None] * (a[:, None] + np.eye(3)) / (total * (total + 1))[:, None, None]
    second = np.tensordot(module.WEIGHTS, second, 1)
    x = x.astype(np.float64)
    got = np.concatenate([x, (x[:, :, None] * x[:, None]).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]], 1)
    expected = np.concatenate([mean, second.ravel()[[0, 1, 2, 4, 5, 8]]])
    z = (got.mean(0) - expected) / (got.std(0) / len(x) ** 0.5)
    assert np.abs(z).max() < 4.5
    train = dataset.train.take([0])["x"]
    assert not np.array_equal(train, x[:1])
