"""The error of tau-leaping against its step and against the dimension, with exact ratios.

Theorem 1 of Campbell et al. (2022) bounds the total variation between the law that a leaping
sampler makes and the law of the data by three terms: the error M of the rates, the leap, linear
in tau and at most quadratic in the number of sites D, and what the noising has not mixed. Here
the data law p is a table on S^D states, so the rates are exact (M = 0); the reverse run starts
at q_1 itself, which removes the third term, and is compared with q_{t_min} itself. What is left
is the leap.

The curves are the law of a leaping run propagated without samples (`experiments.enumerated`);
the points are the library's samplers, which must fall on it until they meet the floor, the error
that as many independent draws of q_{t_min} have, where exact simulation lies at every tau.

Run `python -m experiments.tau_leaping_error`; every function takes the law, the chain, the
clock and the steps as arguments.
"""

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from experiments.enumerated import (
    METHODS,
    Problem,
    lookup_table,
    marginal,
    pairwise,
    propagate,
    states,
)
from gmjax.data.glyph import glyph_pmf
from gmjax.processes import chains, ctmc, schedules
from gmjax.samplers import discrete, driver, exact, grids
from gmjax.types import Array, Key, Stepper


class Fit(NamedTuple):
    """An exponent and its 95 % interval."""

    slope: float
    low: float
    high: float


# -- the samplers -------------------------------------------------------------------------------


def stepper(problem: Problem, method: str) -> Stepper:
    """The library's stepper of a method."""
    read = ctmc.leave_one_out(problem.noise)
    if method == "tweedie":
        return discrete.tweedie(problem.noise, read)
    return discrete.leaping(problem.noise, read, discrete.JUMPS[method])


def start(problem: Problem, key: Key, n: int) -> Array:
    """n draws of q_1: [n, D]."""
    upto = jnp.cumsum(marginal(problem, jnp.ones(())))
    index = jnp.searchsorted(upto, jax.random.uniform(key, (n,)) * upto[-1], side="right")
    return states(problem)[index]


def counts(problem: Problem, x: Array) -> Array:
    """How often each state occurs in x [n, D]: [N]."""
    index = jnp.ravel_multi_index(tuple(x.T), problem.law.shape, mode="clip")
    return jnp.bincount(index, length=problem.law.size)


def simulate(problem: Problem, method: str, times: Array, key: Key, n: int) -> Array:
    """The counts of n leaping runs: [N]."""
    key_start, key_run = jax.random.split(key)
    x = start(problem, key_start, n)
    out = driver.reverse(stepper(problem, method), lookup_table(problem), key_run, x, times)
    return counts(problem, out.x)


def simulate_exactly(problem: Problem, windows: Array, key: Key, n: int) -> Array:
    """The counts of n exact runs of a law in two sites: [N]."""
    key_start, key_run = jax.random.split(key)
    read, x = ctmc.leave_one_out(problem.noise), start(problem, key_start, n)
    run = exact.exact(problem.noise, read, pairwise(problem), key_run, x, windows)
    return counts(problem, run.x)


def in_batches(run: Callable[..., Array], key: Key, n: int, size: int) -> np.ndarray:
    """The counts of n runs, `size` at a time."""
    jitted = jax.jit(run, static_argnames="n")
    keys = jax.random.split(key, max(1, n // size))
    return np.sum([np.asarray(jitted(k, n=min(n, size))) for k in keys], 0)


# -- errors and exponents -----------------------------------------------------------------------


def distances(p: Array | np.ndarray, q: Array | np.ndarray) -> tuple[float, float]:
    """Total variation and Hellinger distance of two laws (or counts): both in [0, 1]."""
    p, q = (a / a.sum() for a in (np.asarray(p, np.float64), np.asarray(q, np.float64)))
    hellinger = np.sqrt(max(0.0, 1 - np.sum(np.sqrt(p * q))))
    return float(np.abs(p - q).sum() / 2), float(hellinger)


def floor(q: Array, n: int, repeats: int = 20) -> tuple[float, float]:
    """The mean distances of n independent draws of q from q."""
    rng = np.random.default_rng(0)
    p = np.asarray(q, np.float64)
    p = p / p.sum()
    tv, hellinger = np.mean([distances(rng.multinomial(n, p), p) for _ in range(repeats)], 0)
    return float(tv), float(hellinger)


def p_value(count: np.ndarray, law: Array | np.ndarray, least: float = 20.0) -> float:
    """The chi-square test that counts are draws of a law, states pooled to `least` a bin."""
    law = np.asarray(law, np.float64)
    expected = law / law.sum() * count.sum()
    order = np.argsort(-expected)
    full = np.cumsum(expected[order]) // least
    bins = np.unique(np.minimum(full, full[-1] - 1), return_inverse=True)[1]
    pooled = (np.bincount(bins, weights=a[order]) for a in (count, expected))
    return float(scipy.stats.chisquare(*pooled).pvalue)


def exponent(x: Sequence[float], error: Sequence[float], next_order: bool = False) -> Fit:
    """Least squares of log error on log x, with the t interval of the slope.

    Args:
        next_order: add a term linear in x, which the error x^slope (1 + c x) has, so that the
            slope is the one at x -> 0; takes four points or more.
    """
    y = np.log(error)
    basis = np.stack([np.log(x), np.ones(len(x)), *([x] if next_order else [])], 1)
    coefficients = np.linalg.lstsq(basis, y)[0]
    free = len(x) - basis.shape[1]
    variance = np.sum((y - basis @ coefficients) ** 2) / free
    deviation = np.sqrt(variance * np.linalg.inv(basis.T @ basis)[0, 0])
    half = float(scipy.stats.t.ppf(0.975, free) * deviation)
    slope = float(coefficients[0])
    return Fit(slope, slope - half, slope + half)


# -- the two problems ---------------------------------------------------------------------------


def glyph() -> Problem:
    """The 2-D toy: a letter on 32 x 32, the discretised Gaussian chain."""
    chain = chains.gaussian(32, sigma0=8.0, sigma_rate=1.0)
    return Problem(ctmc.CTMC(chain, schedules.geometric(5.0, 5.0)), glyph_pmf())


def product(dims: int) -> np.ndarray:
    """Independent, equal sites."""
    return reduce(np.multiply.outer, [np.array([0.7, 0.2, 0.1])] * dims)


def mixture(dims: int) -> np.ndarray:
    """Two product laws, one leaning to each end, with equal weights."""
    ends = np.array([0.8, 0.15, 0.05]), np.array([0.05, 0.15, 0.8])
    return np.mean([reduce(np.multiply.outer, [p] * dims) for p in ends], 0)


def markov(dims: int) -> np.ndarray:
    """A stationary Markov chain along the sites that stays with probability 0.8."""
    law, step = np.full(3, 1 / 3), 0.7 * np.eye(3) + 0.1
    for _ in range(dims - 1):
        law = law[..., None] * step
    return law


def checksum(dims: int) -> np.ndarray:
    """Uniform on the states whose sum is a multiple of three: every site depends on all."""
    valid = np.indices((3,) * dims).sum(0) % 3 == 0
    return valid / valid.sum()


LAWS: dict[str, Callable[[int], np.ndarray]] = {
    "product": product,
    "mixture": mixture,
    "markov": markov,
    "checksum": checksum,
}


def sites(law: np.ndarray) -> Problem:
    """A law on {0, 1, 2}^D under the uniform chain with the clock 5 t."""
    return Problem(ctmc.CTMC(chains.uniform(3), schedules.constant(5.0)), law)


# -- the tables ---------------------------------------------------------------------------------


class Row(NamedTuple):
    """One measured error."""

    panel: str  # "tau" or "D"
    law: str
    method: str
    source: str  # propagated, simulated, or iid (the floor)
    tau: float  # zero where there is no step
    dims: int
    samples: int  # zero: no sampling
    tv: float
    hellinger: float
    p_value: float = float("nan")  # of the counts being draws of the propagated law


class Preset(NamedTuple):
    """How much to run."""

    taus: Sequence[float]  # of the propagated law
    simulated: Sequence[float]  # of the samplers
    samples: int
    batch: int
    dims: Sequence[int]
    dims_tau: float = 0.005
    methods: Sequence[str] = METHODS


FINE = (0.02, 0.014, 0.01, 0.007, 0.005, 0.003, 0.002)
PRESETS = {
    "default": Preset(
        (0.2, 0.1, 0.05, *FINE), (0.2, 0.1, 0.05, 0.02, 0.01), 100_000, 50_000, range(1, 9)
    ),
    "paper": Preset(
        (0.2, 0.1, 0.05, *FINE, 0.001),
        (0.2, 0.1, 0.05, 0.02, 0.01, 0.004),
        1_000_000,
        50_000,
        range(1, 11),
    ),
    "smoke": Preset(
        (0.1, *FINE[:4]), (0.1,), 2000, 2000, range(2, 5), methods=("ordinal", "tweedie")
    ),
}


def against_tau(problem: Problem, preset: Preset, key: Key, name: str = "glyph") -> Iterator[Row]:
    """The errors at t_min of every method at every step, of exact simulation and of draws."""
    q, dims = marginal(problem, jnp.asarray(problem.t_min)), problem.law.ndim
    row = partial(Row, "tau", name, dims=dims)
    tv, hellinger = floor(q, preset.samples)
    yield row("draws", "iid", 0.0, samples=preset.samples, tv=tv, hellinger=hellinger)
    windows = grids.clock(64, problem.t_min, problem.noise.schedule)
    run = partial(simulate_exactly, problem, windows)
    count = in_batches(run, key, preset.samples, preset.batch)
    yield _counted(row, "exact", 0.0, count, q, q)
    for method in preset.methods:
        law = jax.jit(partial(propagate, problem, method))
        for tau in preset.taus:
            tv, hellinger = distances(law(_steps(problem, tau)), q)
            yield row(method, "propagated", tau, samples=0, tv=tv, hellinger=hellinger)
        for i, tau in enumerate(preset.simulated):
            steps = _steps(problem, tau)
            run = partial(simulate, problem, method, grids.uniform(steps, problem.t_min))
            count = in_batches(run, jax.random.fold_in(key, i), preset.samples, preset.batch)
            yield _counted(row, method, tau, count, law(steps), q)


def _steps(problem: Problem, tau: float) -> int:
    return round((1 - problem.t_min) / tau)


def _counted(row, method, tau, count, law, q):
    tv, hellinger = distances(count, q)
    n, p = int(count.sum()), p_value(count, law)
    return row(method, "simulated", tau, samples=n, tv=tv, hellinger=hellinger, p_value=p)


def against_dims(
    laws: dict[str, Callable[[int], np.ndarray]],
    preset: Preset,
    methods: Sequence[str] = ("categorical", "tweedie"),
) -> Iterator[Row]:
    """The errors at t_min of laws in D sites, at one step."""
    for method in methods:
        run = jax.jit(lambda law, steps, m=method: propagate(sites(law), m, steps))
        for dims in preset.dims:
            for name, law in laws.items():
                problem = sites(law(dims))
                p = run(problem.law, _steps(problem, preset.dims_tau))
                error = distances(p, marginal(problem, jnp.asarray(problem.t_min)))
                yield Row("D", name, method, "propagated", preset.dims_tau, dims, 0, *error)


def verdicts(rows: Sequence[Row], fitted_below: float = 0.021) -> list[str]:
    """One line a claim: the theorem's exponent, ours with its interval, and whether it holds."""
    lines = []
    tau_rows = [r for r in rows if r.panel == "tau"]
    draws = next(r for r in tau_rows if r.source == "iid")
    for method in dict.fromkeys(r.method for r in tau_rows if r.source == "propagated"):
        own = [r for r in tau_rows if r.method == method]
        fine = [r for r in own if r.source == "propagated" and r.tau < fitted_below]
        fit = exponent([r.tau for r in fine], [r.tv for r in fine], next_order=True)
        lines.append(_verdict(f"error ~ tau^a, {method}", "a >= 1", fit, fit.high >= 1))
        clear = [r for r in own if r.source == "simulated" and r.tv > 3 * draws.tv]
        if len(clear) > 2:
            fit = exponent([r.tau for r in clear], [r.tv for r in clear])
            span = f"{clear[-1].tau:g} .. {clear[0].tau:g}"
            lines.append(f"    simulated, over tau {span}: {_interval(fit)}, not yet asymptotic")
    for r in tau_rows:
        if r.source == "simulated" and not r.p_value > 1e-4:
            lines.append(f"    {r.method} at tau {r.tau:g} is off its law: p = {r.p_value:.1g}")
    law = next(r for r in tau_rows if r.method == "exact")
    holds = "holds" if law.p_value > 1e-4 else "DOES NOT HOLD"
    lines.append(
        f"exact simulation is exact: TV {law.tv:.4f}, Hellinger {law.hellinger:.4f}; as many"
        f" draws of the truth {draws.tv:.4f}, {draws.hellinger:.4f}; p = {law.p_value:.2f}: {holds}"
    )
    dims_rows = [r for r in rows if r.panel == "D" and r.dims > 1 and r.tv > 1e-4]
    for law_name, method in dict.fromkeys((r.law, r.method) for r in dims_rows):
        own = [r for r in dims_rows if (r.law, r.method) == (law_name, method)]
        if len(own) > 2:
            fit = exponent([r.dims for r in own], [r.tv for r in own])
            what = f"error ~ D^a, {law_name}, {method}"
            lines.append(_verdict(what, "a <= 2", fit, fit.low <= 2))
    return lines


def _interval(fit: Fit) -> str:
    return f"a = {fit.slope:.3f} [{fit.low:.3f}, {fit.high:.3f}]"


def _verdict(what: str, claim: str, fit: Fit, holds: bool) -> str:
    outcome = "holds" if holds else "DOES NOT HOLD"
    return f"{what}: theorem {claim}, measured {_interval(fit)}: {outcome}"


# -- the page -----------------------------------------------------------------------------------

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def figure(rows: Sequence[Row], path: Path) -> None:
    """Hellinger and total variation against tau, total variation against D: PNG and PDF."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style: dict = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context({**style, "legend.frameon": False, "pdf.fonttype": 42}):
        fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
        for ax, distance in zip(axes, ("hellinger", "tv"), strict=False):
            _tau_panel(ax, [r for r in rows if r.panel == "tau"], distance)
        _dims_panel(axes[2], [r for r in rows if r.panel == "D" and r.tv > 1e-4])
        for suffix in (".png", ".pdf"):
            fig.savefig(path.with_suffix(suffix), dpi=200)
        plt.close(fig)


def _tau_panel(ax, rows, distance):
    curves = [r for r in rows if r.source == "propagated"]
    for colour, method in zip(COLOURS, dict.fromkeys(r.method for r in curves), strict=False):
        line = [(r.tau, getattr(r, distance)) for r in curves if r.method == method]
        dots = [
            (r.tau, getattr(r, distance))
            for r in rows
            if r.method == method and r.source == "simulated"
        ]
        ax.plot(*np.array(line).T, color=colour, label=method)
        ax.plot(*np.array(dots).T, "o", color=colour, markersize=4)
    level = {r.method: getattr(r, distance) for r in rows if r.tau == 0}
    ax.axhline(level["exact"], color="black", lw=1, label="exact simulation")
    ax.axhline(level["draws"], color="grey", lw=1, ls=":", label="draws of the truth")
    taus = np.array([min(r.tau for r in curves), max(r.tau for r in curves)])
    lowest = min(getattr(r, distance) for r in curves)
    ax.plot(taus, 0.6 * lowest * taus / taus[0], "--", color="grey", lw=1, label="slope 1")
    name = {"hellinger": "Hellinger distance", "tv": "total variation"}[distance]
    ax.set(xscale="log", yscale="log", xlabel=r"step $\tau$", ylabel=name, ylim=(None, 1))
    if distance == "hellinger":
        ax.legend(fontsize=7)


def _dims_panel(ax, rows):
    styles = dict(zip(dict.fromkeys(r.method for r in rows), ("o-", "s--"), strict=False))
    colours = dict(zip(dict.fromkeys(r.law for r in rows), COLOURS, strict=False))
    for law, method in dict.fromkeys((r.law, r.method) for r in rows):
        line = [(r.dims, r.tv) for r in rows if (r.law, r.method) == (law, method)]
        label = law if method == rows[0].method else None
        ax.plot(*np.array(line).T, styles[method], color=colours[law], ms=4, lw=1, label=label)
    dims = np.array([2, max(r.dims for r in rows)])
    low = min(r.tv for r in rows if r.dims >= 2)
    for power in (1, 2):
        ax.plot(dims, low * (dims / 2) ** power, ":", color="grey", lw=1)
        ax.annotate(f"$D^{power}$", (dims[1], low * (dims[1] / 2.0) ** power), color="grey")
    for method, line_style in styles.items():
        ax.plot([], [], line_style, color="grey", ms=4, lw=1, label=method)
    ticks = sorted({r.dims for r in rows})
    title = rf"$\tau = {rows[0].tau:g}$"
    ax.set(xscale="log", yscale="log", xlabel="sites $D$", ylabel="total variation", title=title)
    ax.set_xticks(ticks, [str(d) for d in ticks])
    ax.minorticks_off()
    ax.legend(fontsize=7)


def run(preset: Preset, out: Path, problem: Problem | None = None) -> list[str]:
    """Measures, then writes errors.csv, figure.png, figure.pdf and verdicts.txt to `out`."""
    rows = list(against_tau(problem or glyph(), preset, jax.random.key(0)))
    rows += against_dims(LAWS, preset)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "errors.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)
    figure(rows, out / "figure")
    lines = verdicts(rows)
    (out / "verdicts.txt").write_text("\n".join(lines) + "\n")
    return lines


def main() -> None:
    """The command line of `run`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="default")
    parser.add_argument("--out", type=Path, default=Path("runs/tau_leaping_error"))
    given = parser.parse_args()
    print(*run(PRESETS[given.preset], given.out), f"written to {given.out}", sep="\n")


if __name__ == "__main__":
    main()
