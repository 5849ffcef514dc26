"""Flow matching on vectors and images against PyTorch.

    training     one update: noising, network, loss, gradient, Adam
    sampling     50 Euler steps of the probability flow
    outside      share of our update, and of our sampling, spent outside the network: one minus
                 the time of the bare network (forward and backward with the mean square of its
                 error; as many calls) over that of the whole
    utilisation  on a known GPU: operations of the network (three forward passes an update) over
                 time and over the peak of dense bfloat16

Three networks, the same function on both sides with the same weights: `mlp`, the perceptron of
flow_matching's 2-D example at several widths (512 is the example's), `unet` for 8x8 digits, and a
small `dit`. The peers are plain PyTorch, eager and by `torch.compile`, and for `mlp` the example
itself, with its path and its solver. Programs are compiled before the clock starts, and run in
turn. A ratio of training and sampling is the peer's time over ours.

Run it with `python -m experiments.benchmarks.euclidean [--out DIR] [--repeats N] [--smoke]
[--only CASE ...]`. It installs nothing, and leaves out the peers that are missing.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments.benchmarks import peers, timing
from experiments.benchmarks.timing import Program, Row
from gmjax import networks
from gmjax.losses import gaussian as losses
from gmjax.losses import times
from gmjax.networks import continuous, embeddings
from gmjax.paths import gaussian as paths
from gmjax.samplers import driver
from gmjax.samplers import gaussian as samplers
from gmjax.types import DataSpec

RATE, T_MIN = 1e-3, 1e-3
LAYERS = 4
# Dense bfloat16 operations a second, from the makers' data sheets: name -> peak.
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12}


class Perceptron(nn.Module):
    """(x [B, 2], t [B]) -> [B, 2]: hidden layers of one width with swish."""

    width: int

    @nn.compact
    def __call__(self, x, t, cond=None):
        h = jnp.concatenate([x, t[:, None]], -1)
        for _ in range(LAYERS):
            h = nn.swish(nn.Dense(self.width)(h))
        return nn.Dense(x.shape[-1])(h)


class Case(NamedTuple):
    """A network, the shape of its data, and how it is run."""

    name: str
    what: str
    network: nn.Module
    twin: Callable[[Any], Any]  # parameters -> the same network in PyTorch
    batch: int
    shape: tuple[int, ...]
    steps: int
    half: bool = False  # bfloat16
    example: bool = False  # against flow_matching's 2-D example too


def perceptron(width: int, batch: int, steps: int = 50) -> Case:
    """The 2-D case."""

    def twin(params):
        from experiments.benchmarks import torch_networks

        return torch_networks.Perceptron(params)

    return Case(
        "mlp", f"width {width}", Perceptron(width), twin, batch, (2,), steps, example=True
    )  # fmt: skip


def unet(channels: Sequence[int], side: int, batch: int, steps: int = 50) -> Case:
    """The U-Net of grey images, attention at its lowest level."""
    levels = len(channels)
    config = {"name": "unet", "channels": tuple(channels), "attention": (levels - 1,)}
    shape = (side, side, 1)

    def twin(params):
        from experiments.benchmarks import torch_networks

        return torch_networks.UNet(params, levels, 1)

    network = continuous.build(config, DataSpec(shape, 0, "image"))
    return Case("unet", f"channels {channels}", network, twin, batch, shape, steps)


def dit(
    width: int,
    blocks: int,
    heads: int,
    shape: tuple[int, ...],
    batch: int,
    steps: int = 50,
    half: bool = False,
    attention: str = "plain",
) -> Case:
    """The transformer of images in patches of two."""
    config = {
        "name": "transformer",
        "width": width,
        "blocks": blocks,
        "heads": heads,
        "attention_by": attention,
        "dtype": "bfloat16" if half else "float32",
    }
    grid = [n // 2 for n in shape[:2]]

    def twin(params):
        from experiments.benchmarks import torch_networks

        positions = embeddings.sinusoidal_positions(grid, width)
        angles = embeddings.rotary_angles(grid, width // heads)
        return torch_networks.Transformer(params, 2, heads, positions, angles)

    network = continuous.build(config, DataSpec(shape, 0, "image"))
    what = f"width {width}" + (f", {attention}" if half else "")
    return Case("dit", what, network, twin, batch, shape, steps, half)


def full() -> list[Case]:
    """What a person waits minutes for; on a GPU a DiT of width 768 as well."""
    cases = [
        perceptron(64, 512),
        perceptron(64, 4096),
        perceptron(512, 4096),
        unet((32, 64), 8, 128),
        dit(128, 4, 4, (16, 16, 3), 32),
    ]
    if jax.default_backend() == "gpu":
        for attention in ("plain", "cudnn"):
            cases.append(dit(768, 12, 12, (32, 32, 4), 256, 10, True, attention))
    return cases


def smoke() -> list[Case]:
    """The same in seconds."""
    return [
        perceptron(8, 16, 2),
        unet((8,), 4, 2, 2),
        dit(8, 1, 2, (4, 4, 1), 2, 2),
    ]


def parameters(case: Case) -> Any:
    """Parameters drawn at random, none left at zero, as NumPy arrays."""
    like = jax.eval_shape(case.network.init, jax.random.key(0), *example(case, 1))
    rng = np.random.default_rng(0)
    fan = lambda a: np.sqrt(max(np.prod(a.shape[:-1]), 8))
    draw = lambda a: (0.7 / fan(a) * rng.normal(size=a.shape)).astype(np.float32)
    return jax.tree.map(draw, like)


def example(case: Case, batch: int) -> tuple[jax.Array, jax.Array]:
    """x [B, *S] and t [B]."""
    x = jax.random.normal(jax.random.key(1), (batch, *case.shape))
    return x, jnp.linspace(0.1, 0.9, batch)


def training(case: Case) -> tuple[Program, Program]:
    """Our update, and forward and backward pass of the bare network."""
    loss = losses.denoising(paths.linear(), "velocity", times.uniform_in_t(T_MIN))
    adam, params, (x, t) = optax.adam(RATE), parameters(case), example(case, case.batch)

    def update(state, key, x):
        params, memory = state

        def value(params):
            predict = lambda x, t, cond: case.network.apply(params, x, t)
            return jnp.mean(loss(predict, key, x, None)[0])

        found, grads = jax.value_and_grad(value)(params)
        updates, memory = adam.update(grads, memory)
        return (optax.apply_updates(params, updates), memory), found

    def bare(params, x, t, target):
        error = lambda p: jnp.mean((case.network.apply(p, x, t) - target) ** 2)
        return jax.value_and_grad(error)(params)

    state = jax.tree.map(jnp.array, (params, adam.init(params)))
    return (
        timing.compiled(update, state, jax.random.key(2), x, donate=True),
        timing.compiled(bare, jax.tree.map(jnp.array, params), x, t, x[::-1]),
    )


def sampling(case: Case) -> tuple[Program, Program]:
    """Our Euler steps of the flow, and as many calls of the network."""
    path, params = paths.linear(), jax.tree.map(jnp.array, parameters(case))
    stepper = samplers.SOLVERS["euler"](path, samplers.reader(path, "velocity"))
    grid = jnp.linspace(1.0, T_MIN, case.steps + 1)
    x, _ = example(case, case.batch)

    def reverse(params, key, x):
        predict = lambda x, t, cond: case.network.apply(params, x, t)
        return driver.reverse(stepper, predict, key, x, grid).x

    def bare(params, x):
        def body(x, t):
            # All of the output is made, and the next call depends on it.
            out = jax.lax.optimization_barrier(case.network.apply(params, x, jnp.full(len(x), t)))
            return jnp.where(out > 1e30, 0, x), None

        return jax.lax.scan(body, x, grid[:-1])[0]

    return (
        timing.compiled(reverse, params, jax.random.key(3), x),
        timing.compiled(bare, params, x),
    )


def opponents(case: Case, compile: bool) -> dict[str, tuple[Callable, Callable]]:
    """name -> (an update, a run of the sampler) of every peer that is installed."""
    if not peers.have_torch():
        return {}
    params = parameters(case)
    x = np.array(example(case, case.batch)[0])
    found = {}
    for name, compiled in {"eager": False, **({"compile": True} if compile else {})}.items():
        found[f"torch {name}"] = (
            peers.torch_training(case.twin(params), RATE, x, case.half, compiled),
            peers.torch_sampling(case.twin(params), x, case.steps, case.half, compiled),
        )
    if case.example and peers.have_flow_matching():
        found["flow_matching"] = (
            peers.flow_matching_training(case.twin(params), RATE, x),
            peers.flow_matching_sampling(case.twin(params), x, case.steps),
        )
    return found


def rows(case: Case, repeats: int, compile: bool, say: Callable[[str], None]) -> Iterator[Row]:
    """All rows of a case."""
    others = opponents(case, compile)
    for i, (target, make) in enumerate({"training": training, "sampling": sampling}.items()):
        program, bare = make(case)
        runs = {"ours": program.run, "network": bare.run}
        for name, pair in others.items():
            try:
                pair[i]()  # compiles
                runs[name] = pair[i]
            except Exception as error:  # no compiler, no memory, whatever a peer meets
                say(f"{case.name} {target}: {name} does not work here: {error!r:.200}")
        seconds = timing.interleaved(runs, repeats)
        ms = {name: 1e3 * float(np.median(taken)) for name, taken in seconds.items()}

        def row(target, against, figures, goal, met, ms=ms, program=program, bare=bare):
            shape = " x ".join(map(str, (case.batch, *case.shape)))
            return Row(
                target, shape, case.name, case.what, against, ms["ours"], ms.get(against, np.nan),
                *figures, goal, "yes" if met else "no", program.compile_s, program.temp_mib,
                bare.temp_mib,
            )  # fmt: skip

        for name in runs.keys() - {"ours", "network"}:
            figures = timing.compare(seconds[name], seconds["ours"])
            least = 5.0 if name == "flow_matching" else 1.0
            yield row(target, name, figures, f">= {least:g}", figures[0] >= least)
        inside, low, high = timing.compare(seconds["network"], seconds["ours"])
        share = (1 - inside, 1 - high, 1 - low)
        yield row(f"outside, {target}", "network", share, "<= 0.1", share[0] <= 0.1)
        if (used := utilisation(case, target, 1.0)) is not None:
            low, median, high = np.percentile(used / seconds["ours"], [25, 50, 75])
            goal = 0.5 if case.half and target == "training" else 0.0
            yield row(
                f"utilisation, {target}", "peak", (median, low, high), f">= {goal}", median >= goal
            )


def utilisation(case: Case, target: str, seconds: float, kind: str | None = None) -> float | None:
    """Operations of the network over those that the device could do; None where it is not known.

    Args:
        case: its network is counted with plain attention, which is as much work as any.
        target: "training", three forward passes, or "sampling", one a step.
        seconds: an update or a run took.
        kind: of the device; default: the one there is.
    """
    kind = kind or jax.devices()[0].device_kind
    peak = next((peak for name, peak in PEAKS.items() if set(name.split()) <= set(_words(kind))), 0)
    if not peak:
        return None
    plain = case.network
    if hasattr(plain, "attention_by"):
        plain = plain.clone(attention_by="plain")
    like = jax.eval_shape(plain.init, jax.random.key(0), *example(case, 1))
    flops = networks.cost(plain.apply, like, *example(case, case.batch)).flops
    return flops * (3 if target == "training" else case.steps) / seconds / peak


def _words(kind: str) -> list[str]:
    return kind.replace("-", " ").split()


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder")
    parser.add_argument("--repeats", type=int, default=9, help="interleaved rounds")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, seconds")
    parser.add_argument("--only", nargs="+", choices=("mlp", "unet", "dit"), help="cases")
    args = parser.parse_args(argv)
    console, found, path = Console(), list[Row](), args.out / "euclidean.csv"
    if not peers.have_torch():
        console.print("torch is not installed; only the share outside the network is measured")
    for case in smoke() if args.smoke else full():
        if args.only and case.name not in args.only:
            continue
        like = jax.eval_shape(case.network.init, jax.random.key(0), *example(case, 1))
        cost = networks.cost(case.network.apply, like, *example(case, 1))
        console.print(
            f"{case.name} {case.what}: {cost.parameters:,} parameters,"
            f" {cost.flops / 1e6:.4g} MFLOP a forward pass of one example"
        )
        for row in rows(case, args.repeats, not args.smoke, console.print):
            console.print(f"{row.target} {row.shape} {row.what} {row.against}: {row.ratio:.3g}")
            found.append(row)
            timing.write(found, path)
    timing.show(found, console)
    console.print(f"{path}: {len(found)} rows")
    return found


if __name__ == "__main__":
    main()
