"""Diffusion on the sphere against PyTorch flow_matching's Riemannian flows.

    diffusion  one update (noising and score, network, loss, gradient, Adam) of denoising score
               matching under Brownian motion
    matching   one update of Riemannian flow matching
    network    the network alone, forward and backward with the mean square of its error: what an
               update costs at least
    flow       the probability flow of the diffusion, 100 steps of 4096 points by Heun's rule
    matched    the flow that was matched, 100 steps by the midpoint rule
    walk       our reverse walk of the diffusion, one evaluation a step

The first three are held against the peer's update (geodesic path with its velocity, network, mean
square, gradient and Adam), flow and matched against its Riemannian solver by the midpoint rule,
two evaluations a step on both sides, and the walk against its Euler steps, which move in the
ambient space and project. One network on both sides, a perceptron of four hidden layers with
swish on (x, t), its output in the tangent plane, at several widths: 512 is that of the peer's
example. A ratio is the peer's time over ours; goal 5.

Run it with `python -m experiments.benchmarks.manifold [--out DIR] [--repeats N] [--smoke]`. It
installs nothing, and says so where the peer is missing.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments.benchmarks import peers, timing
from experiments.benchmarks.timing import Row
from gmjax.losses import flow_matching, scores, times
from gmjax.paths import geodesic
from gmjax.paths.conditional import Path as Geodesic
from gmjax.processes import schedules, sphere
from gmjax.samplers import driver, markov
from gmjax.samplers import flow_matching as steppers
from gmjax.types import Cond, Key, Loss, Predict, Process, Stepper

T_MIN, LEARNING = 1e-2, 1e-3
LAYERS = 4


class Perceptron(nn.Module):
    """(x [B, 3], t [B]) -> [B, 3]: hidden layers of one width with swish."""

    width: int

    @nn.compact
    def __call__(self, x, t):
        h = jnp.concatenate([x, t[:, None]], -1)
        for _ in range(LAYERS):
            h = nn.swish(nn.Dense(self.width)(h))
        return nn.Dense(3)(h)


def process() -> Process:
    return sphere.sphere(schedules.geometric(a=1e-3, b=8e3), (3,))


def path() -> Geodesic:
    return geodesic.path(*geodesic.SPACES["sphere"]((3,), 1.0))


def points(n: int) -> jax.Array:
    x = jax.random.normal(jax.random.key(0), (n, 3)) + jnp.asarray([1.0, 0.0, 0.5])
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def bare(predict: Predict, key: Key, x: jax.Array, cond: Cond) -> tuple[jax.Array, dict]:
    """The mean square of the network's output."""
    return jnp.mean(predict(x, jnp.full(len(x), 0.5), cond) ** 2, -1), {}


LOSSES: dict[str, Callable[[], Loss]] = {
    "diffusion": lambda: scores.denoising(process(), times.uniform_in_t(T_MIN)),
    "matching": lambda: flow_matching.matching(path(), flow_matching.uniform(0.0, 1.0)),
    "network": lambda: bare,
}
# Name -> (stepper, the peer's rule).
STEPPERS: dict[str, tuple[Callable[[], Stepper], str]] = {
    "flow": (lambda: markov.STEPPERS["flow"](process()), "midpoint"),
    "matched": (lambda: steppers.midpoint(path()), "midpoint"),
    "walk": (lambda: markov.STEPPERS["walk"](process()), "euler"),
}


def training(width: int, batch: int, repeats: int) -> Iterator[Row]:
    """Our updates against the peer's."""
    adam = optax.adam(LEARNING)
    peer = peers.sphere_training(width, LAYERS, LEARNING, np.array(points(batch)))
    network = Perceptron(width)
    for name, make in LOSSES.items():
        params, loss = network.init(jax.random.key(1), points(1), jnp.ones(1)), make()

        def update(state, key, x, loss=loss):
            params, memory = state

            def value(params):
                predict = lambda x, t, cond: network.apply(params, x, t)
                return jnp.mean(loss(predict, key, x, None)[0])

            found, grads = jax.value_and_grad(value)(params)
            updates, memory = adam.update(grads, memory)
            return (optax.apply_updates(params, updates), memory), found

        program = timing.compiled(
            update, (params, adam.init(params)), jax.random.key(2), points(batch), donate=True
        )
        yield from rows(name, f"{batch} x 3", f"width {width}", program, peer, repeats)


def sampling(width: int, batch: int, steps: int, repeats: int) -> Iterator[Row]:
    """Our flows and walk against the peer's solvers."""
    grid = jnp.linspace(1.0, T_MIN, steps + 1)
    network = Perceptron(width)
    params = network.init(jax.random.key(1), points(1), jnp.ones(1))
    for name, (make, rule) in STEPPERS.items():
        stepper = make()

        def run(params, key, x, stepper=stepper):
            predict = lambda x, t, cond: network.apply(params, x, t)
            return driver.reverse(stepper, predict, key, x, grid).x

        start = points(batch)
        program = timing.compiled(run, params, jax.random.key(3), start)
        peer = peers.sphere_sampling(width, LAYERS, np.array(start), steps, rule)
        shape = f"{batch} x 3, {steps} steps"
        yield from rows(name, shape, f"width {width}", program, peer, repeats)


def rows(target, shape, what, program, peer: Callable, repeats: int) -> Iterator[Row]:
    """Both timed in turn; the ratio is peer / ours."""
    seconds = timing.interleaved({"peer": peer, "ours": program.run}, repeats)
    ratio, low, high = timing.compare(seconds["peer"], seconds["ours"])
    goal = "" if target == "network" else ">= 5"
    yield Row(
        target, shape, "sphere", what, "flow_matching",
        1e3 * float(np.median(seconds["ours"])), 1e3 * float(np.median(seconds["peer"])),
        ratio, low, high, goal, ("yes" if ratio >= 5 else "no") if goal else "",
        program.compile_s, program.temp_mib, float("nan"),
    )  # fmt: skip


def run(smoke: bool, repeats: int) -> Iterator[Row]:
    """All rows, small networks first."""
    widths, batches, batch, steps = (
        ((8,), (16,), 16, 3) if smoke else ((64, 128, 512), (512, 4096), 4096, 100)
    )
    for width in widths:
        for size in batches:
            yield from training(width, size, repeats)
        yield from sampling(width, batch, steps, max(2, repeats // 3))


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder")
    parser.add_argument("--repeats", type=int, default=9, help="interleaved rounds")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, seconds")
    args = parser.parse_args(argv)
    console, found, path = Console(), list[Row](), args.out / "manifold.csv"
    if not peers.have_flow_matching():
        console.print("flow_matching (or torch) is not installed; there is nothing to compare with")
        return found
    for row in run(args.smoke, args.repeats):
        console.print(f"{row.target} {row.shape} {row.what}: {row.ratio:.3g}")
        found.append(row)
        timing.write(found, path)
    timing.show(found, console)
    console.print(f"{path}: {len(found)} rows")
    return found


if __name__ == "__main__":
    main()
