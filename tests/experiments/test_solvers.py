"""The comparison of solvers runs, and its verdicts say what its rows say."""

import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest
import scipy.stats

from experiments import solvers
from gmjax.targets import TARGETS


def test_quantiles_and_distance_of_a_gaussian():
    """Quantiles of N(m, s^2) along u are m . u + s z; a shift v has distance 2 |v| / pi."""
    z = scipy.stats.norm.ppf((np.arange(200) + 0.5) / 200)
    u = solvers.directions()
    got = solvers.quantiles(TARGETS["gaussian"]([0.3, -0.2], 0.25), 200)
    np.testing.assert_allclose(got, np.array([0.3, -0.2]) @ u + 0.5 * z[:, None], atol=1e-4)
    full = TARGETS["gaussian"]([0.3, -0.2], [[0.25, 0.0], [0.0, 0.25]])
    np.testing.assert_allclose(solvers.quantiles(full, 200), got, atol=1e-9)
    x = jax.random.normal(jax.random.key(0), (500, 2))
    truth = jnp.sort(x @ u, 0)
    got = solvers.sliced(x + jnp.asarray([0.3, 0.4]), truth)
    np.testing.assert_allclose(got, 2 * 0.5 / np.pi, rtol=1e-3)


def test_steps_spend_the_evaluations():
    for solver in solvers.COMPARED:
        for nfe in (5, 20, 500):
            spent = solvers.steps_for(solver, nfe) * solver.evaluations + 1
            assert nfe - solver.evaluations < spent <= nfe


def row(kind, solver, nfe, error):
    return solvers.Row(kind, solver, nfe, error, 0.001, 0.0)


def test_verdicts_follow_the_rows():
    slow = [row("distance", "floor", 0, 0.01), row("distance", "Euler-Maruyama", 500, 0.02)]
    good = [row("distance", "DPM-Solver++(2M)", 20, 0.021), row("distance", "EDM (Heun)", 19, 0.03)]
    order = [row("order", "DDIM", n, 1 / n) for n in (10, 20, 40)]
    order += [row("order", "EDM (Heun)", n, 1 / n) for n in (10, 20, 40)]
    lines = solvers.verdicts([*slow, *good, *order])
    ends = {line.split(" at ")[0].split(":")[0]: line.split(": ")[-1] for line in lines[1:]}
    assert ends == {
        "DPM-Solver++(2M)": "holds",
        "EDM (Heun)": "DOES NOT HOLD",
        "order of DDIM": "holds",
        "order of EDM (Heun)": "DOES NOT HOLD",
    }


def test_a_comparison_within_the_noise_is_undecided():
    slow = [row("distance", "floor", 0, 0.01), row("distance", "Euler-Maruyama", 500, 0.02)]
    line = solvers.verdicts([*slow, row("distance", "UniPC-2", 20, 0.024)])[1]
    assert ": undecided" in line
    rough = [row("order", "DDIM", n, e) for n, e in ((10, 1.0), (20, 0.8), (40, 0.4))]
    assert ": undecided" in solvers.verdicts([*slow, *rough])[-1]


@pytest.mark.slow
def test_the_smoke_run_writes_everything(tmp_path):
    lines = solvers.experiment(solvers.PRESETS["smoke"], tmp_path)
    rows = pages.read(tmp_path, "errors.csv", lines)
    labels = [s.label for s in solvers.PRESETS["smoke"].solvers]
    assert {r["solver"] for r in rows if r["kind"] == "distance"} == {"floor", *labels}
    assert not any("NOT" in line for line in lines if not line.startswith("EDM"))
