"""How few evaluations a solver needs: a mixture in the plane with its exact score.

The law is known at every noise level, so all of the error is the solver's. Each runs on the grid of
its paper's kind for 5 to 500 evaluations; the sliced 1-Wasserstein distance of its samples to the
law, whose projections have known quantiles, is compared with the floor, the distance of as many
exact draws, and for the deterministic solvers the order is measured as well, against the flow.

The start is the law's own marginal at t = 1, so nothing of the error is the prior's, and the
last evaluation is a denoising step from t_min. EDM's rule, Heun in sigma / alpha, is shown on the
grid it was published with: from the sigma / alpha = 152 at which this path starts, half of its
steps are above 5, three times the size of the data, and it needs more of them than Heun in t.

Run `python -m experiments.solvers`; every function takes the law, the path and the solvers.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from experiments import page, verdict
from experiments.measure import Fit, exponent
from gmjax.paths.gaussian import PATHS, GaussianPath
from gmjax.samplers import driver, gaussian
from gmjax.samplers.gaussian_steps import reader
from gmjax.samplers.grids import path_grid
from gmjax.targets import TARGETS
from gmjax.targets.laws import Target, predict
from gmjax.types import Array, Key


class Solver(NamedTuple):
    """An entry of the comparison."""

    label: str
    name: str  # in `SOLVERS`
    options: dict[str, Any]
    grid: str
    evaluations: int  # a step
    order: int  # the one claimed, of its map; 0: noisy
    colour: str
    line: str = "-"


COMPARED = [
    Solver("Euler-Maruyama", "euler_maruyama", {}, "uniform", 1, 0, "#000000"),
    Solver("ancestral", "ancestral", {}, "log_snr", 1, 0, "#999999"),
    Solver("exponential", "exponential", {}, "exponential_decay", 1, 0, "#882255"),
    Solver("DDIM", "ddim", {}, "log_snr", 1, 1, "#e69f00"),
    Solver("Euler", "euler", {}, "uniform", 1, 1, "#f0e442"),
    Solver("Heun in t", "heun", {}, "quadratic", 2, 2, "#56b4e9"),
    Solver("EDM (Heun)", "edm", {}, "karras", 2, 2, "#0072b2"),
    Solver("EDM, churn", "edm", {"churn": 0.2}, "karras", 2, 0, "#0072b2", ":"),
    Solver("DPM-Solver++(2S)", "dpmpp_2s", {}, "log_snr", 2, 2, "#d55e00", "--"),
    Solver("DPM-Solver++(2M)", "dpmpp_2m", {}, "log_snr", 1, 2, "#d55e00"),
    Solver("DPM-Solver++(3M)", "dpmpp_3m", {}, "log_snr", 1, 3, "#cc79a7"),
    Solver("SDE-DPM-Solver++", "dpmpp_sde", {}, "log_snr", 1, 0, "#d55e00", ":"),
    Solver("UniPC-2", "unipc", {}, "log_snr", 1, 3, "#009e73"),
    Solver("UniPC-3", "unipc", {"order": 3}, "log_snr", 1, 4, "#009e73", "--"),
]


class Row(NamedTuple):
    """One measurement."""

    kind: str  # "distance" or "order"
    solver: str
    nfe: int
    error: float  # sliced W1 of the samples, or the flow's root mean square error
    noise: float  # standard deviation over sets of exact draws, of the floor; else zero
    seconds: float


class Preset(NamedTuple):
    """How much to run."""

    nfes: Sequence[int] = (5, 10, 20, 50, 100, 500)
    samples: int = 16_000
    floors: int = 8  # sets of exact draws
    order_steps: Sequence[int] = (160, 320, 640)
    t_min: float = 1e-3
    solvers: Sequence[Solver] = tuple(COMPARED)


SMOKE = ("euler_maruyama", "edm", "dpmpp_2m")
PRESETS = {
    "default": Preset(),
    "smoke": Preset(
        nfes=(20, 100),
        samples=2000,
        floors=4,
        order_steps=(40, 80, 160),
        solvers=tuple(s for s in COMPARED if s.name in SMOKE and not s.options),
    ),
}


def mixture() -> Target:
    """Five components of different weights and shapes on a ring, and one in the middle."""
    angle = 2 * np.pi * np.arange(5) / 5
    ring = 1.5 * np.stack([np.cos(angle), np.sin(angle)], 1)
    radial = ring / 1.5
    thin = 0.01 * np.eye(2) + 0.06 * radial[:, :, None] * radial[:, None]
    covariances = np.concatenate([thin, [0.02 * np.eye(2)]])
    weights = [0.25, 0.1, 0.2, 0.1, 0.15, 0.2]
    return TARGETS["mixture"](weights, np.concatenate([ring, np.zeros((1, 2))]), covariances)


def start(law: Target, path: GaussianPath, key: Key, n: int) -> Array:
    """n draws of the marginal at t = 1: [n, d]."""
    key_law, key_noise = jax.random.split(key)
    one = jnp.ones(())
    x0 = jax.vmap(law.sample)(jax.random.split(key_law, n))
    return path.alpha(one) * x0 + path.sigma(one) * jax.random.normal(key_noise, x0.shape)


def run(solver: Solver, law: Target, path: GaussianPath, steps: int, t_min: float, finish: bool):
    """(key, x at t = 1) -> (x, nfe), to t_min or by a denoising step to the data."""
    read = reader(path, "x0")
    stepper = gaussian.SOLVERS[solver.name](path, read, **solver.options)
    times = path_grid(solver.grid, steps, path, t_min)
    last = gaussian.denoise(read) if finish else None
    network = predict(law, path, "x0")

    def go(key, x):
        out = driver.reverse(stepper, network, key, x, times, finish=last)
        return out.x, out.nfe

    return go


DIRECTIONS = 64


def directions() -> np.ndarray:
    """Unit vectors [2, D], evenly spread over the half circle."""
    angle = np.pi * (np.arange(DIRECTIONS) + 0.5) / DIRECTIONS
    return np.stack([np.cos(angle), np.sin(angle)])


def quantiles(law: Target, n: int) -> np.ndarray:
    """The n quantiles (i - 1/2) / n of every projection of a mixture of Gaussians: [n, D]."""
    u, parts = directions(), law.parts
    vectors = np.eye(2)[None] if parts.vectors is None else parts.vectors
    means = parts.means @ u  # [J, D]
    stds = np.sqrt(np.einsum("jik,jk,jlk,id,ld->jd", vectors, parts.values, vectors, u, u))
    levels, out = (np.arange(n) + 0.5) / n, []
    for m, s in zip(means.T, stds.T, strict=True):
        grid = np.linspace((m - 7 * s).min(), (m + 7 * s).max(), 20_001)
        upto = scipy.stats.norm.cdf((grid[:, None] - m) / s) @ parts.weights
        out.append(np.interp(levels, upto, grid))
    return np.stack(out, 1)


def sliced(x: Array, truth: Array) -> Array:
    """Sliced 1-Wasserstein distance of x [n, 2] and a law of quantiles [n, D]: []."""
    along = jnp.dot(x, jnp.asarray(directions(), x.dtype), precision="highest")
    return jnp.mean(jnp.abs(jnp.sort(along, 0) - truth))


def steps_for(solver: Solver, nfe: int) -> int:
    """How many steps spend `nfe` evaluations, the denoising one among them."""
    return max(1, (nfe - 1) // solver.evaluations)


def distances(law: Target, path: GaussianPath, preset: Preset, key: Key) -> list[Row]:
    """The sliced distance of every solver at every number of evaluations, and the floor."""
    n, key_floor, key_start, key_run = preset.samples, *jax.random.split(key, 3)
    truth = jnp.asarray(quantiles(law, n), float)
    compare = jax.jit(lambda x: sliced(x, truth))
    draw = jax.jit(lambda k: jax.vmap(law.sample)(jax.random.split(k, n)))
    floor = [float(compare(draw(k))) for k in jax.random.split(key_floor, preset.floors)]
    rows = [Row("distance", "floor", 0, float(np.mean(floor)), float(np.std(floor, ddof=1)), 0.0)]
    begin = jax.jit(lambda k: start(law, path, k, n))(key_start)
    for solver in preset.solvers:
        for nfe in preset.nfes:
            go = run(solver, law, path, steps_for(solver, nfe), preset.t_min, finish=True)
            begun = time.perf_counter()
            x, spent = jax.jit(go)(key_run, begin)
            error = float(compare(x))
            took = time.perf_counter() - begun
            rows.append(Row("distance", solver.label, int(spent), error, 0.0, took))
    return rows


def orders(law: Target, path: GaussianPath, preset: Preset) -> list[Row]:
    """The error of the flow's map of 32 states at t_min, against a much finer run; float64."""
    rows = []
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (32, law.dim))
        best = Solver("reference", "unipc", {"order": 3}, "log_snr", 1, 4, "")
        steps = 8 * max(preset.order_steps)
        truth = jax.jit(run(best, law, path, steps, preset.t_min, False))(jax.random.key(0), x)[0]
        for solver in preset.solvers:
            if not solver.order:
                continue
            solver = solver._replace(grid="log_snr")  # the same, smooth spacing for all
            for steps in preset.order_steps:
                go = run(solver, law, path, steps, preset.t_min, False)
                got, spent = jax.jit(go)(jax.random.key(0), x)
                error = float(jnp.sqrt(jnp.mean((got - truth) ** 2)))
                rows.append(Row("order", solver.label, int(spent), error, 0.0, 0.0))
    return rows


NEAR = 0.005  # a distance that is a third of a per cent of the law's radius is none
FAST = ("DPM-Solver++(2M)", "Heun in t", "EDM (Heun)", "UniPC-2")


def verdicts(rows: Sequence[Row], solvers: Sequence[Solver] = tuple(COMPARED)) -> list[str]:
    """One line a claim: what is claimed, what was measured, and whether it holds."""
    far = [r for r in rows if r.kind == "distance"]
    floor = next(r for r in far if r.solver == "floor")
    slow = max((r for r in far if r.solver == "Euler-Maruyama"), key=lambda r: r.nfe)
    lines = [
        f"floor: sliced W1 {floor.error:.4f} +- {floor.noise:.4f} of as many exact draws;"
        f" Euler-Maruyama at {slow.nfe}: {slow.error:.4f}"
    ]
    for label in FAST:
        own = [r for r in far if r.solver == label and r.nfe <= 20]
        if own:
            best = max(own, key=lambda r: r.nfe)
            half = 1.96 * 2**0.5 * floor.noise
            said = verdict.judge(verdict.about(best.error - slow.error, half), high=NEAR)
            lines.append(
                f"{label} at {best.nfe} evaluations: {best.error:.4f}, claimed no more than"
                f" {NEAR} above Euler-Maruyama at {slow.nfe}: {said}"
            )
    for solver in solvers:
        own = [r for r in rows if r.kind == "order" and r.solver == solver.label]
        if len(own) > 2:
            fit = order([r.nfe for r in own], [r.error for r in own])
            # Orders are one apart, and the finest two runs have least of the next order's error.
            (n, coarse), (m, fine) = [(r.nfe, r.error) for r in own[-2:]]
            finest = float(np.log(coarse / fine) / np.log(m / n))
            errors, counts = (np.log([getattr(r, f) for r in own]) for f in ("error", "nfe"))
            local = -np.diff(errors) / np.diff(counts)
            # What the local order changed by last, it may change by again.
            got = verdict.about(finest, float(abs(local[-1] - local[-2])))
            outcome = verdict.judge(got, solver.order - 0.35, solver.order + 0.35)
            lines.append(
                f"order of {solver.label}: claimed {solver.order}, measured {finest:.2f} at the"
                f" finest two, {fit.slope:.2f} [{fit.low:.2f}, {fit.high:.2f}] over all: {outcome}"
            )
    return lines


def order(nfe: Sequence[int], errors: Sequence[float]) -> Fit:
    """The exponent of the error in one over the evaluations."""
    return exponent([1 / n for n in nfe], errors)


def figure(rows: Sequence[Row], path: Path, solvers: Sequence[Solver]) -> None:
    """Distance against evaluations, error of the flow against evaluations: PNG and PDF."""
    with page.figure(path, 1, 2, (11, 4)) as (fig, axes):
        for ax, kind in zip(axes, ("distance", "order"), strict=True):
            for s in solvers:
                own = [r for r in rows if (r.kind, r.solver) == (kind, s.label)]
                if own:
                    x, y = [r.nfe for r in own], [r.error for r in own]
                    ax.plot(x, y, s.line, marker="o", ms=3, lw=1.2, color=s.colour, label=s.label)
            ax.set(xscale="log", yscale="log", xlabel="network evaluations")
        floor = next(r for r in rows if r.solver == "floor")
        axes[0].axhspan(
            floor.error - floor.noise, floor.error + floor.noise, color="0.85", label="exact draws"
        )
        axes[0].set_ylabel("sliced Wasserstein distance to the law")
        axes[1].set_ylabel("error of the flow's map")
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside right center", fontsize=7)


def table(rows: Sequence[Row], nfes: Sequence[int]) -> list[str]:
    """Sliced distances, a line a solver, a column a number of evaluations."""
    far = [r for r in rows if r.kind == "distance" and r.nfe]
    lines = ["sliced W1 at" + "".join(f"{n:>9}" for n in nfes) + "  evaluations"]
    for label in dict.fromkeys(r.solver for r in far):
        own = [r.error for r in far if r.solver == label]
        lines.append(f"{label:<18}" + "".join(f"{e:9.4f}" for e in own))
    return lines


def experiment(preset: Preset, out: Path, law: Target | None = None, path: str = "vp_linear"):
    """Measures, then writes errors.csv, figure.png, figure.pdf and verdicts.txt to `out`."""
    law, form = law or mixture(), PATHS[path]()
    rows = distances(law, form, preset, jax.random.key(0)) + orders(law, form, preset)
    page.table(out / "errors.csv", rows)
    figure(rows, out / "figure", preset.solvers)
    lines = [*table(rows, preset.nfes), *verdicts(rows, preset.solvers)]
    return page.say(out, lines)


def main() -> None:
    """The command line of `experiment`."""
    page.command("solvers", experiment, PRESETS, __doc__)


if __name__ == "__main__":
    main()
