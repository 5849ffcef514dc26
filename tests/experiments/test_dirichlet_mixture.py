"""The Dirichlet mixture: its measures on cases that are known, and its smoke run."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pages
import pytest

from experiments import dirichlet_mixture as experiment
from gmjax.data.dirichlet import dirichlet_log_density, dirichlet_sample

ROOT = Path(__file__).parents[2]
X = dirichlet_sample(2000, 5)


def within(y):
    return experiment.mean_distance(y, y) * len(y) / (len(y) - 1)


def test_the_energy_distance_is_unbiased_and_sees_a_shift():
    """20 pairs of sets of true draws average to zero within 4 standard errors."""
    sets = [dirichlet_sample(300, s) for s in range(40)]
    pairs = zip(sets[::2], sets[1::2], strict=True)
    values = np.array([experiment.energy_distance(a, b, within(b)) for a, b in pairs])
    assert abs(values.mean()) < 4 * values.std() / 20**0.5
    assert experiment.energy_distance(X[:, [1, 2, 0]], X, within(X)) > 20 * values.std()
    # By hand: 2 * 1 between, 2 within the first, 0 within the second.
    a, b = np.array([[0.0], [2.0]]), np.array([[1.0], [1.0]])
    assert experiment.energy_distance(a, b, within(b)) == 2 * 1 - 2 - 0


def test_the_log_density_is_finite_where_a_coordinate_is_zero():
    assert np.isfinite(experiment.log_density(np.array([[0.0, 0.5, 0.5]])))
    assert abs(experiment.log_density(X) - dirichlet_log_density(X).mean()) < 1e-6


def test_charts_go_there_and_back():
    for model in experiment.models(X).values():
        np.testing.assert_allclose(model.back(model.to(jnp.asarray(X))), X, atol=1e-5)
    z = np.asarray(experiment.models(X)["softmax"].to(jnp.asarray(X)))
    np.testing.assert_allclose([z.mean(0), z.std(0)], [[0, 0], [1, 1]], atol=1e-4)


def test_verdicts_say_which_is_nearer_and_whether_every_seed_agrees():
    row = lambda name, seed, energy: experiment.Row(name, seed, energy, 1.0, 2.0)
    truth = [row("truth", i, e) for i, e in enumerate([1e-4, -1e-4, 2e-4])]
    near, far = [row("wright_fisher", i, 1e-3) for i in (0, 1)], row("softmax", 0, 4e-3)
    last = experiment.verdicts([*truth, *near, far, row("softmax", 1, 2e-3)])[-2]
    assert last.startswith("wright_fisher is nearer the truth than softmax by a factor of 3.0")
    assert last.endswith("in every seed")
    last = experiment.verdicts([*truth, *near, far, row("softmax", 1, 5e-4)])[-2]
    assert last.endswith("BUT NOT IN EVERY SEED")


@pytest.mark.parametrize(
    "softmax, outcome", [(9e-3, "holds"), (2e-4, "undecided"), (-9e-3, "DOES NOT HOLD")]
)
def test_the_difference_is_judged_by_the_floor(softmax, outcome):
    row = lambda name, seed, energy: experiment.Row(name, seed, energy, 1.0, 2.0)
    truth = [row("truth", i, e) for i, e in enumerate([1e-4, -1e-4, 2e-4])]
    rows = [row(name, i, e) for name, e in (("wright_fisher", 0.0), ("softmax", softmax))
            for i in (0, 1)]  # fmt: skip
    assert f": {outcome}" in experiment.verdicts([*truth, *rows])[-1]


@pytest.mark.slow
def test_smoke(tmp_path):
    command = [sys.executable, "-m", "experiments.dirichlet_mixture", "--preset", "smoke"]
    done = subprocess.run(
        [*command, "--out", tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = pages.read(tmp_path, "rows.csv", done.stdout)
    assert {r["model"] for r in rows} == {"truth", "wright_fisher", "softmax"}
    assert all(np.isfinite(float(r["energy"])) for r in rows)
