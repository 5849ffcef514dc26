import io
import json
import math

import numpy as np
import pytest
from metrics.states import SPECS, states
from rich.console import Console
from scipy import integrate, special, stats

from gmjax.metrics import samples
from gmjax.metrics.geometry import flat, parts_of
from gmjax.metrics.report import ROWS, table
from gmjax.metrics.samples import energy, histogram_law, independent, samples_report
from gmjax.types import DataSpec


def take(x, rows):
    return {k: v[rows] for k, v in x.items()} if isinstance(x, dict) else x[rows]


def three(kind, n=400):
    x = states(kind, 3 * n)
    return [take(x, slice(i * n, (i + 1) * n)) for i in range(3)]


def test_energy_of_shifted_normals():
    """E |N(d, 2)| in closed form; twenty batches of 200 give the standard error; |z| < 4."""
    d, rng = 0.8, np.random.default_rng(0)
    apart = 2 / math.sqrt(math.pi) * math.exp(-d * d / 4) + d * special.erf(d / 2)
    expected = 1 - (2 / math.sqrt(math.pi)) / apart
    draws = [energy(rng.normal(size=(200, 1)), rng.normal(d, 1, (200, 1))) for _ in range(20)]
    error = np.std(draws, ddof=1) / math.sqrt(20)
    assert error < 0.02 * expected + 0.005
    assert abs(np.mean(draws) - expected) < 4 * error
    same = [energy(*rng.normal(size=(2, 200, 1))) for _ in range(20)]
    assert abs(np.mean(same)) < 4 * np.std(same, ddof=1) / math.sqrt(20)
    assert energy(np.zeros((9, 2)), np.ones((9, 2))) == 1.0
    assert energy(np.zeros((9, 2)), np.zeros((9, 2))) == 0.0


def test_energy_sees_what_arc_lengths_do_not():
    """On the circle a law and its mean with its antipode differ by odd harmonics only; a law of
    period pi differs from the uniform one by even harmonics only, which arc lengths miss."""
    angle = np.repeat([0.0, np.pi], 100), np.arange(200) * 2 * np.pi / 200
    spec = DataSpec((1,), 0, "torus")
    arc = lambda a, b: np.abs((a[:, None] - b + np.pi) % (2 * np.pi) - np.pi).mean()
    a, b = angle
    assert abs(2 * arc(a, b) - arc(a, a) - arc(b, b)) < 1e-12
    f = [np.stack([np.cos(c), np.sin(c)], 1) for c in angle]
    assert energy(*f) > 0.05
    figures = samples_report(a[:, None], b[:, None], b[:, None], spec)
    assert figures["energy"] == pytest.approx(energy(*f))


@pytest.mark.parametrize("kind", SPECS)
def test_a_perfect_model_scores_as_the_floor_and_the_ceiling_does_not(kind):
    """400 of each. 1-NN accuracy of equal laws: 1/2 with a standard error of 1 / sqrt(800) = .035
    (its scores are nearly independent), so .14 is four of them."""
    x, train, test = three(kind)
    found = samples_report(x, train, test, SPECS[kind])
    assert found["broken_share"] == 0.0
    assert abs(found["nn_accuracy"] - 0.5) < 0.14 or kind == "counts"  # ties, repeated states
    assert found["energy"] < 0.01
    if kind == "half_line":  # one coordinate: the ceiling is as good a model as any
        assert found["independent/energy"] < 0.01
    else:
        assert found["independent/energy"] > 0.02 > 4 * abs(found["energy"])
        assert found["independent/sliced"] > 1.5 * found["sliced"]
        assert found["independent/nn_accuracy"] > found["nn_accuracy"] + 0.04
    assert found["floor/nn_ratio"] < 0.75 or kind in ("counts", "table", "poses", "half_line")
    assert np.isfinite(found["kernel_nll"])
    if kind != "half_line":
        assert found["kernel_nll"] < found.get("independent/nll", np.inf) - 0.05
    assert ("independent/nll" in found) == (kind not in ("counts", "hyperbolic"))
    assert all(type(v) is float for v in found.values())
    assert json.loads(json.dumps(found)) == found


def test_parts_hide_what_the_whole_shows():
    """Class and number agree in the data; in the samples each is right and their pairing wrong."""
    x, train, test = three("table")
    wrong = {**x, "classes": np.random.default_rng(0).permutation(x["classes"])}
    found = samples_report(wrong, train, test, SPECS["table"])
    assert abs(found["energy_parts"]) < 0.01
    assert found["class_tv"] < 0.12
    assert found["energy"] > 0.02  # of equal laws below .01, as above


def test_class_histograms_by_hand():
    x, train, test = three("table")
    ones = {**x, "classes": np.ones_like(x["classes"])}
    found = samples_report(ones, train, test, SPECS["table"])
    share = (test["classes"] == 1).mean(0)
    assert found["class_tv"] == pytest.approx(np.mean(1 - share))


@pytest.mark.parametrize("kind", ["sphere", "poses"])
def test_a_distance_of_ones_own(kind):
    """It sees states in their shapes, and only neighbours change."""
    x, train, test = three(kind, 60)
    shape = lambda a: a["rotation"].shape[1:] if kind == "poses" else a.shape[1:]
    seen = []

    def distance(a, b):
        seen.append((shape(a), shape(b)))
        first, second = (flat(c)[:, :1] for c in (a, b))
        return np.abs(first - second.T)

    found = samples_report(x, train, test, SPECS[kind], distance)
    plain = samples_report(x, train, test, SPECS[kind])
    assert set(seen) == {((3, 3), (3, 3)) if kind == "poses" else ((3,), (3,))}
    changed = {k for k in found if found[k] != plain[k]}
    assert changed
    assert all("nn_" in k for k in changed)


def test_samples_that_are_not_finite_are_counted_and_left_out():
    x, train, test = three("sphere", 100)
    broken = np.concatenate([x, np.full((25, 3), np.nan)])
    found = samples_report(broken, train, test, SPECS["sphere"])
    assert found["broken_share"] == 0.2
    assert found["energy"] == samples_report(x, train, test, SPECS["sphere"])["energy"]
    none = samples_report(np.full((5, 3), np.inf), train, test, SPECS["sphere"])
    assert none["broken_share"] == 1.0
    assert "energy" not in none
    assert "floor/energy" in none


def test_samples_of_another_shape_are_refused():
    x, train, test = three("sphere", 20)
    with pytest.raises(ValueError, match=r"samples have shape \(2,\), the data \(3,\)"):
        samples_report(x[:, :2], train, test, SPECS["sphere"])


@pytest.mark.parametrize("kind", ["torus", "euclidean", "half_line"])
def test_histogram_laws_are_densities_and_draw_what_they_say(kind):
    """Total mass by quadrature over fine cells; draws against it by Kolmogorov and Smirnov,
    at a significance of 1e-4."""
    base = {"torus": samples._circle, "euclidean": samples._line, "half_line": samples._half_line}
    x = flat(states(kind, 500))[:, 0]
    sample, log_prob = histogram_law(x, base[kind](x))
    ends = {"torus": (-np.pi, np.pi), "euclidean": (-60, 60), "half_line": (0, 80)}[kind]
    grid = np.linspace(*ends, 400_001)
    middle = 0.5 * (grid[1:] + grid[:-1])
    density = np.exp(log_prob(middle))
    # A midpoint is off by half a cell at each of at most 1024 jumps.
    assert density.sum() * (grid[1] - grid[0]) == pytest.approx(1.0, abs=2e-3)
    upto = integrate.cumulative_trapezoid(density, middle, initial=0)
    draws = sample(np.random.default_rng(1), 20_000)
    assert stats.kstest(draws, lambda a: np.interp(a, middle, upto)).pvalue > 1e-4
    assert stats.kstest(x, lambda a: np.interp(a, middle, upto)).pvalue > 1e-4
    fresh = flat(states(kind, 2000, seed=9))[:, 0]
    assert np.mean(log_prob(fresh)) > np.mean(base[kind](x).log_density(fresh)) - 0.05


def test_a_histogram_of_plain_data_has_one_bin():
    x = np.random.default_rng(0).uniform(-np.pi, np.pi, 3000)
    _, log_prob = histogram_law(x, samples._circle(x))
    assert np.mean(log_prob(x)) == pytest.approx(-math.log(2 * math.pi), abs=0.01)


AREAS = {
    ("sphere", (2,)): 2 * math.pi,
    ("sphere", (3,)): 4 * math.pi,
    ("sphere", (4,)): 2 * math.pi**2,
    ("simplex", (2,)): 1.0,
    ("simplex", (3,)): 0.5,
    ("rotations", (3, 3)): 8 * math.pi**2,
}


@pytest.mark.parametrize(("kind", "shape"), AREAS)
def test_uniform_laws_have_the_density_of_the_volume(kind, shape):
    x = flat(np.zeros((1, *shape)))
    law = independent(DataSpec(shape, 0, kind), x)
    np.testing.assert_allclose(law.log_prob(x), -math.log(AREAS[kind, shape]), rtol=1e-12)


@pytest.mark.parametrize("kind", SPECS)
def test_the_ceiling_lies_in_the_space(kind):
    train = flat(states(kind, 100))
    x = independent(SPECS[kind], train).sample(np.random.default_rng(0), 50)
    assert x.shape == (50, train.shape[1])
    for name, columns in parts_of(SPECS[kind]).values():
        y = x[:, columns]
        matrix = y.reshape(-1, 3, 3) if name == "rotations" else None
        ok = {
            "euclidean": lambda y=y: np.isfinite(y),
            "half_line": lambda y=y: y >= 0,
            "counts": lambda y=y: (y >= 0) & (y == y.round()),
            "classes": lambda y=y: np.isin(y, range(SPECS[kind].num_values)),
            "sphere": lambda y=y: np.isclose((y * y).sum(1), 1),
            "simplex": lambda y=y: np.isclose(y.sum(1), 1) & (y >= 0).all(1),
            "torus": lambda y=y: (y >= -np.pi) & (y < np.pi),
            "hyperbolic": lambda y=y: np.isclose(y[:, 0] ** 2 - (y[:, 1:] ** 2).sum(1), 1),
            "rotations": lambda m=matrix: (
                np.isclose(m @ m.transpose(0, 2, 1), np.eye(3))
                & (np.linalg.det(m)[:, None, None] > 0)
            ),
        }[name]
        assert ok().all()


def test_independent_classes_and_numbers_have_an_exact_likelihood():
    """Classes alone: that of the smoothed histogram, by hand."""
    x, train, test = three("table", 50)
    law = independent(SPECS["table"], flat(train))
    numbers = independent(DataSpec((2,), 0, "euclidean"), train["numeric"])
    rest = law.log_prob(flat(test)) - numbers.log_prob(test["numeric"])
    counts = np.stack([np.bincount(c, minlength=3) for c in train["classes"].T])
    logs = np.log((counts + 0.1) / (50 + 0.3))
    expected = logs[0, test["classes"][:, 0]] + logs[1, test["classes"][:, 1]]
    np.testing.assert_allclose(rest, expected, rtol=1e-10, atol=1e-12)


def test_the_table_shows_the_figures():
    x, train, test = three("table", 50)
    found = samples_report(x, train, test, SPECS["table"])
    found |= {"nll": -4.92, "nll_error": 0.081, "elbo": -4.5}
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(table(found))
    shown = console.export_text()
    assert "-4.920 ±0.081" in shown
    for key in (
        "nll",
        "kernel_nll",
        "elbo",
        "energy",
        "energy_parts",
        "sliced",
        "class_tv",
        "broken_share",
    ):
        assert ROWS[key].label in shown
    assert "bits per dimension" not in shown
