"""The reverse process's KL by recursion, quadrature, Fisher information and Monte Carlo."""

import jax
import numpy as np
import pages
import pytest
from scipy.integrate import quad

from experiments import d_linear_convergence, d_linear_verdicts, reverse_kl, reverse_path
from experiments.measure import Fit
from gmjax.samplers.grids import path_grid
from gmjax.targets import TARGETS

GRID = reverse_kl.times("exponential_decay", 12, 2.0, 0.05)


def test_the_grid_is_the_papers():
    """Half of the steps equal on [1, T], half in geometric progression to delta."""
    grid = reverse_kl.times("exponential_decay", 10, 3.0, 1e-3)
    want = np.concatenate([np.linspace(3, 1, 6), 1e-3 ** (np.arange(1, 6) / 5)])
    np.testing.assert_allclose(grid, want, rtol=1e-12)
    with jax.enable_x64(True):
        ours = 3 * path_grid("exponential_decay", 10, reverse_kl.process(3.0), 1e-3 / 3)
    np.testing.assert_allclose(grid, ours, rtol=1e-9)
    assert reverse_kl.kappa(grid) == pytest.approx(1e-3 ** (-1 / 5) - 1)


@pytest.mark.parametrize("rule", reverse_kl.RULES)
@pytest.mark.parametrize("shape", ["", "shift", "scale"])
def test_recursion_is_quadrature_in_one_dimension(rule, shape):
    """To 1e-10 in float64."""
    law = TARGETS["gaussian"]([0.7], [0.3])
    want = reverse_kl.by_recursion(law, GRID, rule, shape, 0.3)
    got = reverse_kl.by_quadrature(law, GRID, rule, shape, [0.3])[0]
    assert want > 1e-4
    np.testing.assert_allclose(got, want, atol=1e-10)


def test_the_recursion_turns_with_the_law():
    """A full covariance and a subspace have the KL of their eigenvalues."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    flat = TARGETS["gaussian"]([1.0, 0.5, 0.0, -2.0], [0.3, 1.0, 0.0, 0.0])
    full = TARGETS["gaussian"](turn @ flat.mean, turn @ np.diag([0.3, 1, 0, 0]) @ turn.T)
    below = TARGETS["subspace"](turn[:, :2] * np.sqrt([0.3, 1.0]), turn @ flat.mean)
    want = reverse_kl.by_recursion(flat, GRID)
    for law in (full, below):
        np.testing.assert_allclose(reverse_kl.by_recursion(law, GRID), want, rtol=1e-9)


def test_one_step_of_two_points_is_an_integral():
    """A single step from N(0, 1) by adaptive quadrature of the mixing integral."""
    law, grid = TARGETS["two_point"](1), np.array([1.0, 0.4])
    a, b, n = reverse_kl.exponential(*grid)

    def density(x, t):
        alpha, v = np.exp(-t), -np.expm1(-2 * t)
        return np.mean([np.exp(-0.5 * (x - alpha * m) ** 2 / v) for m in (-1, 1)]) / np.sqrt(
            2 * np.pi * v
        )

    def score(y):
        alpha, v = np.exp(-1.0), -np.expm1(-2.0)
        return (alpha * np.tanh(alpha * y / v) - y) / v

    def p(x):
        kernel = lambda y: np.exp(-0.5 * (y**2 + (x - a * y - b * score(y)) ** 2 / n))
        return quad(kernel, -12, 12, epsabs=1e-14, limit=200)[0] / (2 * np.pi * np.sqrt(n))

    z, w = np.polynomial.legendre.leggauss(80)
    q = np.array([density(7 * x, 0.4) for x in z])
    want = 7 * np.sum(w * q * np.log(q / np.array([p(7 * x) for x in z])))
    np.testing.assert_allclose(reverse_kl.by_quadrature(law, grid)[0], want, atol=1e-9)


@pytest.mark.slow
def test_fisher_information_of_products_and_spheres():
    """A Gaussian as a product; the sphere of R is two points; that of R^2 by a plain sum."""
    t = np.array([0.01, 0.3, 2.0])
    gaussian = TARGETS["gaussian"](np.array([0.5, 0.5, 0.0]), [0.2, 0.2, 3.0])
    product = TARGETS["mixture_product"](
        3, [1.0], gaussian.mean[:, None], [[0.2**0.5]] * 2 + [[3**0.5]]
    )
    for pair in (
        (gaussian, product),
        (TARGETS["sphere"](1, 1.0), TARGETS["two_point"](1)),
    ):
        one, two = (reverse_path.curves(law) for law in pair)
        np.testing.assert_allclose(one.fisher(t), two.fisher(t), rtol=1e-10)
        np.testing.assert_allclose(one.start(0.5), two.start(0.5), rtol=1e-9)
    circle, known = TARGETS["sphere"](2, 1.3), reverse_path.curves(TARGETS["sphere"](2, 1.3))
    edge = np.linspace(-9, 9, 181)
    grid = np.stack(np.meshgrid(edge, edge), -1).reshape(-1, 2)
    with jax.enable_x64(True):
        at = [np.asarray(c) for c in (np.exp(-0.3), np.sqrt(-np.expm1(-0.6)))]
        logs, score = (jax.jit(jax.vmap(lambda x, f=f: f(x, *at)))(grid) for f in circle[4:6])
    mass = np.exp(np.asarray(logs)) * (edge[1] - edge[0]) ** 2
    np.testing.assert_allclose(mass.sum(), 1, rtol=1e-10)
    want = mass @ np.sum(np.asarray(score) ** 2, 1)
    np.testing.assert_allclose(known.fisher(np.array([0.3])), want, rtol=1e-9)


LAWS = {
    "gaussian": TARGETS["gaussian"](np.zeros(3), [0.2, 1.0, 1.8]),
    "two_point": TARGETS["two_point"](5),
    "sphere": TARGETS["sphere"](6, 6**0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_girsanov_by_draws_is_the_closed_form(name):
    """Within 4.5 standard errors, which are at most 3 %."""
    law = LAWS[name]
    known = reverse_path.curves(law)
    want = reverse_path.path_kl(known, GRID) - known.start(GRID[0])
    mean, error = reverse_path.by_girsanov(law, GRID, jax.random.key(0), 3000)
    assert error < 0.03 * want
    assert abs(mean - want) < 4.5 * error


def test_the_path_bounds_the_law():
    """Data processing: KL of the ends is at most that of the paths."""
    for name in ("gaussian", "two_point"):
        law = LAWS[name]
        form = reverse_kl.by_recursion if name == "gaussian" else reverse_kl.by_quadrature
        assert 0 < np.max(form(law, GRID)) < reverse_path.path_kl(reverse_path.curves(law), GRID)


def test_the_steps_that_are_needed():
    """KL = 50 / N reaches 1/2 at N = 100, and 0.01 off the ladder."""
    s = d_linear_convergence.Setting("two_point", 1, 16, 2.0, 0.1)
    rows = [s._replace(steps=n).row("", "", 50 / n) for n in (16, 64, 256)]
    assert d_linear_convergence.needed(rows, 0.5) == pytest.approx(100)
    assert d_linear_convergence.needed(rows, 0.01) is None


@pytest.mark.parametrize("wrong, outcome", [(False, "holds"), (True, "DOES NOT HOLD")])
def test_verdicts_follow_the_rows(wrong, outcome):
    """Exponents, identities and the bound, each on rows that satisfy it and on rows that do not."""
    fit = Fit(1.0, 0.99, 1.01) if not wrong else None
    assert d_linear_verdicts._most("", 1, fit or Fit(1.5, 1.4, 1.6)).endswith(outcome)
    assert d_linear_verdicts._least("", 1, fit or Fit(0.5, 0.4, 0.6)).endswith(outcome)
    row = lambda panel, measure, value, **of: d_linear_convergence.Row(
        panel, "two_point", measure, "exponential", "exponential_decay", 1, 1, 4, 1.0, 0.1,
        of.pop("eps", 0.0), value, **of,
    )  # fmt: skip
    off = 2.0 if wrong else 1.0
    errors = [
        row("", m, v, eps=e)
        for m, f in (("law", off), ("path", 1.5))
        for e, v in ((0.0, 1.0 * f), (0.1, 1.01 * f), (0.2, 1.04 * f), (0.4, 1.16 * f))
    ]
    assert d_linear_verdicts._error_verdicts("shift", errors)[0].endswith(outcome)
    pair = [row("localised", "left", off, error=1e-3), row("localised", "right", 1.0)]
    pair += [row("checked", "path", 1.0), row("checked", "path", off, error=1e-3)]
    assert all(line.endswith(outcome) for line in d_linear_verdicts._identity_verdicts(pair))
    bound = [row("steps", "path", 1.0, bound=1.0), row("dims", "path", off, bound=1.0)]
    assert d_linear_verdicts._bound_verdicts(bound)[0].endswith(outcome)


@pytest.mark.slow
def test_the_smoke_run_writes_everything(tmp_path):
    lines = d_linear_convergence.run(d_linear_convergence.PRESETS["smoke"], tmp_path)
    rows = pages.read(tmp_path, "errors.csv", lines)
    panels = {"dims", "steps", "needed", "delta", "subspace", "localised", "checked"}
    assert panels < {r["panel"] for r in rows}
    assert max(int(r["dim"]) for r in rows) == 10_000
    assert not any("NOT" in line or "FAILS" in line for line in lines)
