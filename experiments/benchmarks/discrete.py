"""What discrete diffusion costs beyond the network, as ratios.

    training  the whole update (noising, network, loss, gradient, clipping, optimiser, average of
              the parameters) against forward and backward pass of the same network with the mean
              square of its logits
    loss      the loss and its gradient on given logits against the mean square of the logits
    sampling  `driver.reverse` in one program against a scan over as many bare network calls
    step      PyTorch flow_matching's discrete Euler step, the posterior a fixed table, against one
              step of ours given the same table as logits

Run it with `python -m experiments.benchmarks.discrete [--out DIR] [--repeats N] [--smoke]
[--only TARGET ...]`. It installs nothing, and leaves out the peer where it is missing.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from configs import discrete_diffusion as presets
from configs import sections
from experiments.benchmarks import peers, timing
from experiments.benchmarks.timing import Program, Row
from gmjax import networks
from gmjax.losses import discrete, times
from gmjax.methods import discrete_diffusion
from gmjax.processes import chains, ctmc, schedules
from gmjax.samplers import discrete as steppers
from gmjax.samplers import driver, grids
from gmjax.types import DataSpec

T_MIN = 1e-3
CHAINS = {"uniform": chains.uniform, "absorbing": chains.absorbing}
TERMS = {
    "uniform": ({"score_entropy": 1.0, "cross_entropy": 0.5}, {"ct_elbo": 1.0}),
    "absorbing": ({"masked_elbo": 1.0}, {"ct_elbo": 1.0}),
}
PEER_STEPS = 5  # of one run
SAMPLERS = {"uniform": ("tweedie", "tau_leaping", "euler"), "absorbing": ("ancestral",)}


class Case(NamedTuple):
    """Data of a shape, the batch and the network for them."""

    batch: int
    spec: DataSpec
    network: Any  # config.network
    steps: int = 4  # of the sampler

    @property
    def shape(self) -> str:
        return f"{self.batch} x {prod(self.spec.shape)} x {self.spec.num_values}"


def full() -> tuple[Case, list[Case]]:
    """The case of the update, and those of the samplers and of the single step."""
    grey = DataSpec((28, 28, 1), 256, "image", True)
    colour = DataSpec((32, 32, 3), 256, "image", True)
    unet = sections.network(
        "unet", channels=(64, 128, 128, 128), blocks=2, attention=(1,), mixer=0, head="logistic"
    )
    return Case(64, grey, presets.mnist().network), [
        Case(4096, DataSpec((2,), 128, "vector", True), presets.glyph().network, 8),
        Case(64, DataSpec((256,), 129, "sequence"), presets.chorales().network, 2),
        Case(16, colour, unet, 2),
    ]


def smoke() -> tuple[Case, list[Case]]:
    """The same in seconds."""
    mlp = sections.network("mlp", width=16, blocks=1)
    image = DataSpec((2, 2, 1), 8, "image", True)
    return Case(4, image, mlp), [Case(8, DataSpec((2,), 8, "vector", True), mlp, 2)]


def training(case: Case, repeats: int) -> Iterator[Row]:
    """The update against forward and backward pass."""
    x = data(case)
    for name, choices in TERMS.items():
        programs = {}
        for terms in choices:
            method = discrete_diffusion.build(config(case, name, terms), case.spec)
            state = jax.jit(method.init)(jax.random.key(0))
            programs["update, " + label(terms)] = timing.compiled(
                method.update, state, jax.random.key(1), {"x": x}, donate=True
            )
        network = networks.build(case.network, case.spec, states(case, name))
        mean_square = jax.value_and_grad(
            lambda params, key, x, t, n=network: jnp.mean(
                n.apply(params, x, t, None, train=True, rngs={"dropout": key}) ** 2
            )
        )
        bare = timing.compiled(
            mean_square, init(network, case), jax.random.key(1), x, jnp.full(case.batch, 0.5)
        )
        yield from rows("training", case, name, programs, "network, mse", bare, repeats, 1.15)


def loss(case: Case, repeats: int) -> Iterator[Row]:
    """The losses alone, on given logits."""
    logits = table(case)
    square = timing.compiled(jax.value_and_grad(lambda out: jnp.mean(out**2)), logits)
    for name, choices in TERMS.items():
        noise = process(case, name)
        read = ctmc.leave_one_out(noise)
        clock = times.uniform_in_noise(noise.schedule, T_MIN)

        def value(out, key, x, terms, noise=noise, read=read, clock=clock):
            of = discrete.denoising(noise, read, terms, clock)
            return jnp.mean(of(lambda x, t, cond: out, key, x, None)[0])

        programs = {
            "loss, " + label(terms): timing.compiled(
                jax.value_and_grad(partial(value, terms=terms)),
                logits,
                jax.random.key(1),
                data(case),
            )
            for terms in choices
        }
        yield from rows("loss", case, name, programs, "mse", square, repeats, None)


def sampling(case: Case, repeats: int) -> Iterator[Row]:
    """The reverse process against bare network calls."""
    for name, samplers in SAMPLERS.items():
        noise = process(case, name)
        network = networks.build(case.network, case.spec, noise.chain.num_states)
        params = init(network, case)
        grid = grids.noise(case.steps, T_MIN, noise.schedule)
        base = ctmc.base(noise, case.spec.shape)
        x = jax.vmap(base.sample)(jax.random.split(jax.random.key(2), case.batch))

        def bare(params, x, network=network, grid=grid):
            def body(x, t):
                out = network.apply(params, x, jnp.full(len(x), t), None)
                # All of the output is made, and the next call depends on it.
                out = jax.lax.optimization_barrier(out)
                return jnp.where(out[..., 0] > 1e30, 0, x), None

            return jax.lax.scan(body, x, grid[:-1])[0]

        def reverse(params, x, key, stepper, network=network, grid=grid):
            predict = lambda x, t, cond: network.apply(params, x, t, cond)
            return driver.reverse(stepper, predict, key, x, grid).x

        read = ctmc.leave_one_out(noise)
        programs = {
            sampler: timing.compiled(
                partial(reverse, stepper=steppers.STEPPERS[sampler](noise, read)),
                params,
                x,
                jax.random.key(3),
            )
            for sampler in samplers
        }
        calls = timing.compiled(bare, params, x)
        yield from rows(
            "sampling", case, name, programs, "network calls", calls, repeats, 1.15, case.steps
        )


def step(case: Case, repeats: int) -> Iterator[Row]:
    """One step with a fixed posterior against the peer's; the ratio is peer / ours."""
    logits = table(case)
    peer = peers.flow_matching(jax.nn.softmax(logits), data(case), PEER_STEPS)
    for name, samplers in SAMPLERS.items():
        noise = process(case, name)
        x = data(case)
        if name == "absorbing":
            x = jnp.where(jnp.arange(x.size).reshape(x.shape) % 2, x, case.spec.num_values)
        t, s = jnp.full(case.batch, 0.5), jnp.full(case.batch, 0.49)
        programs = {}
        for kind in ("posterior", "leave_one_out"):
            for sampler in samplers:
                stepper = steppers.STEPPERS[sampler](noise, ctmc.PARAMETRISATIONS[kind](noise))

                def one(logits, key, x, t, s, stepper=stepper):
                    predict = lambda x, t, cond: logits
                    return stepper.step(predict, key, x, t, s, (), None)[0]

                args = (logits, jax.random.key(3), x, t, s)
                programs[f"{sampler}, {kind}"] = timing.compiled(one, *args)
        seconds = timing.interleaved(
            {"peer": peer, **{k: p.run for k, p in programs.items()}}, repeats
        )
        seconds["peer"] /= PEER_STEPS
        for what, program in programs.items():
            ratio, low, high = timing.compare(seconds["peer"], seconds[what])
            yield Row(
                "step", case.shape, name, what, "flow_matching Euler",
                1e3 * float(np.median(seconds[what])), 1e3 * float(np.median(seconds["peer"])),
                ratio, low, high, ">= 5", "yes" if ratio >= 5 else "no",
                program.compile_s, program.temp_mib, float("nan"),
            )  # fmt: skip


def rows(
    target: str,
    case: Case,
    chain: str,
    programs: dict[str, Program],
    against: str,
    bare: Program,
    repeats: int,
    goal: float | None,
    steps: int = 1,
) -> Iterator[Row]:
    """Time `programs` and `bare` in turn; a row for each program over `bare`."""
    runs = {against: bare.run, **{name: p.run for name, p in programs.items()}}
    seconds, unit = timing.interleaved(runs, repeats), 1e3 / steps
    for what, program in programs.items():
        ratio, low, high = timing.compare(seconds[what], seconds[against])
        met = "" if goal is None else "yes" if ratio <= goal else "no"
        yield Row(
            target, case.shape, chain, what, against,
            unit * float(np.median(seconds[what])), unit * float(np.median(seconds[against])),
            ratio, low, high, f"<= {goal}" if goal else "", met,
            program.compile_s, program.temp_mib, bare.temp_mib,
        )  # fmt: skip


def config(case: Case, chain: str, terms: dict[str, float]) -> Any:
    """The MNIST preset with the chain, the loss and the network of the case."""
    config = presets.mnist()
    config.process = sections.process(chain, sections.schedule("log_linear"))
    config.network = case.network
    config.loss.update(t_min=T_MIN, times="noise")
    config.sample.ordinal = False
    config.loss.terms.update(terms)
    return config


def process(case: Case, chain: str) -> ctmc.CTMC:
    return ctmc.CTMC(CHAINS[chain](case.spec.num_values), schedules.log_linear(1e-3))


def states(case: Case, chain: str) -> int:
    return CHAINS[chain](case.spec.num_values).num_states


def data(case: Case) -> jax.Array:
    shape = (case.batch, *case.spec.shape)
    return jax.random.randint(jax.random.key(4), shape, 0, case.spec.num_values)


def table(case: Case) -> jax.Array:
    """Logits of every site."""
    shape = (case.batch, *case.spec.shape, case.spec.num_values)
    return jax.random.normal(jax.random.key(5), shape)


def init(network: Any, case: Case) -> Any:
    """Parameters none of which is left at zero."""
    example = jnp.zeros((1, *case.spec.shape), jnp.int32), jnp.ones(1)
    params = jax.jit(network.init)(jax.random.key(0), *example)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(6), len(leaves))
    noisy = [p + 0.02 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def label(terms: dict[str, float]) -> str:
    return " + ".join(terms)


TARGETS: dict[str, Callable[[Case, int], Iterator[Row]]] = {
    "training": training,
    "loss": loss,
    "sampling": sampling,
    "step": step,
}


def run(
    update: Case, others: Sequence[Case], repeats: int, only: Sequence[str], console: Console
) -> Iterator[Row]:
    """The rows of the chosen targets, each printed when it is there."""
    cases = {"training": [update], "loss": [update], "sampling": others, "step": others}
    for target in only:
        if target == "step" and not peers.have_flow_matching():
            console.print("step: flow_matching (or torch) is not installed; left out")
            continue
        for case in cases[target]:
            for row in TARGETS[target](case, repeats):
                console.print(f"{row.target} {row.shape} {row.chain} {row.what}: {row.ratio:.3g}")
                yield row


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder")
    parser.add_argument("--repeats", type=int, default=9, help="interleaved rounds")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, seconds")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    args = parser.parse_args(argv)
    console = Console()
    update, others = smoke() if args.smoke else full()
    found: list[Row] = []
    timing.write(found, args.out / "discrete.csv")
    for row in run(update, others, args.repeats, args.only, console):
        found.append(row)
        timing.write(found, args.out / "discrete.csv")
    timing.show(found, console)
    console.print(f"{args.out / 'discrete.csv'}: {len(found)} rows")
    return found


if __name__ == "__main__":
    main()
