"""A small method for the tests of training, and a program that trains it.

Noisy regression with dropout, so that both the batch and the key of every step matter; weak
types and twice the same array in the first state, as methods are free to have.
"""

import argparse
import json
import sys
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from gmjax.training import loop, sharding
from gmjax.training import workdir as workdirs
from gmjax.types import Method, UserError

WIDTH = 128


class State(NamedTuple):
    step: Any
    params: Any
    ema: Any
    opt_state: Any


def config(**changes):
    result = ml_collections.ConfigDict(loop.DEFAULTS)
    result.train.update(steps=40, batch_size=16, log_every=5, checkpoint_every=10)
    result.update_from_flattened_dict(changes)
    return result


def method(width=WIDTH, rate=3e-3, poison=0, traces=None):
    """`poison`: the step from which the loss is not a number."""
    optimizer = optax.adamw(rate)

    def init(key):
        one, two = jax.random.split(key)
        params = {
            "hidden": jax.random.uniform(one, (8, width), minval=-0.5, maxval=0.5),
            "bias": jnp.zeros(width),
            "out": jax.random.uniform(two, (width, 3), minval=-0.2, maxval=0.2),
            "scale": jnp.full((), 1.0) * 1.0,
        }
        return State(jnp.asarray(0), params, params, optimizer.init(params))

    def loss(params, key, batch, step):
        hidden = jnp.tanh(batch["x"] @ params["hidden"] + params["bias"])
        hidden = hidden * jax.random.bernoulli(key, 0.8, hidden.shape)
        value = jnp.mean((hidden @ params["out"] * params["scale"] - batch["y"]) ** 2)
        return jnp.where((poison > 0) & (step >= poison - 1), jnp.nan, value)

    def update(state, key, batch):
        if traces is not None:
            traces.append(1)
        value, grads = jax.value_and_grad(loss)(state.params, key, batch, state.step)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, state.ema, params)
        return State(state.step + 1, params, ema, opt_state), {
            "loss": value,
            "norm": optax.global_norm(grads),
        }

    return Method(init, update, evaluate=lambda *a: {}, sample=lambda *a: None)


def batch(step, process_index, process_count, size=16, pause=0.0):
    """Rows p n / P ... (p + 1) n / P of the batch of a step."""
    time.sleep(pause)
    rng = np.random.default_rng([7, step])
    x = rng.normal(size=(size, 8)).astype(np.float32)
    part = slice(process_index * size // process_count, (process_index + 1) * size // process_count)
    return {"x": x[part], "y": np.sin(x[part, :3])}


def evaluate(state, step):
    """Not monotone, so that the best is not the newest."""
    return {"loss": abs(step - 20), "norm": float(jnp.sum(state.params["bias"] ** 2))}


def flat(state):
    """{path: numpy array} of the whole state."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", nargs=2, action="append", metavar=("WORKDIR", "CHANGES"))
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    args = parser.parse_args()
    sharding.initialize(args.coordinator, args.num_processes, args.process_id)
    try:
        for workdir, changes in args.run:
            run(workdir, config(**json.loads(changes)), partial(batch, pause=args.pause))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except loop.TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def run(path, settings, batches):
    """Trains, and leaves the final state in `final-<process>.npz`."""
    workdir = workdirs.prepare(path, settings)
    state = loop.train(method(), batches, settings, workdir, evaluate)
    whole = jax.jit(lambda x: x, out_shardings=sharding.replicated(sharding.mesh(settings)))
    np.savez(workdir / f"final-{jax.process_index()}.npz", **flat(whole(state)))


if __name__ == "__main__":
    main()
