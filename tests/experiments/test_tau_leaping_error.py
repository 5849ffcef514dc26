"""The enumerated law of a leap is the library's, and the experiment says what it measured."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest
import tiny

from experiments import enumerated, measure
from experiments import tau_leaping_error as experiment
from gmjax.processes import chains, ctmc, schedules
from gmjax.samplers import grids

ROOT = Path(__file__).parents[2]
SMALL = enumerated.Problem(
    ctmc.CTMC(chains.gaussian(5, 2.0, 1.0), schedules.linear(0.5, 4.0)),
    np.random.default_rng(0).dirichlet(np.full(25, 0.5)).reshape(5, 5),
)


def test_marginals_and_conditionals_agree_with_a_plain_enumeration():
    world = tiny.world("gaussian", dims=3)
    problem = enumerated.Problem(world.ctmc, world.law)
    t, x = jnp.asarray(0.4), enumerated.states(problem)
    np.testing.assert_allclose(enumerated.marginal(problem, t), tiny.marginals(world, t), 1e-5)
    expected = world.outputs["leave_one_out"](x, jnp.full(len(x), t))
    got = enumerated.leave_one_out(problem, t)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    np.testing.assert_allclose(
        enumerated.lookup_table(problem)(x[::-1], jnp.full(len(x), t)), expected[::-1], atol=1e-4
    )


def test_the_network_with_a_time_a_lane_is_the_table():
    t, x = jnp.linspace(0.1, 1.0, 25), enumerated.states(SMALL)
    got = enumerated.pairwise(SMALL)(x, t)
    expected = jax.vmap(lambda i, t: enumerated.leave_one_out(SMALL, t)[i])(jnp.arange(25), t)
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ordinal", "categorical", "euler", "tweedie"])
def test_samplers_draw_from_the_propagated_law(method):
    """Chi-square over 25 states of 20 000 runs of 6 steps; fails at p < 1e-4."""
    steps, n = 6, 20_000
    law = enumerated.propagate(SMALL, method, steps)
    assert abs(float(law.sum()) - 1) < 1e-5
    times = grids.uniform(steps, SMALL.t_min)
    count = experiment.simulate(SMALL, method, times, jax.random.key(1), n)
    assert measure.p_value(np.asarray(count), law) > 1e-4


def test_tweedie_is_exact_in_one_site():
    problem = enumerated.Problem(SMALL.noise, SMALL.law.sum(1))
    law = enumerated.propagate(problem, "tweedie", 3)
    truth = enumerated.marginal(problem, jnp.asarray(problem.t_min))
    assert measure.distances(law, truth)[0] < 1e-5


def test_distances_of_known_laws():
    tv, hellinger = measure.distances(np.array([1.0, 3.0]), np.array([1.0, 0.0]))
    np.testing.assert_allclose((tv, hellinger), (0.75, np.sqrt(0.5)))


def test_the_p_value_is_uniform_under_the_law_and_small_off_it():
    """400 tests of true draws: the mean of p has a standard error of .0144."""
    rng, law = np.random.default_rng(0), np.random.default_rng(1).dirichlet(np.ones(200))
    p = [measure.p_value(rng.multinomial(3000, law), law) for _ in range(400)]
    assert abs(np.mean(p) - 0.5) < 4 * 0.0144
    other = 0.8 * law + 0.2 * law[::-1]
    assert measure.p_value(rng.multinomial(3000, other), law) < 1e-4


def test_the_exponent_is_the_one_at_zero():
    x = np.array([0.02, 0.014, 0.01, 0.007, 0.005])
    fit = measure.exponent(x, 3 * x**1.5 * np.exp(-20 * x), next_order=True)
    np.testing.assert_allclose(fit, 1.5, atol=1e-6)
    noise = np.exp(0.01 * np.random.default_rng(0).normal(size=5))
    fit = measure.exponent(x, x**2 * noise)
    assert fit.low < 2 < fit.high < fit.low + 0.2


@pytest.mark.parametrize(
    "power, p, outcome",
    [(1.2, 0.5, "holds"), (0.5, 1e-9, "DOES NOT HOLD"), (1.2, float("nan"), "undecided")],
)
def test_verdicts_follow_the_rows(power, p, outcome):
    """TV = tau^power and, over the sites, D^(2.5 - power)."""
    row = lambda *of, p=float("nan"): experiment.Row(*of, 0.1, p)
    rows = [row("tau", "glyph", m, "simulated", 0.0, 2, 9, 0.1, p=p) for m in ("draws", "exact")]
    rows += [row("tau", "glyph", "ordinal", "propagated", t, 2, 0, t**power)
             for t in (0.01, 0.007, 0.005, 0.0035, 0.002)]  # fmt: skip
    rows.append(row("tau", "glyph", "ordinal", "simulated", 0.01, 2, 9, 0.1, p=p))
    grow = 3.0 - power if power < 1 else 0.5
    rows += [row("D", "product", "ordinal", "propagated", 0.01, d, 0, 0.01 * d**grow)
             for d in (2, 3, 4, 5)]  # fmt: skip
    lines = experiment.verdicts(rows, 0.01)
    tested = [line for line in lines if " p = " in line or "least p" in line]
    assert all(f": {outcome}" in line for line in tested if "is off" not in line) and tested
    fitted = "DOES NOT HOLD" if power < 1 else "holds"
    assert [line.endswith(fitted) for line in lines if "theorem a" in line] == [True, True]


@pytest.mark.parametrize("name", experiment.LAWS)
def test_laws_are_laws(name):
    law = experiment.LAWS[name](3)
    assert law.shape == (3, 3, 3) and law.min() >= 0
    np.testing.assert_allclose(law.sum(), 1)


@pytest.mark.simulates
@pytest.mark.slow
def test_smoke(tmp_path):
    command = [sys.executable, "-m", "experiments.tau_leaping_error", "--preset", "smoke"]
    done = subprocess.run(
        [*command, "--out", tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = pages.read(tmp_path, "errors.csv", done.stdout)
    verdicts = (tmp_path / "verdicts.txt").read_text()
    assert "holds" in verdicts
    for wrong in ("DOES NOT HOLD", "off its law"):
        assert wrong not in verdicts
    tau = {float(r["tau"]): float(r["tv"]) for r in rows if r["source"] == "propagated"}
    assert 1.7 < tau[0.02] / tau[0.01] < 2.5


def test_an_unknown_preset_is_one_line():
    command = [sys.executable, "-m", "experiments.tau_leaping_error", "--preset", "huge"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "invalid choice: 'huge'" in done.stderr
