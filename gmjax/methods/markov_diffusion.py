"""Diffusion on any state space: a noising process, a score network, a reverse sampler.

`build(config, spec)` reads the sections process, loss, network, optimizer, evaluate and sample
of a configuration and returns a `Method`. The state is an array or a tree of arrays; the
network sees the features that each space gives and predicts one number for every entry of the
score, which the process's `read` turns into the score.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gmjax.likelihoods import flow
from gmjax.losses import scores, times
from gmjax.methods.combinators import State, from_loss, optimizer
from gmjax.methods.settings import (
    accumulation,
    call,
    condition,
    guided,
    inside,
    labelled,
    positive,
)
from gmjax.networks import field
from gmjax.processes import LIFTS, PROCESSES
from gmjax.processes.observed import batch_size
from gmjax.processes.schedules import SCHEDULES, Schedule
from gmjax.samplers import driver, grids, markov
from gmjax.spaces import product
from gmjax.types import (
    Array,
    DataSpec,
    Key,
    Lift,
    Method,
    Predict,
    Process,
    Samples,
    UserError,
    lookup,
)

Config = Any


def build(config: Config, spec: DataSpec) -> Method:
    """The method of a configuration for data of `spec`.

    Args:
        config: a ConfigDict as in `configs/markov_diffusion.py`.
        spec: what the data look like.

    Raises:
        UserError: a name that is in no table, or a value that is not valid.
    """
    process, schedule = build_process(config.process, spec)
    lift = build_lift(config, spec, schedule)
    t_min = inside(config.loss.t_min, "config.loss.t_min")
    clock = _time_sampler(config.loss, schedule, t_min)
    weighting = lookup(
        {"simple": False, "likelihood": True}, config.loss.weighting, "config.loss.weighting"
    )
    labels = labelled(config, spec)
    network, predictor = build_network(config, spec, process)
    train_loss = scores.denoising(process, clock, weighting)
    judge = evaluator(config, process, schedule, t_min)
    draw = sampler(config, process, schedule, spec, t_min)
    share = config.loss.observed
    if not 0 <= share < 1:
        raise UserError(f"config.loss.observed={share} must lie in [0, 1)")
    if share and not isinstance(process.space, Mapping) and not product.entrywise(process.space):
        raise UserError(
            f"config.loss.observed={share}: the entries of a state of kind {spec.kind!r} depend on"
            " each other, and none is given without the rest; valid: 0"
        )

    def init(key: Key):
        x = jax.tree.map(lambda a: a[None], _example(process))
        return network(key, x)

    def loss(params, key, batch):
        key_loss, key_drop, key_label, key_mask = jax.random.split(key, 4)
        cond = condition(batch, labels, "context")
        if labels:
            dropped = jax.random.uniform(key_label, cond["label"].shape) < config.loss.label_dropout
            cond["label"] = jnp.where(dropped, spec.num_classes, cond["label"])
        if share:
            cond["observed"] = _masks(key_mask, process.space, batch["x"], share)
        predict = predictor(params, train=True, rngs={"dropout": key_drop})
        x = jax.vmap(lift.enter)(batch["x"]) if lift else batch["x"]
        return train_loss(predict, key_loss, x, cond)

    start, update = from_loss(
        init,
        loss,
        optimizer(config.optimizer, config.train.steps),
        config.optimizer.ema,
        accumulation(config),
    )

    def evaluate(state: State, key: Key, batch: Mapping[str, Any]) -> dict[str, Array]:
        x = jax.vmap(lift.enter)(batch["x"]) if lift else batch["x"]
        parts = judge(predictor(state.ema), key, x, condition(batch, labels, "context"))
        if not lift:
            return parts
        dropped = lift.entropy(jnp.asarray(t_min))
        return parts | {name: parts[name] - dropped for name in ("nats", "entropy")}

    def sample(state: State, key: Key, n: int, cond=None, **kwargs) -> Samples:
        out = draw(predictor(state.ema), key, n, cond, **kwargs)
        if not lift:
            return out
        leave = jax.vmap(lift.leave)
        path = out.trajectory
        return out._replace(
            x=leave(out.x), trajectory=path if path is None else jax.vmap(leave)(path)
        )

    def wrong(x) -> str:
        return product.check(process.space, np.stack([x, x], 1) if lift else x)

    return Method(start, update, evaluate, sample, wrong)


def build_process(config: Config, spec: DataSpec) -> tuple[Process, Schedule]:
    """The noising process of `config.process` and its clock.

    Args:
        config: name, the process's own keys, and schedule.{name, its keys}.
        spec: gives the shape of a state.
    """
    make = lookup(PROCESSES, config.name, "config.process.name")
    clock = {k: v for k, v in config.schedule.items() if v is not None}
    form = lookup(SCHEDULES, clock.pop("name"), "config.process.schedule.name")
    schedule = call(form, clock, "config.process.schedule")
    own = {k: v for k, v in config.items() if k not in ("name", "schedule") and v is not None}
    process = call(partial(make, schedule, spec), own, "config.process")
    return process, schedule


def build_lift(config: Config, spec: DataSpec, schedule: Schedule) -> Lift | None:
    """How data enter the state, where it holds more than they; else None.

    Raises:
        UserError: what such a process does not do is asked for.
    """
    name = config.process.name
    if name not in LIFTS:
        return None
    if config.loss.observed:
        raise UserError(f"config.loss.observed={config.loss.observed}: {name} completes nothing")
    if config.evaluate.likelihood != "elbo":
        raise UserError(
            f"config.evaluate.likelihood={config.evaluate.likelihood!r}: {name} has a bound for"
            " the data alone, not a flow; valid: elbo"
        )
    keys = ("name", "schedule")
    own = {k: v for k, v in config.process.items() if k not in keys and v is not None}
    return call(partial(LIFTS[name], schedule, spec), own, "config.process")


def build_network(config: Config, spec: DataSpec, process: Process) -> tuple[Callable, Callable]:
    """(init (key, x [1, *S]) -> params, predictor (params, **kwargs) -> `Predict`)."""
    x = _example(process)
    score = jax.eval_shape(process.target, x, x, jnp.ones(()))
    flat, unravel = ravel_pytree(jax.tree.map(lambda s: jnp.zeros(s.shape), score))
    network = field.build(config.network, flat.size, spec.num_classes if config.labels else 0)
    context = config.loss.observed > 0

    def features(x, cond):
        columns = product.embed(process.space, x)
        if context:
            mask = (cond or {}).get("observed", jax.tree.map(lambda a: jnp.zeros(a.shape), x))
            flags = jax.vmap(lambda m: ravel_pytree(m)[0].astype(jnp.float32))(mask)
            columns = jnp.concatenate([columns, flags], -1)
        return columns

    def init(key, x):
        return network.init(key, features(x, None), jnp.ones(1))

    def predictor(params, **kwargs) -> Predict:
        def predict(x, t, cond):
            return jax.vmap(unravel)(network.apply(params, features(x, cond), t, cond, **kwargs))

        return predict

    return init, predictor


def evaluator(config: Config, process: Process, schedule: Schedule, t_min: float) -> Callable:
    """(predict, key, x0, cond) -> {"nats", ...} [B], by `config.evaluate.likelihood`.

    `flow`: -log p(x0) by the probability flow from t_min; `elbo`: the bound on -log p of x0
    noised to t_min, and its parts. Nats in the space's reference measure.
    """
    c = config.evaluate
    table = {"flow": _flow, "elbo": _bound}
    return lookup(table, c.likelihood, "config.evaluate.likelihood")(
        config, process, schedule, t_min
    )


def _flow(config: Config, process: Process, schedule: Schedule, t_min: float) -> Callable:
    if process.velocity is None:
        raise UserError(
            f"config.evaluate.likelihood='flow': config.process.name={config.process.name!r} has"
            " no probability flow; valid: elbo"
        )
    number = positive(config.evaluate, "evaluate.steps")
    steps = grids.build(config.sample.grid, number, t_min, schedule)
    run = flow.log_likelihood(process, steps, config.evaluate.probes, config.evaluate.probe)
    return lambda predict, key, x, cond: {"nats": -run(predict, key, x, cond)}


def _bound(config: Config, process: Process, schedule: Schedule, t_min: float) -> Callable:
    if process.log_prob is None:
        raise UserError(
            f"config.evaluate.likelihood='elbo': config.process.name={config.process.name!r} has"
            " no kernel density; valid: flow"
        )
    clock = times.uniform_in_log_clock(schedule, t_min)
    return scores.elbo(process, clock, t_min, positive(config.evaluate, "evaluate.times"))


def sampler(
    config: Config, process: Process, schedule: Schedule, spec: DataSpec, t_min: float
) -> Callable[..., Samples]:
    """The sampler of `config.sample`.

    Returns:
        (predict, key, n, cond, *, trajectory=0, place=None) -> `Samples`. `cond` may hold
        label [n], context [n, C], and observed (a tree of booleans like x) with values, which
        are clamped; `place` lays the batch out over devices.
    """
    c = config.sample
    steps, guide = positive(c, "sample.steps"), guided(config, spec, _logits(process.space))
    for name in ("num_samples", "batch_size"):
        positive(c, f"sample.{name}")
    stepper = lookup(markov.STEPPERS, c.name, "config.sample.name")(process)
    times = grids.build(c.grid, steps, t_min, schedule)

    def draw(predict, key, n, cond=None, *, trajectory=0, place=None) -> Samples:
        key_base, key_run = jax.random.split(key)
        x = jax.vmap(process.base.sample)(jax.random.split(key_base, n))
        x = jax.tree.map(place, x) if place else x
        cond = dict(cond or {})
        if "values" in cond and not config.loss.observed:
            raise UserError(
                "config.data.observed needs a model of given entries: train with"
                " config.loss.observed in (0, 1), such as 0.5"
            )
        project = markov.infill(cond)
        cond.pop("values", None)
        predict, passes = guide(predict)
        out = driver.reverse(
            stepper, predict, key_run, x, times, cond, project=project, trajectory=trajectory
        )
        return out._replace(nfe=passes * out.nfe)

    return draw


def _logits(space: Any) -> Any:
    """Are outputs logits? Those of finite sets are, and no others'."""
    if isinstance(space, Mapping):
        return {name: _logits(part) for name, part in space.items()}
    return space.dim == 0 and space.uniform is not None


def _time_sampler(config: Config, schedule: Schedule, t_min: float) -> times.TimeSampler:
    spread = lookup(times.SPREADS, config.spread, "config.loss.spread")
    table = {
        "uniform": lambda s: times.uniform_in_t(t_min, s),
        "noise": lambda s: times.uniform_in_noise(schedule, t_min, s),
    }
    return lookup(table, config.times, "config.loss.times")(spread)


def _example(process: Process) -> Any:
    """A state to trace shapes with."""
    return process.base.sample(jax.random.key(0))


def _masks(key: Key, space: Any, x: Any, share: float) -> Any:
    """Half of the batch observed in part, each entry with probability `share`, half not at all.

    A component whose entries depend on each other is observed as a whole.
    """
    n = batch_size(x)
    key_half, key = jax.random.split(key)
    half = jax.random.uniform(key_half, (n,)) < 0.5

    def mask(space, a, key):
        wide = lambda b: b.reshape((n,) + (1,) * (a.ndim - 1))
        drawn = jax.random.uniform(key, a.shape if product.entrywise(space) else wide(half).shape)
        return jnp.broadcast_to((drawn < share) & wide(half), a.shape)

    if not isinstance(space, Mapping):
        return mask(space, x, key)
    keys = dict(zip(space, jax.random.split(key, len(space)), strict=True))
    return {name: mask(space[name], x[name], keys[name]) for name in space}
