r"""Signal-to-noise of the gradients of VR-IWAE bounds against N and M, linear-Gaussian model.

SNR_i = |E g_i| / std g_i, of a gradient g averaged over M draws of N particles each. Theorem
(Rainforth et al. 2018; Tucker et al. 2019; Daudel et al. 2023, theorem 2): in a fixed dimension,
as N grows, it is of order sqrt(M N) for theta; for phi, reparameterised (rep), of order sqrt(M / N)
at alpha = 0 and sqrt(M N) at alpha in (0, 1); doubly reparameterised (drep), sqrt(M N).

Two measurements check each other (`experiments.snr_gradients`): points, the library's gradients by
differentiation over vmapped replicates, and curves, from a reduction to two numbers a particle that
works in any dimension. Where the SNR is below 1 / sqrt(repeats), an estimate from `repeats` draws
does not see it: the mean of |N(SNR, 1 / repeats)| is what it shows.

Run `python -m experiments.vr_iwae_snr`; every function takes the model, N, M and alpha.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from experiments import linear_gaussian as lg
from experiments import page, snr_page, verdict
from experiments.measure import Fit, exponent
from experiments.replicates import collect
from experiments.snr_gradients import CURVES, Reduced, covariance, drawn, parts, reduced, simulated
from gmjax.losses import variational
from gmjax.types import Key

# -- the tables ---------------------------------------------------------------------------------


class Row(NamedTuple):
    """A signal-to-noise ratio, averaged over coordinates and runs."""

    source: str  # "reduced", "gradients" (differentiated), or "outer" (the same, of 16 points)
    dims: int
    sigma: float
    alpha: float
    n: int
    m: int
    curve: str  # in `CURVES`
    snr: float
    error: float  # standard error, over runs; nan for a single run
    shown: float  # by an estimate from 1000 replicates
    gap: float  # bound - log p(x), nats; nan where it was not measured
    limit: float  # VR bound - log p(x)


SIZES = tuple(2**j for j in range(1, 10))
LARGE = tuple(2**j for j in range(4, 13))


class Preset(NamedTuple):
    """How much to run."""

    dims: Sequence[int] = (20, 100, 1000)
    sigmas: Sequence[float] = (0.01, 0.5)
    alphas: Sequence[float] = (0.0, 0.2, 0.5, 0.9)
    sizes: Sequence[int] = SIZES
    points: int = 1024
    runs: int = 10  # models, data sets and perturbations
    repeats: int = 4
    slope_sizes: Sequence[int] = LARGE
    slope_points: int = 256
    checked: Sequence[tuple[int, int]] = ((20, 2), (20, 32))  # (d, N) by differentiation
    checked_alphas: Sequence[float] = (0.0, 0.5)
    check_repeats: int = 200
    outer: Sequence[int] = (1, 4, 16, 64)  # M
    outer_repeats: int = 1000
    chunk: int = 4


PRESETS = {
    "default": Preset(),
    "paper": Preset(
        alphas=(0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
        runs=40,
        repeats=32,
        slope_points=1024,
        checked=tuple((d, n) for d in (20, 100, 1000) for n in (2, 8, 32, 128, 512)),
        check_repeats=1000,
        outer_repeats=10_000,
        chunk=8,
    ),
    "smoke": Preset(
        dims=(20,),
        sigmas=(0.01,),
        alphas=(0.0, 0.5),
        sizes=(2, 32),
        points=32,
        runs=4,
        slope_sizes=(32, 128, 512, 2048),
        slope_points=32,
        checked=((20, 4),),
        check_repeats=100,
        outer=(1, 4, 16),
        outer_repeats=200,
        chunk=100,
    ),
}


def shown(snr: np.ndarray, repeats: int = 1000) -> np.ndarray:
    """E |N(snr, 1 / repeats)|: what an estimate |mean| / std from `repeats` draws shows."""
    dev = repeats**-0.5
    z = snr / dev
    return dev * math.sqrt(2 / math.pi) * np.exp(-(z**2) / 2) + snr * (
        1 - 2 * scipy.stats.norm.cdf(-z)
    )


def against_n(
    key: Key, dims: int, preset: Preset, sizes: Sequence[int], points: int
) -> list[Reduced]:
    """`reduced` for `runs` models, one result a perturbation: every leaf [runs, ...]."""

    def run(key):
        key_w, key_r = jax.random.split(key)

        def one(sigma):
            x, w = lg.problem(key_w, dims, points, sigma)
            return reduced(key_r, x, w, preset.alphas, sizes, preset.repeats)

        return jax.lax.map(one, jnp.asarray(preset.sigmas, jnp.float32))

    found = collect(run, key, preset.runs, 1, f"reduction, d {dims}")
    return [jax.tree.map(lambda a, i=i: a[:, i], found) for i in range(len(preset.sigmas))]


def ratios(found: Reduced, curve: str) -> np.ndarray:
    """SNR of the coordinates: [runs, A, S, coordinates]."""
    i = CURVES.index(curve)
    mean, std = found.mean[:, i], found.std[:, i]
    half = mean.shape[-1] // 2 if curve == "theta" else 0
    return np.abs(mean[..., half:]) / std[..., half:]


def tabulate(found: Reduced, dims: int, sigma: float, preset: Preset) -> list[Row]:
    """A row for every curve, order and size."""
    rows = []
    for curve in CURVES:
        snr = ratios(found, curve)
        for a, alpha in enumerate(preset.alphas):
            limit = float(np.mean(lg.limit_gap(alpha, dims, np.asarray(found.h2))))
            for i, n in enumerate(preset.sizes):
                own = snr[:, a, i].mean(-1)
                error = own.std(ddof=1) / len(own) ** 0.5
                seen = shown(snr[:, a, i]).mean()
                gap = float(found.gap[:, a, i].mean())
                figures = map(float, (own.mean(), error, seen, gap, limit))
                rows.append(Row("reduced", dims, sigma, alpha, n, 1, curve, *figures))
    return rows


# Published, means of 10 runs: (d, sigma, alpha) -> gap at N = 512, and SNR of phi at N = 2 and 512.
REFERENCE: dict[tuple, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    (20, 0.01, 0.0): (-0.001, (0.289, 0.026), (1.56, 13.1)),
    (20, 0.01, 0.5): (-0.210, (0.397, 3.84), (1.98, 30.6)),
    (100, 0.01, 0.0): (-0.022, (0.454, 0.082), (2.10, 1.84)),
    (100, 0.01, 0.5): (-1.050, (0.532, 3.60), (2.47, 28.5)),
    (1000, 0.01, 0.0): (-7.02, (0.372, 0.250), (1.49, 1.29)),
    (1000, 0.01, 0.9): (-20.40, (0.484, 5.88), (1.95, 26.1)),
    (1000, 0.5, 0.0): (-691.4, (19.0, 18.0), (71.4, 55.8)),
    (1000, 0.5, 0.5): (-697.5, (), ()),
}


class Check(NamedTuple):
    """A published figure beside ours."""

    dims: int
    sigma: float
    alpha: float
    what: str
    published: float
    ours: float
    error: float  # Monte-Carlo standard error of the difference

    @property
    def z(self) -> float:
        return (self.published - self.ours) / self.error


def checks(found: Reduced, dims: int, sigma: float, preset: Preset) -> list[Check]:
    """Published figures, and what ten runs of the published procedure would show.

    The published SNR varies between settings as that of one random coordinate a run does, so its
    error is taken to be the deviation of a random coordinate in a random run over sqrt(10). The
    factor from N = 2 to 512 and that from rep to drep use the same coordinates, whose own factors
    cancel; their errors are by resampling.
    """
    rng = np.random.default_rng(0)
    out: list[Check] = []
    if preset.points != 1024 or not {2, 512} <= set(preset.sizes):
        return out
    ends = [preset.sizes.index(2), preset.sizes.index(512)]
    for a, alpha in enumerate(preset.alphas):
        if (dims, sigma, alpha) not in REFERENCE:
            continue
        gap, *published = REFERENCE[dims, sigma, alpha]
        add = partial(Check, dims, sigma, alpha)
        own = found.gap[:, a, ends[1]]
        rounding = 0.0005 if abs(gap) < 2 else 0.005 if abs(gap) < 100 else 0.05
        error = math.hypot(own.std(ddof=1) * math.sqrt(0.1 + 1 / len(own)), rounding / 3**0.5)
        out.append(add("gap at 512", gap, float(own.mean()), error))
        if not published[0]:
            continue
        snr = np.stack([ratios(found, c)[:, a][:, ends] for c in ("rep", "drep")])
        runs, coordinates = snr.shape[1], snr.shape[-1]
        picks = rng.integers(runs, size=(2000, 10)), rng.integers(coordinates, size=(2000, 10))
        ten = snr.transpose(0, 2, 1, 3)[:, :, *picks]  # [2, ends, 2000, 10]
        # Each from 1000 repeats: noise of the mean and of the deviation.
        ten = np.abs(ten + rng.normal(size=ten.shape) / 1000**0.5)
        ten = (ten * (1 + rng.normal(size=ten.shape) / 2000**0.5)).mean(-1)
        mine = shown(snr).mean((1, 3))
        for i, name in enumerate(("rep", "drep")):
            for j, n in enumerate((2, 512)):
                what = f"SNR {name} at {n}"
                out.append(add(what, published[i][j], float(mine[i, j]), float(ten[i, j].std())))
            factor = np.log(ten[i, 1] / ten[i, 0])
            out.append(_factor(add, f"SNR {name}, 512 over 2", published[i], mine[i], factor))
        at = [p[0] for p in published]
        factor = np.log(ten[1, 0] / ten[0, 0])
        out.append(_factor(add, "SNR drep over rep at 2", at, mine[:, 0], factor))
    return out


def _factor(add, what, published, mine, resampled):
    """On the scale of logarithms."""
    ratio = math.log(published[1] / published[0]), math.log(mine[1] / mine[0])
    return add(f"log {what}", *ratio, float(resampled.std()))


class Agreement(NamedTuple):
    """The library's gradients against the reduction: coordinates of phi."""

    dims: int
    n: int
    alpha: float
    gradient: str
    p_value: float  # that the means are the same: uniform where they are
    excess: float  # of the variances, over the reduction's
    half: float  # of the 99.9 % interval of the excess


BLOCKS = 10


def agreements(key: Key, preset: Preset, sigma: float = 0.01) -> tuple[list[Agreement], list[Row]]:
    """Each (d, N, alpha, gradient) of the preset, on one model of each dimension."""
    out, rows = [], []
    alphas, repeats = preset.checked_alphas, preset.check_repeats
    for d in dict.fromkeys(d for d, _ in preset.checked):
        key_w, key_r, key_s = jax.random.split(jax.random.fold_in(key, d), 3)
        x, w = lg.problem(key_w, d, preset.points, sigma)
        delta = lg.offset(w, x)
        h = jnp.linalg.norm(delta, axis=1)
        sizes = [n for dims, n in preset.checked if dims == d]
        own = partial(
            parts, dims=d, h=h, alphas=alphas, sizes=sizes, repeats=repeats // BLOCKS, share=1
        )
        blocks = jax.jit(lambda key, own=own: jax.lax.map(own, jax.random.split(key, BLOCKS)))
        truth = jax.tree.map(np.float64, jax.device_get(blocks(key_r)))
        points = np.asarray(x, float), np.asarray(delta / h[:, None], float)
        for i, n in enumerate(sizes):
            found = drawn(key_s, x, w, n, alphas, repeats, preset.chunk)
            for a, alpha in enumerate(alphas):
                for name in variational.GRADIENTS:
                    g = np.asarray(found[name][:, a, d:], float)  # theta's noise is b's
                    at = [f[:, :, a, i] for f in truth[:3]]
                    tests = agreement(g, points, at, CURVES.index(name))
                    out.append(Agreement(d, n, alpha, name, *tests))
                    snr = float((np.abs(g.mean(0)) / g.std(0, ddof=1)).mean())
                    row = Row("gradients", d, sigma, alpha, n, 1, name, snr, *[math.nan] * 4)
                    rows.append(row)
    return out, rows


def agreement(
    g: np.ndarray, points: tuple[np.ndarray, np.ndarray], truth: Sequence[np.ndarray], curve: int
) -> tuple[float, float, float]:
    """Have draws the means and the variances of the reduction? p-value, excess, half interval.

    Means by a chi-square of the difference under its whole covariance, for a and b share noise
    and the reduction has noise of its own, along u; variances by blocks, for they are no
    chi-squares where weights are heavy.

    Args:
        g: [R, 2 d] draws of the gradient.
        points: x and u, points and directions: [T, d] each.
        truth: mean, along and across of `Parts`, from R draws in all: [BLOCKS, 3, T] each.
        curve: of `CURVES`.
    """
    (x, u), (mean, along, across) = points, truth
    t, both = len(x), np.concatenate([x * u, u], 1)
    gap = g.mean(0) - mean.mean(0)[curve] @ both / t
    whole = covariance(x, u, along.mean(0)[curve], across.mean(0)[curve])
    # The reduction's mean is drep's, whichever the curve.
    noise = whole + covariance(x, u, along.mean(0)[CURVES.index("drep")], np.zeros(t))
    p = scipy.stats.chi2.sf(gap @ np.linalg.solve(noise / len(g), gap), len(gap))
    own = [
        part.var(0, ddof=1) - np.diag(covariance(x, u, *pair))
        for part, *pair in zip(
            np.array_split(g, BLOCKS), along[:, curve], across[:, curve], strict=True
        )
    ]
    excess = (np.array(own) / np.diag(whole)).mean(1)
    half = scipy.stats.t.ppf(0.9995, BLOCKS - 1) * excess.std(ddof=1) / BLOCKS**0.5
    return float(p), float(excess.mean()), float(half)


def against_m(key: Key, preset: Preset, dims: int = 20, n: int = 8, sigma: float = 0.5):
    """Rows of the library's gradients of 16 points as M grows, alpha = 0."""
    key_w, key_s = jax.random.split(key)
    x, w = lg.problem(key_w, dims, 16, sigma)
    rows = []
    chunk = max(1, preset.outer_repeats // 10)
    found = simulated(key_s, x, w, n, (0.0,), preset.outer_repeats, chunk, preset.outer)
    for i, m in enumerate(preset.outer):
        snr = {k: np.abs(v[i, 0]) / np.sqrt(found.variance[k][i, 0]) for k, v in found.mean.items()}
        parts = {"theta": snr["rep"][:dims], "rep": snr["rep"][dims:], "drep": snr["drep"][dims:]}
        for curve, part in parts.items():
            figures = float(part.mean()), *[math.nan] * 4
            rows.append(Row("outer", dims, sigma, 0.0, n, m, curve, *figures))
    return rows


# -- slopes and verdicts ------------------------------------------------------------------------


def slopes(found: Reduced, sizes: Sequence[int], curve: str, a: int) -> Fit:
    """The exponent in N as N grows, mean over runs with its 95 % t interval.

    In each run log SNR = slope log N + constant + k / N, by least squares; of the root mean square
    over coordinates.
    """
    snr = np.sqrt((ratios(found, curve)[:, a] ** 2).mean(-1))
    own = np.array([-exponent([1 / n for n in sizes], run, next_order=True).slope for run in snr])
    half = scipy.stats.t.ppf(0.975, len(own) - 1) * own.std(ddof=1) / len(own) ** 0.5
    return Fit(float(own.mean()), float(own.mean() - half), float(own.mean() + half))


SAME = 0.25  # variances and published figures are the same to this share
NEAR = 0.03  # two halves that are one apart are told from each other by far less


def slope_verdict(name: str, theorem: float, fit: Fit) -> str:
    """Whether the interval lies within `NEAR` of the theorem's exponent."""
    return (
        f"{name}: theorem {theorem:+.1f}, measured {fit.slope:+.3f} [{fit.low:.3f},"
        f" {fit.high:.3f}]: {verdict.judge(fit, theorem - NEAR, theorem + NEAR)}"
    )


def theorem(curve: str, alpha: float) -> float:
    """The exponent of N."""
    return -0.5 if curve == "rep" and alpha == 0 else 0.5


def verdicts(found: Sequence[Check], same: Sequence[Agreement], by_m: Sequence[Row]) -> list[str]:
    """One line a claim, but for the slopes in N."""
    lines = []
    for a in same:
        wide = verdict.about(a.excess, a.half)
        lines.append(
            f"library against reduction, d {a.dims}, N {a.n}, alpha {a.alpha:g}, {a.gradient}:"
            f" means the same, p = {a.p_value:.3f}: {verdict.tested(a.p_value)}; variances apart by"
            f" {a.excess:+.4f} +- {a.half:.4f}, the same to {SAME:g}:"
            f" {verdict.judge(wide, -SAME, SAME)}"
        )
    for curve in CURVES:
        own = [r for r in by_m if r.curve == curve]
        if len(own) > 2:
            fit = exponent([r.m for r in own], [r.snr for r in own])
            lines.append(slope_verdict(f"SNR ~ M^a, {curve}, alpha 0", 0.5, fit))
    for c in found:
        room = math.log(1 + SAME) if c.what.startswith("log") else SAME * abs(c.published)
        apart = verdict.about(c.published - c.ours, 3 * c.error)
        lines.append(
            f"published, d {c.dims}, sigma {c.sigma:g}, alpha {c.alpha:g}, {c.what}:"
            f" {c.published:.4g}, ours {c.ours:.4g}, error {c.error:.2g}, z {c.z:+.1f}:"
            f" the same to {room:.2g}: {verdict.judge(apart, -room, room)}"
        )
    return lines


def run(preset: Preset, out: Path) -> list[str]:
    """Measures, then writes snr.csv, figure.png, figure.pdf and verdicts.txt to `out`."""
    keys = jax.random.split(jax.random.key(0), 4)
    rows, found = [], []
    for d in preset.dims:
        key = jax.random.fold_in(keys[0], d)
        both = against_n(key, d, preset, preset.sizes, preset.points)
        for sigma, own in zip(preset.sigmas, both, strict=True):
            rows += tabulate(own, d, sigma, preset)
            found += checks(own, d, sigma, preset)
    same, checked = agreements(keys[1], preset)
    by_m = against_m(keys[2], preset)
    rows += checked + by_m
    d, sigma, sizes = preset.dims[0], preset.sigmas[0], preset.slope_sizes
    first = preset._replace(sigmas=(sigma,))
    far = against_n(keys[3], d, first, sizes, preset.slope_points)[0]
    lines = []
    for a, alpha in enumerate(preset.alphas):
        for curve in CURVES:
            name = f"SNR ~ N^a, d {d}, sigma {sigma:g}, {curve}, alpha {alpha:g}"
            lines.append(slope_verdict(name, theorem(curve, alpha), slopes(far, sizes, curve, a)))
    lines += verdicts(found, same, by_m)
    page.table(out / "snr.csv", rows)
    snr_page.figure(rows, REFERENCE, out / "figure")
    return page.say(out, lines)


def main() -> None:
    """The command line of `run`."""
    page.command("vr_iwae_snr", run, PRESETS, __doc__)


if __name__ == "__main__":
    main()
