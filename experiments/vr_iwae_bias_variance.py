r"""The bound of N particles against its limit: bias -gamma_alpha^2 / (2 N), and the variance.

Write k = 1 - alpha, R = w^k / E w^k and Rbar its mean over N particles, so that the estimate of
the bound is the limit plus y = log(Rbar) / k. With gamma_alpha^2 = Var(R) / k, as N grows in a
fixed dimension (Daudel et al. 2023, theorem 3; Domke and Sheldon 2018 at alpha = 0),

    E y = -gamma_alpha^2 / (2 N) + O(1 / N^2),     Var y = gamma_alpha^2 / (k N) + O(1 / N^2).

The linear-Gaussian model has E w^k and gamma_alpha^2 in closed form, so the limit is known (see
`experiments.linear_gaussian`). Since E Rbar = 1, E y is also the mean of y - expm1(k y) / k, which
is of the order of the bias itself, 1 / N, where y is of the order 1 / sqrt(N); below N =
gamma_alpha^2, where Rbar has too heavy a tail for that, it is the mean of y. N E y and N Var y are
fitted by polynomials in 1 / N, whose constants the theorem gives. gamma_alpha^2 grows exponentially
with d, and then no N that can be run is large: see `experiments.weight_collapse`.

Run `python -m experiments.vr_iwae_bias_variance`; every function takes the problem, N and alpha.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from experiments import linear_gaussian as lg
from experiments import page, verdict
from experiments.measure import Fit
from experiments.replicates import collect
from gmjax.losses import variational
from gmjax.types import Array, Key


class Problem(NamedTuple):
    """A point of the linear-Gaussian model: only the distance of the means counts."""

    dims: int
    h2: float  # |delta|^2


def typical(dims: int, sigma: float) -> Problem:
    """The mean |delta|^2 at the best parameters perturbed by sigma: 3.25 sigma^2 a coordinate."""
    return Problem(dims, 3.25 * sigma**2 * dims)


class Preset(NamedTuple):
    """How much to run."""

    problems: Sequence[Problem] = (typical(20, 0.01), typical(100, 0.01), typical(1000, 0.01))
    alphas: Sequence[float] = (0.0, 0.2, 0.5, 0.9)
    sizes: Sequence[int] = (2, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    replicates: int = 1600  # of max(sizes) particles, in groups for the smaller sizes
    blocks: int = 20  # of replicates, whose spread gives the intervals
    chunk: int = 100


PRESETS = {
    "default": Preset(),
    "paper": Preset(
        alphas=(0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
        sizes=tuple(2**j for j in range(1, 15)),
        replicates=100_000,
        blocks=100,
    ),
    "smoke": Preset(
        problems=(typical(10, 0.1),),
        alphas=(0.0, 0.5),
        sizes=(16, 32, 64, 128, 256),
        replicates=400,
    ),
}

# -- the simulation -----------------------------------------------------------------------------


def estimates(
    key: Key,
    dims: Array,
    h2: Array,
    limits: Array,
    alphas: Array,
    sizes: Sequence[int],
    pair: lg.Pair,
) -> Array:
    """One replicate: means over groups of y, y - expm1(k y) / k and y^2: [3, S, A].

    Args:
        limits: [A] VR bound - log p(x) of the orders.
        alphas: [A] orders.
        sizes: divide the largest of them, which is the number of particles drawn.
    """
    log_w = lg.radial(key, max(sizes), dims, jnp.sqrt(h2)[None], pair)[0][:, 0]

    def one(alpha, limit, size):
        k = 1 - alpha
        y = variational.bound((log_w - limit).reshape(size, -1), alpha)
        return jnp.stack([jnp.mean(f) for f in (y, y - jnp.expm1(k * y) / k, y**2)])

    each = [jax.vmap(partial(one, size=n), out_axes=1)(alphas, limits) for n in sizes]
    return jnp.stack(each, 1)


class Row(NamedTuple):
    """A bound of N particles against its limit, nats."""

    dims: int
    h2: float
    alpha: float
    n: int
    bias: float  # E l - VR
    bias_error: float
    variance: float
    variance_error: float
    gamma2: float  # inf where it is above 1e300


def blocked(key: Key, preset: Preset, pair: lg.Pair = lg.LINEAR) -> np.ndarray:
    """(bias, variance) of blocks of replicates: [problems, 2, blocks, S, A]."""
    limits = [[lg.limit_gap(a, *p, pair) for a in preset.alphas] for p in preset.problems]
    dims, h2 = np.array(preset.problems).T
    arrays = [jnp.asarray(a, jnp.float32) for a in (dims, h2, limits)]
    orders = jnp.asarray(preset.alphas, jnp.float32)

    def draw(key):
        own = lambda p: estimates(key, *p, orders, preset.sizes, pair)
        return jax.lax.map(own, arrays)

    found = collect(draw, key, preset.replicates, preset.chunk, "bounds").astype(np.float64)
    found = found.reshape(preset.blocks, -1, *found.shape[1:]).mean(1)
    plain, controlled, square = np.moveaxis(found, 2, 0)  # [blocks, problems, S, A] each
    k = 1 - np.asarray(preset.alphas)
    heavy = [
        [np.log(c * gamma2(p, a, pair)) for c, a in zip(k, preset.alphas, strict=True)]
        for p in preset.problems
    ]
    light = np.log(preset.sizes)[:, None] > np.asarray(heavy)[:, None]
    bias = np.where(light, controlled, plain)
    # The square of the bias of all: that of a block is biased by the block's own noise.
    return np.moveaxis(np.stack([bias, square - bias.mean(0) ** 2]), 2, 0)


def gamma2(problem: Problem, alpha: float, pair: lg.Pair = lg.LINEAR) -> float:
    """gamma_alpha^2."""
    log = float(lg.log_gamma2(alpha, *problem, pair))
    return float(np.exp(log)) if log < 690 else float("inf")


def tabulate(found: np.ndarray, problem: Problem, preset: Preset) -> list[Row]:
    """A row for every order and size."""
    mean = found.mean(1)
    error = found.std(1, ddof=1) / preset.blocks**0.5
    rows = []
    for a, alpha in enumerate(preset.alphas):
        for i, n in enumerate(preset.sizes):
            bias, off, variance, wide = [float(v[j, i, a]) for j in (0, 1) for v in (mean, error)]
            rows.append(
                Row(
                    problem.dims,
                    problem.h2,
                    alpha,
                    n,
                    bias,
                    off,
                    variance,
                    wide,
                    gamma2(problem, alpha),
                )
            )
    return rows


# -- the verdicts -------------------------------------------------------------------------------

MARGIN = 0.1  # of a constant, over which the next orders in 1 / N may move a fit
RANGE = 4.0  # the expansion is fitted where N is at least RANGE (1 + k gamma_alpha^2)


def constant(sizes: Sequence[int], values: np.ndarray) -> Fit:
    """The value at 1 / N = 0 of a cubic in 1 / N, mean over blocks with its 95 % t interval.

    Sizes are weighted by the spread of the blocks.

    Args:
        values: [blocks, S] of N times a bias or a variance.
    """
    x = 1 / np.asarray(sizes, np.float64)
    basis = np.stack([np.ones_like(x), x, x**2, x**3][: len(x) - 2], 1)
    weight = 1 / values.std(0, ddof=1)
    own = np.linalg.lstsq(basis * weight[:, None], (values * weight).T)[0][0]
    half = scipy.stats.t.ppf(0.975, len(own) - 1) * own.std(ddof=1) / len(own) ** 0.5
    return Fit(float(own.mean()), float(own.mean() - half), float(own.mean() + half))


def verdicts(found: np.ndarray, problem: Problem, preset: Preset) -> list[str]:
    """Two lines an order: the constants of bias and variance, in units of the theorem's."""
    lines, sizes = [], np.asarray(preset.sizes)
    for a, alpha in enumerate(preset.alphas):
        name = f"d {problem.dims}, |delta|^2 {problem.h2:.3g}, alpha {alpha:g}"
        k, g = 1 - alpha, gamma2(problem, alpha)
        fit = sizes >= RANGE * (1 + k * g)
        if fit.sum() < 4:
            lines.append(
                f"{name}: gamma^2 = {g:.3g}: no N up to {sizes.max()} is large, no verdict:"
                f" {verdict.OPEN}: takes N of {8 * RANGE * (1 + k * g):.2g}"
            )
            continue
        for i, (what, exact) in enumerate((("bias", -g / 2), ("variance", g / k))):
            values = found[i][:, fit, a] * sizes[fit] / exact
            got = constant(sizes[fit].tolist(), values)
            # A 99.9 % interval, there being many of them.
            wide = verdict.about(got.slope, 1.9 * (got.high - got.slope))
            lines.append(
                f"{name}: N {what} -> {exact:.4g}, measured / theorem = {got.slope:.3f}"
                f" [{got.low:.3f}, {got.high:.3f}]: {verdict.judge(wide, 1 - MARGIN, 1 + MARGIN)}"
            )
    return lines


# -- the page -----------------------------------------------------------------------------------

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def figure(rows: Sequence[Row], path: Path) -> None:
    """Bias and variance times N over the theorem's constants, against N: PNG and PDF."""
    problems = list(dict.fromkeys((r.dims, r.h2) for r in rows))
    size = (3.2 * len(problems) + 0.6, 5.4)
    with page.figure(path, 2, len(problems), size, squeeze=False, sharex=True) as (_, axes):
        for j, problem in enumerate(problems):
            own = [r for r in rows if (r.dims, r.h2) == problem]
            for colour, alpha in zip(COLOURS, dict.fromkeys(r.alpha for r in own), strict=False):
                _curves(axes[:, j], [r for r in own if r.alpha == alpha], colour)
            axes[0, j].set_title(
                rf"$d = {problem[0]}$, $|\delta|^2 = {problem[1]:.3g}$", fontsize=9
            )
            axes[1, j].set_xlabel("particles $N$")
            for ax in axes[:, j]:
                ax.axhline(1, color="grey", ls=":", lw=1)
                ax.set(xscale="log", ylim=(0, 1.6))
            axes[0, j].legend(fontsize=7, title="order, $\\gamma_\\alpha^2$", title_fontsize=7)
        axes[0, 0].set_ylabel(r"$N$ (limit - bound) $/\ (\gamma_\alpha^2 / 2)$")
        axes[1, 0].set_ylabel(r"$N$ variance $/\ (\gamma_\alpha^2 / (1 - \alpha))$")


def _curves(axes, rows, colour):
    n, alpha, g = np.array([r.n for r in rows]), rows[0].alpha, rows[0].gamma2
    label = rf"$\alpha = {alpha:g}$, {g:.3g}"
    parts = (
        ([r.bias for r in rows], [r.bias_error for r in rows], -2),
        ([r.variance for r in rows], [r.variance_error for r in rows], 1 - alpha),
    )
    for ax, (value, error, unit) in zip(axes, parts, strict=True):
        scale = n * unit / g
        y, bar = np.array(value) * scale, 2 * np.array(error) * np.abs(scale)
        ax.errorbar(n, y, bar, color=colour, lw=1.2, marker="o", ms=3, label=label)


def run(preset: Preset, out: Path) -> list[str]:
    """Measures, then writes bounds.csv, figure.png, figure.pdf and verdicts.txt to `out`."""
    rows, lines = [], []
    for problem, found in zip(preset.problems, blocked(jax.random.key(0), preset), strict=True):
        rows += tabulate(found, problem, preset)
        lines += verdicts(found, problem, preset)
    page.table(out / "bounds.csv", rows)
    figure(rows, out / "figure")
    return page.say(out, lines)


def main() -> None:
    """The command line of `run`."""
    page.command("vr_iwae_bias_variance", run, PRESETS, __doc__)


if __name__ == "__main__":
    main()
