"""How a loss becomes a method: one optimiser step with clipping, accumulation and an average."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmjax.types import Array, Key, PyTree, UserError, lookup


class State(NamedTuple):
    """What training carries from step to step."""

    step: Array  # [] int32, updates done
    params: PyTree
    ema: PyTree  # exponential moving average of params: what is evaluated and sampled
    opt_state: PyTree


# (params, key, batch) -> per-example values [B] and named parts {name: [B]}
BatchLoss = Callable[[PyTree, Key, dict[str, Array]], tuple[Array, dict[str, Array]]]

OPTIMIZERS = {
    "adamw": lambda rate, c: optax.adamw(rate, b2=c["b2"], weight_decay=c["weight_decay"]),
    "lion": lambda rate, c: optax.lion(rate, b2=c["b2"], weight_decay=c["weight_decay"]),
    "sgd": lambda rate, c: optax.sgd(rate, momentum=0.9),
}
DECAYS = {
    "cosine": lambda peak, warmup, steps: optax.warmup_cosine_decay_schedule(
        0.0, peak, warmup, max(steps, warmup + 1)
    ),
    "constant": lambda peak, warmup, steps: (
        optax.linear_schedule(0.0, peak, warmup) if warmup else optax.constant_schedule(peak)
    ),
    "linear": lambda peak, warmup, steps: optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, max(warmup, 1)),
            optax.linear_schedule(peak, 0.0, max(steps - warmup, 1)),
        ],
        [warmup],
    ),
}


def optimizer(config: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """The optimiser of `config.optimizer`, its rate laid out over `steps` updates.

    Args:
        config: name, learning_rate, warmup, decay, weight_decay, b2 and clip (0: none).
        steps: updates of the whole run.
    """
    for key in ("learning_rate",):
        if not config[key] > 0:
            raise UserError(f"config.optimizer.{key}={config[key]} must be positive")
    for key in ("warmup", "weight_decay", "clip"):
        if config[key] < 0:
            raise UserError(f"config.optimizer.{key}={config[key]} must not be negative")
    decay = lookup(DECAYS, config["decay"], "config.optimizer.decay")
    make = lookup(OPTIMIZERS, config["name"], "config.optimizer.name")
    rate = decay(config["learning_rate"], config["warmup"], steps)
    clip = optax.clip_by_global_norm(config["clip"]) if config["clip"] else optax.identity()
    return optax.chain(clip, make(rate, config))


def from_loss(
    init: Callable[[Key], PyTree],
    loss: BatchLoss,
    transform: optax.GradientTransformation,
    ema: float = 0.999,
    accumulate: int = 1,
) -> tuple[Callable[[Key], State], Callable[..., tuple[State, dict[str, Array]]]]:
    """The `init` and `update` of a method that minimises the mean of one loss.

    Args:
        init: key -> params.
        loss: see `BatchLoss`.
        transform: an optax optimiser.
        ema: decay of the average of the parameters, reached after a warm-up.
        accumulate: the batch is split in so many parts whose gradients are averaged.

    Returns:
        init: key -> `State`; update: (state, key, batch) -> (state, {name: []}).

    Raises:
        UserError: a decay outside [0, 1).
    """

    if not 0 <= ema < 1:
        raise UserError(f"config.optimizer.ema={ema} must lie in [0, 1)")

    def start(key: Key) -> State:
        params = init(key)
        # A copy, because the state is donated and one buffer cannot be given away twice.
        average = jax.tree.map(jnp.copy, params)
        return State(jnp.zeros((), jnp.int32), params, average, transform.init(params))

    def mean_loss(params, key, batch):
        values, parts = loss(params, key, batch)
        return jnp.mean(values), jax.tree.map(jnp.mean, parts)

    def gradients(params, key, batch):
        value_and_grad = jax.value_and_grad(mean_loss, has_aux=True)
        if accumulate == 1:
            return value_and_grad(params, key, batch)
        # Part i takes every accumulate-th row, so a sharded batch axis stays where it is.
        parts = jax.tree.map(
            lambda a: jnp.moveaxis(a.reshape(-1, accumulate, *a.shape[1:]), 1, 0), batch
        )

        def body(total, inputs):
            part, k = inputs
            return jax.tree.map(jnp.add, total, value_and_grad(params, k, part)), None

        keys = jax.random.split(key, accumulate)
        shapes = jax.eval_shape(
            value_and_grad, params, keys[0], jax.tree.map(lambda a: a[0], parts)
        )
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(body, zero, (parts, keys))
        return jax.tree.map(lambda a: a / accumulate, total)

    def update(state: State, key: Key, batch: dict[str, Array]):
        (value, parts), grads = gradients(state.params, key, batch)
        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(ema, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.ema, params)
        metrics = {"loss": value, "grad_norm": optax.global_norm(grads), **parts}
        return State(state.step + 1, params, average, opt_state), metrics

    return start, update
