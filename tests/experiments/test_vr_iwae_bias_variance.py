"""Bias and variance of the bound of few particles by quadrature, and the fit of constants."""

import jax
import numpy as np
import pages
import pytest

from experiments import linear_gaussian as lg
from experiments import vr_iwae_bias_variance as experiment

ONE = experiment.Preset(
    problems=(experiment.Problem(1, 0.5),),
    alphas=(0.0, 0.5, 0.9),
    sizes=(1, 2, 64),
    replicates=4000,
    chunk=1000,
)


@pytest.fixture(scope="module")
def blocks():
    return experiment.blocked(jax.random.key(0), ONE)[0]


def test_one_and_two_particles_by_quadrature(blocks):
    """One coordinate: the expectations are integrals on a line and in a plane."""
    e, mass = np.polynomial.hermite_e.hermegauss(120)
    mass = mass / mass.sum()
    v, h2 = 2 / 3, 0.5
    log_w = 0.5 * np.log(2 * v) - h2 - 2 * (v * h2) ** 0.5 * e - (v - 0.5) * e**2
    pairs = np.stack(np.meshgrid(log_w, log_w))
    for a, alpha in enumerate(ONE.alphas):
        k, limit = 1 - alpha, float(lg.limit_gap(alpha, 1, h2))
        two = np.log(np.mean(np.exp(k * pairs), 0)) / k - limit
        for i, (y, p) in enumerate(((log_w - limit, mass), (two, np.outer(mass, mass)))):
            exact = np.sum(p * y), np.sum(p * y**2) - np.sum(p * y) ** 2
            for own, value in zip(blocks[..., i, a], exact, strict=True):
                # 12 z-scores of means over 20 blocks; t of 19 degrees beyond 6 once in 10^5.
                error = own.std(ddof=1) / len(own) ** 0.5
                assert abs(own.mean() - value) < 6 * error


def test_the_constant_of_a_known_expansion():
    sizes = (32, 64, 128, 256, 512)
    n = np.array(sizes)
    noise = 1e-3 * np.random.default_rng(0).normal(size=(20, 5))
    fit = experiment.constant(sizes, 1.3 - 2 / n + 20 / n**2 + noise)
    assert fit.low < 1.3 < fit.high < fit.low + 0.01
    assert not fit.low < 1.31 < fit.high


def test_the_range_is_told():
    """gamma^2 is e^1000 or so: no verdict, and nothing overflows."""
    far = experiment.Problem(10**5, 1e4)
    preset = ONE._replace(problems=(far,), alphas=(0.0,))
    found = np.zeros((2, 20, 3, 1))
    assert "no verdict" in experiment.verdicts(found, far, preset)[0]
    assert experiment.gamma2(far, 0.0) == np.inf


@pytest.mark.parametrize("off, outcome", [(1, "holds"), (1.4, "DOES NOT HOLD")])
def test_the_verdicts_follow_the_constants(off, outcome):
    problem, sizes = experiment.Problem(5, 0.01), (64, 128, 256, 512, 1024)
    preset = ONE._replace(problems=(problem,), alphas=(0.0,), sizes=sizes)
    g = experiment.gamma2(problem, 0.0)
    noise = 1 + 1e-4 * np.random.default_rng(0).normal(size=(2, 20, 5))
    found = noise * np.array([-g / 2, g])[:, None, None] / sizes * off
    lines = experiment.verdicts(found[..., None], problem, preset)
    assert len(lines) == 2 and all(line.endswith(outcome) for line in lines)


@pytest.mark.slow
def test_smoke(tmp_path):
    lines = experiment.run(experiment.PRESETS["smoke"], tmp_path)
    pages.read(tmp_path, "bounds.csv", lines)
    assert len(lines) == 5 and not [line for line in lines if "DOES NOT" in line]
