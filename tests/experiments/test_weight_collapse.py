"""Gaps of known laws, the weights of an autoencoder, and the experiment as a whole."""

import jax
import numpy as np
import pages
import pytest

from experiments import linear_gaussian as lg
from experiments import trained_vae
from experiments import weight_collapse as experiment
from gmjax.losses import variational


@pytest.fixture(scope="module")
def shifted():
    """The shifted Gaussian in five dimensions and in a million."""
    preset = experiment.PRESETS["smoke"]._replace(dims=(5, 10**6), sizes=(1, 2, 128))
    rows = experiment.gaussian_gaps(jax.random.key(0), experiment.FAMILIES[0], preset)
    return {(r.dims, r.alpha, r.n): r for r in rows}


def test_gaps_of_few_particles_by_quadrature(shifted):
    """log w = -B^2 / 2 + B s, so that two particles are an integral in the plane."""
    s, mass = np.polynomial.hermite_e.hermegauss(100)
    mass = mass / mass.sum()
    log_w = -2.5 + 5**0.5 * s
    for alpha in (0.0, 0.5):
        k = 1 - alpha
        two = np.logaddexp(*np.meshgrid(k * log_w, k * log_w)) / k - np.log(2) / k
        for n, exact in ((1, -2.5), (2, float(np.sum(np.outer(mass, mass) * two)))):
            r = shifted[5, alpha, n]
            assert abs(r.gap - exact) < 4.5 * r.error  # 4 z-scores


def test_the_largest_weight_makes_the_gap_of_many_dimensions(shifted):
    for alpha in (0.0, 0.5):
        for n in (2, 128):
            r = shifted[10**6, alpha, n]
            # What the other weights add is of the order 1 / B^2 = 1e-6.
            assert abs(r.largest - lg.expected_maximum(n)) < 4.5 * r.error / r.spread + 1e-4


def test_descriptions_of_a_gap():
    r = experiment.row("", 4, 0.5, 8, -1.0, 0.1, -2.0, 2.0, -0.5, np.log(3.0))
    np.testing.assert_allclose(r.expansion, -0.5 - 3 / 16)
    np.testing.assert_allclose(r.collapse, -2 + 2 * np.sqrt(2 * np.log(8)) - 2 * np.log(8))
    np.testing.assert_allclose(r.sharp, -2 + 2 * 1.42360 - 2 * np.log(8), rtol=1e-5)  # tables
    np.testing.assert_allclose(r.largest, (1 + 2 * np.log(8)) / 2)
    assert experiment.row("", 4, 0.5, 8, *[1.0] * 5, 800.0).expansion == -np.inf


@pytest.mark.parametrize(
    "off, error, outcome",
    [(1.0, 0.0, "holds"), (1.1, 0.0, "DOES NOT HOLD"), (1.0, 1.0, "undecided")],
)
def test_the_verdict_follows_the_largest_weight(off, error, outcome):
    preset = experiment.PRESETS["smoke"]._replace(dims=(4,), sizes=(8,))
    made = experiment.row("", 4, 0.0, 8, 0.0, error, 0.0, 1.0, 0.0, 0.0)
    made = made._replace(largest=off * lg.expected_maximum(8))
    lines = experiment._largest(preset.families[0], 0.0, [made], preset)
    assert all(f": {outcome}" in line for line in lines)


def test_concentration():
    log_w = np.log(np.array([[1.0], [1.0], [4.0], [1e-30]], np.float32))
    size, largest = experiment.concentration(log_w, 0.0, 2)
    # Groups are every second draw: (1, 4) and (1, 0).
    groups = experiment.normalised(log_w, 0.0, 2)
    np.testing.assert_allclose(groups.sum(0), 1)
    np.testing.assert_allclose(size, np.mean(1 / (groups**2).sum(0)))
    np.testing.assert_allclose(largest, np.mean(groups.max(0)))


@pytest.mark.slow
def test_weights_of_an_autoencoder_have_its_elbo():
    """E log w = E log p(x | z) - KL, the KL in closed form: 2 z-scores."""
    got = trained_vae.train(3, 5, 2)
    log_w = trained_vae.log_weights(got.model, got.params, got.x, jax.random.key(0), 2048, 256)
    assert log_w.shape == (2048, 2)
    q = got.model.encode(got.params, got.x)
    z = variational.draw(q, jax.random.normal(jax.random.key(1), (2048, 2, 3)))
    log_lik = experiment.trained_vae.vae.log_likelihood(got.model, got.params, got.x, z, None)
    elbo = log_lik - variational.kl(q).sum(-1)
    error = np.hypot(log_w.std(0), np.std(elbo, 0)) / 2048**0.5
    assert (np.abs(log_w.mean(0) - np.mean(elbo, 0)) < 4.5 * error).all()


@pytest.mark.slow
def test_smoke(tmp_path):
    lines = experiment.run(experiment.PRESETS["smoke"], tmp_path)
    pages.read(tmp_path, "gaps.csv", lines)
    # 300 replicates have intervals as wide as the margin: all is measured, little is decided.
    assert len([line for line in lines if "theorem a_N" in line]) == 8
    assert not [line for line in lines if "not measured" in line]
    assert not [line for line in lines if "DOES NOT" in line]
