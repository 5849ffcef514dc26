"""Perturbed flows against closed forms of Gaussians, and the constants of regularity."""

import jax
import numpy as np
import pages
import pytest

from experiments import flow_matching_bounds, flow_perturbed
from gmjax.targets import TARGETS

SMALL = 0.2


@pytest.mark.slow
def test_a_gaussians_flow_is_in_closed_form():
    """x -> x m(0) / m(s), m^2 = 1 + gamma^2, gamma = small^(1 - t): a constant error moves the end
    by eps int m(0) / m dt, the worst by eps sqrt(int (m(0) / m)^2 dt)."""
    data = flow_perturbed.two_modes(0.0)
    t = (np.arange(4000) + 0.5) / 4000
    stretch = np.sqrt((1 + SMALL**2) / (1 + SMALL ** (2 * (1 - t))))
    with jax.enable_x64(True):
        found = flow_perturbed.flows(data, "ve", 1.0, np.array([1e-4, 0.1]))(SMALL)
        worst, limit = flow_perturbed.gaussian("ve", np.array([1.0]), SMALL, 1.0)
    assert found.landing < 1e-4
    np.testing.assert_allclose(found.w2[0], np.array([1e-4, 0.1]) * stretch.mean(), rtol=1e-3)
    root = np.sqrt(np.mean(stretch**2))  # to first order in eps
    np.testing.assert_allclose(found.w2[2][0], 1e-4 * root, rtol=2e-3)
    np.testing.assert_allclose(worst, root, rtol=1e-4)
    ends = 0.5 * np.log(2 / (1 + SMALL**2))
    np.testing.assert_allclose([found.lipschitz, np.log(limit)], ends, rtol=1e-3)
    # The law itself is at the distance of its noise from the data.
    assert (found.to_data >= np.sqrt(1 + SMALL**2) - 1 - 0.11).all()


def test_a_subspace_has_lambda_one_exactly():
    """Off the span the velocity is (gamma' / gamma) x; both integrals are 2 log of the range."""
    data = TARGETS["subspace"](np.array([[0.6], [0.8]]))
    law = flow_perturbed.pair("interpolant", data)
    with jax.enable_x64(True):
        at = flow_perturbed.lipschitz(law, "interpolant", 1.0, np.zeros((1, 2)))
        value, slope, rest = (float(q) for q in at(0.05))
    margin = 0.5 * (np.sqrt(1 + 0.05**2) - 1)
    np.testing.assert_allclose(slope, 2 * np.log((1 + 2 * margin) / 0.05), rtol=1e-3)
    np.testing.assert_allclose(value, slope, rtol=1e-2)
    np.testing.assert_allclose(rest, 2 * np.arcsin(1 / (1 + 2 * margin)), rtol=1e-3)


def test_regularity_is_the_largest_posterior_covariance():
    """Cov(noise) / tau^2 of two points under noise, searched over states and noise levels."""
    ratio = 3.0
    y = np.linspace(1e-3, 1, 4000)  # sigma^2 / (sigma^2 + tau^2), at the midpoint of the modes
    want = np.max(y + ratio**2 * (y - y**2))
    theorem, least = flow_perturbed.regularity(ratio)
    np.testing.assert_allclose(least, want, rtol=1e-6)
    assert least < theorem == 10
    law = TARGETS["mixture"]([0.5, 0.5], [[-ratio], [ratio]], 1.0)
    with jax.enable_x64(True):
        tau = np.sqrt((1 - y) / y)[::40][:-1]
        x = np.linspace(-4, 4, 81)[:, None]
        cov = jax.vmap(
            lambda s: jax.vmap(lambda x: law.posterior(x, 1.0 + 0 * s, s))(x), out_axes=0
        )(np.maximum(tau, 1e-3))
        total = cov.diagonal[..., 0] + np.sum(cov.factor[..., 0, :] ** 2 * cov.weights, -1)
    largest = np.max(np.asarray(total) / np.maximum(tau, 1e-3)[:, None] ** 2)
    assert 0.98 * least < largest <= least * (1 + 1e-9)


@pytest.mark.parametrize(
    "share, outcome", [(0.5, "holds"), (2.0, "DOES NOT HOLD"), (np.nan, "undecided")]
)
def test_verdicts_follow_the_rows(share, outcome):
    """T1 by its share, T2 by the slopes, and the corollary by W2 ~ eps^(1 / share)."""
    row = flow_matching_bounds.Row
    size = [row("size", "ve", "modes", "waves", 2.0, 1, 0.1, e, share * e, e) for e in (0.1, 1, 2)]
    noise = [row("noise", "ve", "modes", "", 1.0, 1, 0.1, 0.0, share * s, s, s, 1.0)
             for s in (1.0, 2.0, 3.0)]  # fmt: skip
    if share > 1:
        noise = [r._replace(value=10 * r.value) for r in noise]
    both = [row("both", "ve", "modes", "", 1.0, 1, small, e, e ** (0.3 / share), 1.0)
            for e in (0.1, 0.3, 1.0) for small in (0.1, 0.2, 0.3)]  # fmt: skip
    if share > 0:
        lines = flow_matching_bounds.verdicts([*size, *noise, *both])
        assert len(lines) == 4 and all(f": {outcome}" in line for line in lines)
    else:
        assert f": {outcome}" in flow_matching_bounds.verdicts(size)[0]


@pytest.mark.slow
def test_the_smoke_run_writes_everything(tmp_path):
    lines = flow_matching_bounds.run(flow_matching_bounds.PRESETS["smoke"], tmp_path)
    panels = {r["panel"] for r in pages.read(tmp_path, "errors.csv", lines)}
    assert panels == {"size", "landing", "noise", "both"}
    assert not any("NOT" in line for line in lines)
