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

from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import page, verdict
from experiments.enumerated import (
    METHODS,
    Problem,
    lookup_table,
    marginal,
    pairwise,
    propagate,
    states,
)
from experiments.measure import Fit, distances, exponent, floor, p_value
from gmjax.data.glyph import glyph_pmf
from gmjax.processes import chains, ctmc, schedules
from gmjax.samplers import discrete, driver, exact, grids
from gmjax.types import Array, Key, Stepper

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


NOISE = 1e-4  # errors below this may be float32 rounding
LEVEL = 1e-4  # the significance of the chi-square tests


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
    fitted_below: float = 0.01  # the steps tau that the exponent of the law is fitted on
    methods: Sequence[str] = METHODS
    dims_methods: Sequence[str] = ("categorical", "tweedie")


COARSE = (0.2, 0.1, 0.05, 0.02)
FINE = (0.01, 0.007, 0.005, 0.0035, 0.0025, 0.0018)
PRESETS = {
    "default": Preset(COARSE + FINE, (*COARSE, 0.01), 100_000, 50_000, range(1, 9)),
    "paper": Preset(
        (*COARSE, *FINE, 0.0012), (*COARSE, 0.01, 0.004), 1_000_000, 50_000, range(1, 11)
    ),
    "smoke": Preset(
        (0.1, 0.02, 0.014, 0.01, 0.007),
        simulated=(0.1,),
        samples=2000,
        batch=2000,
        dims=range(2, 5),
        fitted_below=0.02,
        methods=("ordinal", "tweedie"),
        dims_methods=("categorical",),
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


def against_dims(laws: dict[str, Callable[[int], np.ndarray]], preset: Preset) -> Iterator[Row]:
    """The errors at t_min of laws in D sites, at one step."""
    for method in preset.dims_methods:
        run = jax.jit(lambda law, steps, m=method: propagate(sites(law), m, steps))
        for dims in preset.dims:
            for name, law in laws.items():
                problem = sites(law(dims))
                p = run(problem.law, _steps(problem, preset.dims_tau))
                error = distances(p, marginal(problem, jnp.asarray(problem.t_min)))
                yield Row("D", name, method, "propagated", preset.dims_tau, dims, 0, *error)


THEOREM = ("ordinal", "categorical")  # the methods that theorem 1 is about


def verdicts(rows: Sequence[Row], fitted_below: float) -> list[str]:
    """One line a claim: the theorem's exponent, ours with its interval, and whether it holds."""
    by_tau = [r for r in rows if r.panel == "tau"]
    by_dims = [r for r in rows if r.panel == "D" and r.dims > 1 and r.tv > NOISE]
    draws, law = (next(r for r in by_tau if r.method == m) for m in ("draws", "exact"))
    lines = [
        f"exact simulation: TV {law.tv:.4f}, Hellinger {law.hellinger:.4f}; as many draws of the"
        f" truth: {draws.tv:.4f}, {draws.hellinger:.4f}; p = {law.p_value:.2f}:"
        f" {verdict.tested(law.p_value)}"
    ]
    for method in dict.fromkeys(r.method for r in by_tau if r.source == "propagated"):
        own = [r for r in by_tau if r.method == method]
        law_rows = [r for r in own if r.source == "propagated"]
        fine = [r for r in law_rows if r.tau <= fitted_below]
        fit = exponent([r.tau for r in fine], [r.tv for r in fine], next_order=True)
        lines.append(
            _verdict(f"TV ~ tau^a, {method}", "a >= 1", fit, {"low": 1 - verdict.EXPONENT}, method)
        )
        clear = [r for r in own if r.source == "simulated" and r.tv > 3 * draws.tv]
        same = [r for r in law_rows if r.tau in {c.tau for c in clear}]
        if len(clear) > 2:
            span = f"{clear[-1].tau:g} .. {clear[0].tau:g}"
            fits = [
                page.interval(exponent([r.tau for r in x], [r.tv for r in x]))
                for x in (clear, same)
            ]
            lines.append(f"    over tau {span}: simulated {fits[0]}, its law {fits[1]}")
    runs = [r for r in by_tau if r.source == "simulated" and r.method != "exact"]
    worst = float(np.min([r.p_value for r in runs])) if runs else float("nan")
    said = verdict.tested(worst, len(runs))
    lines.append(f"samplers draw from their laws, least p of {len(runs)}, {worst:.2g}: {said}")
    for r in runs:
        if not r.p_value > LEVEL:
            lines.append(f"    {r.method} at tau {r.tau:g} is off its law: p = {r.p_value:.1g}")
    for name, method in dict.fromkeys((r.law, r.method) for r in by_dims):
        own = [r for r in by_dims if (r.law, r.method) == (name, method)]
        if len(own) > 2:
            fit = exponent([r.dims for r in own], [r.tv for r in own])
            what = f"TV ~ D^a, {name}, {method}"
            lines.append(_verdict(what, "a <= 2", fit, {"high": 2.0}, method))
    return lines


def _verdict(what: str, claim: str, fit: Fit, within: dict, method: str) -> str:
    if method not in THEOREM:
        return f"{what}: no theorem, measured {page.interval(fit)}"
    return f"{what}: theorem {claim}, measured {page.interval(fit)}: {verdict.judge(fit, **within)}"


# -- the page -----------------------------------------------------------------------------------

METHOD_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
LAW_COLOURS = ("#999933", "#882255", "#332288", "#44aa99")
LABELS = {
    "ordinal": r"$\tau$-leaping, ordinal",
    "categorical": r"$\tau$-leaping, rejecting",
    "euler": "Euler",
    "tweedie": "Tweedie",
}


def figure(rows: Sequence[Row], path: Path) -> None:
    """Hellinger and total variation against tau, total variation against D: PNG and PDF."""
    with page.figure(path, 1, 3, (11, 3.6)) as (_, axes):
        for ax, distance in zip(axes, ("hellinger", "tv"), strict=False):
            _tau_panel(ax, [r for r in rows if r.panel == "tau"], distance)
        _dims_panel(axes[2], [r for r in rows if r.panel == "D" and r.tv > NOISE])


def _tau_panel(ax, rows, distance):
    curves = [r for r in rows if r.source == "propagated"]
    for colour, method in zip(
        METHOD_COLOURS, dict.fromkeys(r.method for r in curves), strict=False
    ):
        line = [(r.tau, getattr(r, distance)) for r in curves if r.method == method]
        dots = [
            (r.tau, getattr(r, distance))
            for r in rows
            if r.method == method and r.source == "simulated"
        ]
        ax.plot(*np.array(line).T, color=colour, label=LABELS[method])
        ax.plot(*np.array(dots).T, "o", color=colour, ms=4)
    runs = max(r.samples for r in rows)
    ax.plot([], [], "o", color="grey", ms=4, label=f"simulated, {runs:,} runs")
    level = {r.method: getattr(r, distance) for r in rows if r.tau == 0}
    ax.axhline(level["exact"], color="black", lw=1, label="exact simulation")
    ax.axhline(level["draws"], color="grey", lw=1, ls=":", label="draws of the truth")
    taus = np.array([min(r.tau for r in curves), max(r.tau for r in curves)])
    lowest = min(getattr(r, distance) for r in curves)
    ax.plot(taus, 0.6 * lowest * taus / taus[0], "--", color="grey", lw=1, label="slope 1")
    name = {"hellinger": "Hellinger distance", "tv": "total variation"}[distance]
    ax.set(xscale="log", yscale="log", xlabel=r"step $\tau$", ylabel=name, ylim=(lowest / 4, 1.1))
    if distance == "hellinger":
        ax.legend(fontsize=7)


def _dims_panel(ax, rows):
    styles = dict(zip(dict.fromkeys(r.method for r in rows), ("o-", "s--"), strict=False))
    colours = dict(zip(dict.fromkeys(r.law for r in rows), LAW_COLOURS, strict=False))
    for law, method in dict.fromkeys((r.law, r.method) for r in rows):
        line = [(r.dims, r.tv) for r in rows if (r.law, r.method) == (law, method)]
        label = law if method == rows[0].method else None
        ax.plot(*np.array(line).T, styles[method], color=colours[law], ms=4, lw=1, label=label)
    for method, style in styles.items():
        ax.plot([], [], style, color="grey", ms=4, lw=1, label=LABELS[method])
    last = max(r.dims for r in rows)
    dims = np.array([last / 2, last])
    above = 1.3 * max(r.tv for r in rows if r.dims <= dims[0])
    for power, name in ((1, " $D$"), (2, " $D^2$")):  # guides that fan out above the curves
        ax.plot(dims, above * (dims / dims[0]) ** power, ":", color="grey", lw=1)
        ax.annotate(name, (last, above * 2.0**power), color="grey", va="center")
    ticks = sorted({r.dims for r in rows})
    ylabel = rf"total variation at $\tau = {rows[0].tau:g}$"
    ax.set(xscale="log", yscale="log", xlabel="sites $D$", ylabel=ylabel)
    ax.set_xticks(ticks, [str(d) for d in ticks])
    ax.minorticks_off()
    ax.legend(fontsize=7)


def run(preset: Preset, out: Path, problem: Problem | None = None) -> list[str]:
    """Measures, then writes errors.csv, figure.png, figure.pdf and verdicts.txt to `out`."""
    rows = list(against_tau(problem or glyph(), preset, jax.random.key(0)))
    rows += against_dims(LAWS, preset)
    page.table(out / "errors.csv", rows)
    figure(rows, out / "figure")
    lines = verdicts(rows, preset.fitted_below)
    return page.say(out, lines)


def main() -> None:
    """The command line of `run`."""
    page.command("tau_leaping_error", run, PRESETS, __doc__)


if __name__ == "__main__":
    main()
