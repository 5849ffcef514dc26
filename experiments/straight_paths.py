"""How straight are the paths of a flow, by the coupling it was trained with?

Trains the same small flow from noise to eight Gaussians with independent, exact and Sinkhorn pairs
of groups of 64, and measures over 4 096 samples

    cost       E |x1 - x0|^2 of the pairs that training saw
    variance   E |target - v|^2, the loss that is left, of which the least is the variance of the
               pairs' direction given x_t
    bend       int E |v(x_t, t) - (x_1 - x_0)|^2 dt / E |x_1 - x_0|^2 along the flow's own
               trajectories: 0 for straight lines of constant speed
    sliced_n   Wasserstein distance to held-out data after n Euler steps

(Tong et al. 2024, Improving and generalizing flow-based generative models; Pooladian et al. 2023,
Multisample flow matching). The claim is that transport lowers the first three. Its ratios to
independent pairs, paired by seed, are judged by the 95 % t interval of their logarithms.

Run `python -m experiments.straight_paths [--preset default|paper|smoke] [--out DIR]`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from configs import flow_matching as jobs
from experiments import page, verdict
from experiments.measure import Fit
from gmjax import data, methods
from gmjax.data import batches
from gmjax.methods import flow_matching, flow_worlds
from gmjax.metrics.two_sample import sliced_wasserstein
from gmjax.paths import couplings
from gmjax.samplers import driver
from gmjax.samplers import flow_matching as steppers
from gmjax.types import Dataset, PyTree

NAMES = ("independent", "exact", "sinkhorn")
COLOURS = ("#d55e00", "#0072b2", "#009e73")
FINE, COUNT, SHOWN = 64, 4096, 80
FEW = (1, 2, 4, FINE)


class Preset(NamedTuple):
    """How much to train."""

    steps: int
    width: int
    seeds: int


class Row(NamedTuple):
    """A figure of one training; `error` over samples, nan where there is none."""

    coupling: str
    seed: int
    figure: str
    value: float
    error: float


class Job(NamedTuple):
    """A coupling's configuration, data and method."""

    config: Any
    dataset: Dataset
    method: methods.Method


def build(name: str, preset: Preset) -> Job:
    """The flow to train with a coupling."""
    config = jobs.get_config("gaussians").unlock()
    config.coupling.update(name=name, group=64)
    config.network.update(width=preset.width, blocks=2, frequencies=32)
    config.train.update(steps=preset.steps, batch_size=256)
    dataset = data.load(config.data)
    return Job(config, dataset, methods.build(config, dataset.spec))


def training(job: Job) -> Callable[[int], PyTree]:
    """seed -> parameters, averaged, of a trained flow."""
    init, update = jax.jit(job.method.init), jax.jit(job.method.update, donate_argnums=0)
    steps, size = job.config.train.steps, job.config.train.batch_size

    def train(seed: int) -> PyTree:
        key = jax.random.fold_in(jax.random.key(1), seed)
        state = init(jax.random.fold_in(key, steps))
        for i in range(steps):
            batch = {"x": batches.batch(job.dataset.train, size, seed, i)["x"]}
            state, _ = update(state, jax.random.fold_in(key, i), batch)
        return state.ema

    return train


def measuring(job: Job) -> Callable[[PyTree, int], tuple[dict[str, tuple], np.ndarray]]:
    """(parameters, seed) -> (name -> (value, error), trajectories [FINE + 1, COUNT, 2]).

    Trajectories run from noise to data.
    """
    world = flow_worlds.build(job.config, job.dataset.spec)
    _, predictor = flow_matching.build_network(job.config, job.dataset.spec, world)
    path = world.path
    couple = couplings.build(job.config.coupling, path.space)
    x0 = job.dataset.test.take(np.arange(COUNT))["x"]

    @jax.jit
    def pairs(params, keys, x0, x1):
        ends = x1[couple(keys[0], x0, x1)]
        t = (jnp.arange(COUNT) + 0.5)[jax.random.permutation(keys[1], COUNT)] / COUNT
        x, target = jax.vmap(path.draw, (None, 0, 0, 0))(keys[2], x0, ends, t)
        left = jnp.sum((target - predictor(params)(x, t, None)) ** 2, -1)
        return jnp.sum((ends - x0) ** 2, -1), left

    @partial(jax.jit, static_argnums=(2, 3, 4))
    def solve(params, x1, stepper, steps, trajectory):
        times = jnp.linspace(1.0, 0.0, steps + 1)
        key = jax.random.key(0)  # no step draws
        return driver.reverse(stepper, predictor(params), key, x1, times, trajectory=trajectory)

    euler, midpoint = steppers.euler(path), steppers.midpoint(path)

    def measure(params: PyTree, seed: int) -> tuple[dict[str, tuple], np.ndarray]:
        key, *keys = jax.random.split(jax.random.fold_in(jax.random.key(2), seed), 4)
        x1 = jax.random.normal(key, x0.shape)
        cost, left = pairs(params, jnp.stack(keys), x0, x1)
        way = np.asarray(solve(params, x1, midpoint, FINE, COUNT).trajectory)
        whole = np.float64(way[0] - way[-1])
        speed = -np.diff(way, axis=0) * FINE
        bend = np.mean(np.sum((speed - whole) ** 2, -1), 0) / np.mean(np.sum(whole**2, -1))
        found = {
            name: (float(np.mean(v)), float(np.std(v) / COUNT**0.5))
            for name, v in {"cost": cost, "variance": left, "bend": bend}.items()
        }
        for steps in FEW:
            end = np.asarray(solve(params, x1, euler, steps, 0).x)
            found[f"sliced_{steps}"] = sliced_wasserstein(end, x0), float("nan")
        return found, way

    return measure


def values(rows: list[Row], coupling: str, kind: str) -> np.ndarray:
    """A figure of a coupling, one a seed."""
    return np.array([r.value for r in rows if (r.coupling, r.figure) == (coupling, kind)])


def verdicts(rows: list[Row]) -> list[str]:
    """A table, then one line a coupling and figure; the claim is a ratio below one."""
    kinds = list(dict.fromkeys(r.figure for r in rows))
    lines = ["mean over seeds     " + "".join(f"{kind:>10}" for kind in kinds)]
    for name in NAMES:
        means = [values(rows, name, kind).mean() for kind in kinds]
        lines.append(f"{name:<20}" + "".join(f"{m:10.3f}" for m in means))
    for name in NAMES[1:]:
        for kind in ("cost", "variance", "bend"):
            log = np.log(values(rows, name, kind) / values(rows, NAMES[0], kind))
            half = scipy.stats.t.ppf(0.975, len(log) - 1) * scipy.stats.sem(log)
            low, mid, high = np.exp(log.mean() + half * np.array([-1, 0, 1]))
            lines.append(
                f"{kind}, {name} / independent: claim < 1, measured"
                f" {mid:.3f} [{low:.3f}, {high:.3f}]: {verdict.judge(Fit(mid, low, high), high=1)}"
            )
    return lines


def figure(rows: list[Row], ways: dict[str, np.ndarray], path: Path) -> None:
    """Trajectories of every coupling, and the distance by Euler steps: PNG and PDF."""
    with page.figure(path, 1, 4, (13, 3.5)) as (_, axes):
        for ax, name, colour in zip(axes, NAMES, COLOURS, strict=False):
            way = ways[name][:, :SHOWN]
            ax.plot(*way.transpose(2, 0, 1), color=colour, lw=0.5, alpha=0.6)
            ax.plot(*way[0].T, ".", color="0.6", ms=2, label="noise")
            ax.plot(*way[-1].T, ".", color="k", ms=2, label="sample")
            bend = values(rows, name, "bend").mean()
            ax.set(aspect="equal", title=f"{name}: bend {bend:.3f}")
            mean = [values(rows, name, f"sliced_{n}").mean() for n in FEW]
            axes[3].plot(FEW, mean, "o-", color=colour, ms=3, lw=1.2, label=name)
        axes[0].legend(loc="upper left")
        axes[3].set(xscale="log", yscale="log", xlabel="Euler steps", title="distance to the data")
        axes[3].set_xticks(FEW, [str(n) for n in FEW], minor=False)
        axes[3].set_xticks([], minor=True)
        axes[3].set_ylabel("sliced Wasserstein distance")
        axes[3].legend()
        page.letter(axes)


def run(preset: Preset, out: Path) -> list[str]:
    """Trains, measures and writes figures.csv, figure.png, figure.pdf and verdicts.txt."""
    rows: list[Row] = []
    ways = {}
    for name in NAMES:
        job = build(name, preset)
        train, measure = training(job), measuring(job)
        for seed in range(preset.seeds):
            found, ways[name] = measure(train(seed), seed)
            rows += [Row(name, seed, key, *value) for key, value in found.items()]
    page.table(out / "figures.csv", rows)
    figure(rows, ways, out / "figure")
    return page.say(out, verdicts(rows))


PRESETS = {
    "default": Preset(steps=2000, width=64, seeds=3),
    "paper": Preset(steps=20_000, width=256, seeds=5),
    "smoke": Preset(steps=40, width=16, seeds=2),
}


def main() -> None:
    """The command line of `run`."""
    page.command("straight_paths", run, PRESETS, __doc__)


if __name__ == "__main__":
    main()
