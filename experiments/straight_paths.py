"""How straight are the paths of a flow, by the coupling it was trained with?

    python -m experiments.straight_paths [--steps 2000] [--width 64]

Trains the same small flow from noise to eight Gaussians with independent, exact and Sinkhorn pairs
of groups of 64, and prints, with standard errors over 4 096 samples,

    cost       E |x1 - x0|^2 of the pairs that training saw
    variance   E |target - v|^2, the loss that is left, of which the least is the variance of the
               pairs' direction given x_t
    bend       int E |v(x_t, t) - (x_1 - x_0)|^2 dt / E |x_1 - x_0|^2 along the flow's own
               trajectories: 0 for straight lines of constant speed
    sliced     Wasserstein distance to held-out data after 1, 2, 4 and 64 Euler steps
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import flow_matching as jobs
from gmjax import data, methods
from gmjax.data import batches
from gmjax.methods import flow_matching, flow_worlds
from gmjax.metrics.two_sample import sliced_wasserstein
from gmjax.paths import couplings
from gmjax.samplers import driver
from gmjax.samplers import flow_matching as steppers

NAMES = ("independent", "exact", "sinkhorn")
FINE, COUNT = 64, 4096


def train(name: str, steps: int, width: int) -> tuple[Any, Any, Any]:
    """(config, data set, state) of a flow trained with a coupling."""
    config = jobs.get_config("gaussians").unlock()
    config.coupling.update(name=name, group=64)
    config.network.update(width=width, blocks=2, frequencies=32)
    config.train.update(steps=steps, batch_size=256)
    dataset = data.load(config.data)
    method = methods.build(config, dataset.spec)
    state = jax.jit(method.init)(jax.random.key(0))
    update = jax.jit(method.update, donate_argnums=0)
    for i in range(steps):
        batch = {"x": batches.batch(dataset.train, 256, 0, i)["x"]}
        state, _ = update(state, jax.random.fold_in(jax.random.key(1), i), batch)
    return config, dataset, state


def measure(config: Any, dataset: Any, state: Any) -> dict[str, float]:
    """The figures of the module docstring."""
    world = flow_worlds.build(config, dataset.spec)
    _, predictor = flow_matching.build_network(config, dataset.spec, world)
    predict, path = predictor(state.ema), world.path
    couple = couplings.build(config.coupling, path.space)
    x0 = jnp.asarray(dataset.test.take(np.arange(COUNT))["x"])
    x1 = jax.random.normal(jax.random.key(2), x0.shape)

    @jax.jit
    def pairs(x0, x1):
        ends = x1[couple(jax.random.key(3), x0, x1)]
        t = (jnp.arange(COUNT) + 0.5)[jax.random.permutation(jax.random.key(4), COUNT)] / COUNT
        x, target = jax.vmap(path.draw, (None, 0, 0, 0))(jax.random.key(5), x0, ends, t)
        left = jnp.sum((target - predict(x, t, None)) ** 2, -1)
        return jnp.sum((ends - x0) ** 2, -1), left

    @jax.jit
    def run(x1):
        times = jnp.linspace(1.0, 0.0, FINE + 1)
        return driver.reverse(
            steppers.midpoint(path), predict, jax.random.key(6), x1, times, trajectory=COUNT
        ).trajectory

    cost, left = pairs(x0, x1)
    way = np.asarray(run(x1), np.float64)
    whole = way[0] - way[-1]
    speed = -np.diff(way, axis=0) * FINE
    bend = np.mean(np.sum((speed - whole) ** 2, -1), 0) / np.mean(np.sum(whole**2, -1))
    found = {"cost": cost, "variance": left, "bend": bend}
    figures = {}
    for key, values in found.items():
        figures[key] = float(np.mean(values))
        figures[f"{key}_error"] = float(np.std(values) / COUNT**0.5)
    for n in (1, 2, 4, FINE):
        times = jnp.linspace(1.0, 0.0, n + 1)
        end = driver.reverse(steppers.euler(path), predict, jax.random.key(6), x1, times).x
        held = dataset.test.take(np.arange(COUNT))["x"]
        figures[f"sliced_{n}"] = sliced_wasserstein(np.asarray(end), held)
    return figures


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--width", type=int, default=64)
    given = parser.parse_args()
    print("| coupling | cost | variance | bend | 1 step | 2 | 4 | 64 |\n" + "|---" * 8 + "|")
    for name in NAMES:
        f = measure(*train(name, given.steps, given.width))
        parts = [f"{f[k]:.3f} ±{f[k + '_error']:.3f}" for k in ("cost", "variance", "bend")]
        parts += [f"{f[f'sliced_{n}']:.3f}" for n in (1, 2, 4, FINE)]
        print(f"| {name} | {' | '.join(parts)} |", flush=True)


if __name__ == "__main__":
    main()
