"""Flow matching on any state space: a conditional path, a coupling, a network, a sampler.

`build(config, spec)` reads the sections path, coupling, loss, network, optimizer, evaluate and
sample of a configuration. The kind of the data says where they live, and with that which paths
there are: interpolants on R^d and of values on levels, as numbers in [-1, 1]; geodesics on
manifolds; mixtures on finite sets; and products of them. A batch may bring the other end of the
path with it, "source", a set of data as large as x.

With `loss.objective = "mean"` the network learns the average velocity between two times and
samples in one step or a few.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gmjax import networks
from gmjax.likelihoods import flow
from gmjax.losses import flow_matching as losses
from gmjax.losses import meanflow
from gmjax.losses.times import SPREADS
from gmjax.methods import completion, flow_worlds
from gmjax.methods.combinators import State, from_loss, optimizer
from gmjax.methods.flow_worlds import World
from gmjax.methods.settings import accumulation, condition, guided, labelled, positive
from gmjax.networks import continuous, embeddings, field
from gmjax.paths import couplings, mixture
from gmjax.paths.conditional import Path
from gmjax.samplers import driver
from gmjax.samplers import flow_matching as steppers
from gmjax.spaces import product
from gmjax.types import Array, DataSpec, Key, Method, Predict, PyTree, Samples, UserError, lookup

Config = Any
CALM = 0.05  # the fastest sines of time are too steep for a derivative in time


def build(config: Config, spec: DataSpec) -> Method:
    """The method of a configuration for data of `spec`.

    Args:
        config: a ConfigDict as in `configs/flow_matching.py`.
        spec: what the data look like.

    Raises:
        UserError: a name that is in no table, or a value that is not valid.
    """
    world, labels, c = flow_worlds.build(config, spec), labelled(config, spec), config.loss
    couple = couplings.build(config.coupling, world.path.space)
    _check_coupling(config, labels)
    _check_numbers(config)
    start_network, predictor = build_network(config, spec, world)
    train_loss = _loss(config, world, couple)
    # Held-out batches are of any size, and their couplings of one group.
    whole = couplings.build({**config.coupling, "group": 0}, world.path.space)
    judge = evaluator(config, spec, world, whole)
    draw = sampler(config, spec, world)

    def prepared(key: Key, x: PyTree) -> PyTree:
        """Numbers for values, each spread over its bin, so that they have a density."""
        if not world.width:
            return x
        x = world.encode(x)
        return x + world.width * (jax.random.uniform(key, x.shape) - 0.5)

    def loss(params, key, batch):
        key_loss, key_drop, key_label, key_bin = jax.random.split(key, 4)
        cond = condition(batch, labels, "source")
        if labels:
            dropped = jax.random.uniform(key_label, cond["label"].shape) < c.label_dropout
            cond["label"] = jnp.where(dropped, spec.num_classes, cond["label"])
        predict = predictor(params, train=True, rngs={"dropout": key_drop})
        return train_loss(predict, key_loss, prepared(key_bin, batch["x"]), cond)

    start, update = from_loss(
        start_network,
        loss,
        optimizer(config.optimizer, config.train.steps),
        config.optimizer.ema,
        accumulation(config),
    )

    def evaluate(state: State, key: Key, batch: Mapping[str, Any]) -> dict[str, Array]:
        key_bin, key = jax.random.split(key)
        x, cond = prepared(key_bin, batch["x"]), condition(batch, labels, "source")
        return judge(predictor(state.ema), key, x, cond)

    def sample(state: State, key: Key, n: int, cond=None, **kwargs) -> Samples:
        out = draw(predictor(state.ema), key, n, cond, **kwargs)
        film = out.trajectory
        return out._replace(
            x=world.decode(out.x), trajectory=film if film is None else world.decode(film)
        )

    def speed(state: State, x: Array, t: Array) -> Array:
        assert world.path.velocity is not None
        return jax.vmap(world.path.velocity)(predictor(state.ema)(x, t, None), x, t)

    plain = world.interpolant is not None and not world.width
    check = partial(product.check, world.path.space)
    return Method(start, update, evaluate, sample, check, speed if plain else None)


def _check_numbers(config: Config) -> None:
    """Raises `UserError` for what is wrong even where another choice does not use it."""
    c = config.loss
    lookup(mixture.GAPS, c.weighting, "config.loss.weighting")
    if not 0 < c.share <= 1:
        raise UserError(f"config.loss.share={c.share} must lie in (0, 1]")
    if not config.sample.noise >= 0:
        raise UserError(f"config.sample.noise={config.sample.noise} must be 0 or more")


def _check_coupling(config: Config, labels: bool) -> None:
    """Raises `UserError` where transport would change what samples start from, or the source."""
    name, group = config.coupling.name, config.coupling.group
    rows = config.train.batch_size // config.train.accumulate
    if group and rows % group:
        raise UserError(
            f"config.coupling.group={group} must divide the {rows} examples that an update takes at"
            " once, config.train.batch_size / config.train.accumulate"
        )
    moved = name in ("exact", "sinkhorn")
    if moved and labels:
        raise UserError(
            f"config.coupling.name={name!r} pairs whatever the labels, so that those of one label"
            " would not come from the source; valid with config.labels=True: independent"
        )
    if moved and config.sample.name == "corrected" and config.path.name == "uniform":
        raise UserError(
            "config.sample.name='corrected' redraws sites from a source independent of the data;"
            f" config.coupling.name={name!r} is not; valid: independent"
        )


def build_network(config: Config, spec: DataSpec, world: World) -> tuple[Callable, Callable]:
    """(init (key) -> params, predictor (params, **kwargs) -> `Predict`)."""
    path, spec = world.path, spec if config.labels else spec._replace(num_classes=0)
    x = jax.vmap(path.base.sample)(jax.random.split(jax.random.key(0), 1))
    twice = config.loss.objective == "mean"
    if world.discrete is not None:
        network = networks.build(config.network, spec, world.discrete.num_states)
        into, out_of = (lambda x: x), (lambda out: out)
    elif isinstance(path.space, Mapping) or (world.interpolant is None):
        # Features of a state, whatever it is, to all numbers of the output.
        shapes = jax.tree.map(jnp.zeros, path.output, is_leaf=lambda s: isinstance(s, tuple))
        flat, unravel = ravel_pytree(shapes)
        if config.network.name != "mlp":
            raise UserError(
                f"config.network.name={config.network.name!r} is not for kind {spec.kind!r};"
                " valid: mlp"
            )
        own = {k: config.network[k] for k in field.SETTINGS if k in config.network}
        network = field.build(own, flat.size, spec.num_classes)
        into, out_of = partial(product.embed, path.space), jax.vmap(unravel)
    else:
        two = path.output != spec.shape
        network = continuous.build(config.network, spec, 2 if two else 1)
        # The two numbers of an entry side by side along its last axis.
        join = lambda out: jnp.concatenate([out[..., 0], out[..., 1]], -1)
        into, out_of = (lambda x: x), (join if two else lambda out: out)

    def seen(t, cond):
        """The times and the conditions as the network gets them; the second time as context."""
        cond = dict(cond or {})
        if not twice:
            return t, cond
        span = t - cond.pop("until", t)
        return CALM * t, {**cond, "context": embeddings.time_features(span, 32, 1.0, 30.0)}

    def init(key):
        return network.init(key, into(x), *seen(jnp.ones(1), None))

    def predictor(params, **kwargs) -> Predict:
        def predict(x, t, cond):
            t, cond = seen(t, cond)
            return out_of(network.apply(params, into(x), t, cond, **kwargs))

        return predict

    return init, predictor


def _loss(config: Config, world: World, couple: couplings.Coupling) -> Callable:
    c = config.loss
    spread = lookup(SPREADS, c.spread, "config.loss.spread")
    times = lookup(losses.TIMES, c.times, "config.loss.times")(c.t_min, c.t_max, spread)
    table = {
        "flow": lambda: losses.matching(world.path, times, couple),
        "mean": lambda: meanflow.mean_flow(world.path, times, couple, c.share, c.power),
    }
    make = lookup(table, c.objective, "config.loss.objective")
    simple = world.interpolant is not None and world.interpolant.gamma is None
    if c.objective == "mean" and not (simple and c.head == "velocity"):
        raise UserError(
            "config.loss.objective='mean' is for paths on R^d without gamma, such as linear, and"
            " config.loss.head='velocity'"
        )
    return make()


def evaluator(config: Config, spec: DataSpec, world: World, couple: couplings.Coupling) -> Callable:
    """(predict, key, x0, cond) -> {"nats", ...} [B], by `config.evaluate.likelihood`.

    `flow`: -log p(x0) by the flow, of levels with the width of a bin taken off and a site; `elbo`:
    the bound of a discrete flow, nats a site; `loss`: the training loss.
    """
    e = config.evaluate
    table = {"flow": _flow, "elbo": _bound, "loss": _plain}
    make = lookup(table, e.likelihood, "config.evaluate.likelihood")
    wanted = "elbo" if world.discrete is not None else "flow" if world.width else e.likelihood
    if e.likelihood != wanted:
        raise UserError(
            f"config.evaluate.likelihood={e.likelihood!r}: bits of config.path.name="
            f"{config.path.name!r} come by {wanted!r}"
        )
    return make(config, spec, world, couple)


def _flow(config: Config, spec: DataSpec, world: World, couple: couplings.Coupling) -> Callable:
    path, c, e = world.path, config.loss, config.evaluate
    velocity = path.velocity
    if velocity is None:
        raise UserError(
            f"config.evaluate.likelihood='flow': kind {spec.kind!r} has parts that jump and no"
            " density by a flow; valid: loss"
        )
    steps = positive(e, "evaluate.steps")
    # Other heads are turned into the velocity by what may vanish at t = 0.
    last = world.last if c.head == "velocity" else c.t_min
    times = jnp.linspace(c.t_max, last, steps + 1)
    base = _log_base(world, c.t_max)
    run = flow.along(path.space, velocity, base, times, e.probes, e.probe)
    size = float(np.prod(spec.shape)) if world.width else 1.0
    level = float(np.log(world.width)) if world.width else 0.0

    def judge(predict, key, x, cond):
        if "source" in (cond or {}):
            raise UserError(
                "config.evaluate.likelihood='flow': a source of data has no density; valid: loss"
            )
        return {"nats": -run(predict, key, x, cond) / size - level}

    return judge


def _log_base(world: World, t: float) -> Callable[[PyTree], Array]:
    """log of the density that samples start from: with gamma N(0, beta^2 + gamma^2)."""
    f, log_prob = world.interpolant, world.path.base.log_prob
    if f is None or f.gamma is None:
        return log_prob
    width = jnp.sqrt(f.beta(jnp.asarray(t)) ** 2 + f.gamma(jnp.asarray(t)) ** 2)
    return lambda x: log_prob(x / width) - x.size * jnp.log(width)


def _bound(config: Config, spec: DataSpec, world: World, couple: couplings.Coupling) -> Callable:
    if world.discrete is None:
        raise UserError("config.evaluate.likelihood='elbo' is for discrete data; valid: flow, loss")
    if not config.loss.t_min:
        raise UserError("config.loss.t_min=0.0: the bound of jumps needs more, such as 0.001")
    number = positive(config.evaluate, "evaluate.times")
    return losses.bound(world.discrete, spec.shape, config.loss.t_min, number)


def _plain(config: Config, spec: DataSpec, world: World, couple: couplings.Coupling) -> Callable:
    number = positive(config.evaluate, "evaluate.times")
    c = config.loss
    loss = losses.matching(world.path, losses.uniform(c.t_min, c.t_max), couple)

    def judge(predict, key, x, cond):
        keys = jax.random.split(key, number)
        draw = lambda kj: loss(predict, kj[0], x, cond, (kj[1], number))[0]
        values = jax.lax.map(draw, (keys, jnp.arange(number)))
        return {"nats": jnp.mean(values, 0)}

    return judge


# Time grids of the samplers, shares of the way from t_max to t_min.
GRIDS: dict[str, Callable[[Array], Array]] = {
    "uniform": lambda u: u,
    "cosine": lambda u: 0.5 * (1 - jnp.cos(jnp.pi * u)),  # small steps at both ends
}


def sampler(config: Config, spec: DataSpec, world: World) -> Callable[..., Samples]:
    """The sampler of `config.sample`.

    Returns:
        (predict, key, n, cond, *, trajectory=0, place=None) -> `Samples`. `cond` may hold
        label [n] and source [n, *S]; `place` lays the batch out over devices.
    """
    c, scale = config.sample, config.sample.guidance
    steps = positive(c, "sample.steps")
    for name in ("num_samples", "batch_size"):
        positive(c, f"sample.{name}")
    if scale != 1.0 and config.loss.objective == "mean":
        raise UserError(
            f"config.sample.guidance={scale}: an average velocity cannot be guided afterwards;"
            " valid: 1"
        )
    path, m = world.path, world.discrete
    by_rates = lookup({"posterior": False, "rates": True}, c.guide, "config.sample.guide")
    if by_rates:
        if m is None:
            raise UserError("config.sample.guide='rates' is for discrete data; valid: posterior")
        if c.rescale:
            raise UserError(
                f"config.sample.rescale={c.rescale}: log rates have no level that could stay;"
                " valid with config.sample.guide='rates': 0"
            )
        rates = flow_worlds.jumps(config, spec.num_values, config.path.name, unnormalised=True)
        path = mixture.path(rates, spec.shape, config.loss.weighting)
    guide = guided(config, spec, m is not None)
    stepper = _stepper(config, path, rates if by_rates else m)
    completion.check(config)
    last = world.last
    share = lookup(GRIDS, c.grid, "config.sample.grid")(jnp.linspace(0, 1, steps + 1))
    times = (config.loss.t_max + (last - config.loss.t_max) * share).at[-1].set(last)
    low = 0.0 if m is not None and m.num_states > m.num_values else config.loss.t_min
    if c.name == "exact" and m is not None and not low and m.num_states == m.num_values:
        raise UserError("config.loss.t_min=0.0: exact jumps of uniform sites need more, as 0.001")

    def draw(predict, key, n, cond=None, *, trajectory=0, place=None) -> Samples:
        key_base, key_start, key_run, key_last = jax.random.split(key, 4)
        cond = dict(cond or {})
        if "source" in cond:
            if c.name == "sde" and world.interpolant and world.interpolant.gamma is None:
                raise UserError(
                    "config.sample.name='sde' from a source of data needs a path with gamma, such"
                    f" as bridge; config.path.name={config.path.name!r} has none; valid: euler,"
                    " midpoint"
                )
            x1 = cond["source"]
        elif config.coupling.name == "paired":
            raise UserError(
                f"config.coupling.name='paired' needs data with a source; those of"
                f" config.data.name={config.data.name!r} have none; valid: independent"
            )
        else:
            x1 = jax.vmap(path.base.sample)(jax.random.split(key_base, n))
        keys = jax.random.split(key_start, n)
        x = jax.vmap(path.start, (0, 0, None))(keys, x1, times[0])
        x = jax.tree.map(place, x) if place else x
        if by_rates:
            predict = _log_posteriors(predict, m)
        predict, passes = guide(predict)
        # Outermost: guidance by labels doubles the batch, and what is given has one size.
        predict, project, cond = completion.flow(config, world, predict, cond, x1)
        if stepper is not None:
            out = driver.reverse(
                stepper, predict, key_run, x, times, cond, project=project, trajectory=trajectory
            )
            return out._replace(nfe=passes * out.nfe)
        if project:
            raise UserError("config.sample.name='exact' completes nothing; valid: euler, corrected")
        assert m is not None
        x, count = steppers.exact(m, predict, key_run, x, low, cond)
        if low:
            x = steppers.classes(m)(predict, key_last, x, jnp.full(n, low), cond)
        return Samples(x, passes * (count + bool(low)), times)

    return draw


def _log_posteriors(predict: Predict, m: mixture.Mixture | None) -> Predict:
    """A network whose logits are normalised, so that guidance mixes rates."""
    assert m is not None
    read = jax.vmap(m.read)
    return lambda x, t, cond: read(predict(x, t, cond), x, t)


def _stepper(config: Config, path: Path, m: mixture.Mixture | None):
    """The stepper of `config.sample`, or None for exact jumps."""
    c = config.sample

    def corrected(path: Path):
        if m is None:
            raise UserError("config.sample.name='corrected' is for discrete data; valid: euler")
        return steppers.corrected(path, m, c.corrector.steps, c.corrector.size)

    table: dict[str, Callable] = {
        **steppers.STEPPERS,
        "sde": lambda path: steppers.sde(path, c.noise),
        "mean": steppers.mean,
        "corrected": corrected,
        "exact": lambda path: None,
    }
    make = lookup(table, c.name, "config.sample.name")
    if c.name == "mean" and config.loss.objective != "mean":
        raise UserError("config.sample.name='mean' needs config.loss.objective='mean'")
    if c.name == "sde" and m is not None:
        raise UserError("config.sample.name='sde' is for numbers; valid: euler, corrected, exact")
    if c.name == "exact" and m is None:
        raise UserError("config.sample.name='exact' is for discrete data; valid: euler")
    if c.name == "exact" and c.guide == "rates":
        raise UserError("config.sample.name='exact' needs config.sample.guide='posterior'")
    return make(path)
