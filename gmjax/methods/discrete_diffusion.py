"""Continuous-time discrete diffusion: where process, loss, network and sampler meet.

`build(config, spec)` reads the sections process, loss, network, optimizer, evaluate and sample
of a configuration and returns a `Method`; every name in them is looked up in its room's table.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmjax import networks
from gmjax.likelihoods.elbo import discrete_elbo
from gmjax.losses import discrete, times
from gmjax.methods.combinators import State, from_loss, optimizer
from gmjax.methods.settings import (
    accumulation,
    call,
    condition,
    guided,
    inside,
    labelled,
    positive,
    weight,
)
from gmjax.processes import chains, ctmc
from gmjax.processes.schedules import SCHEDULES
from gmjax.samplers import discrete as steppers
from gmjax.samplers import driver, exact, grids
from gmjax.types import Array, DataSpec, Key, Method, Predict, Samples, UserError, lookup

Config = Any


def build(config: Config, spec: DataSpec) -> Method:
    """The method of a configuration for data of `spec`.

    Args:
        config: a ConfigDict as in `configs/discrete_diffusion.py`.
        spec: what the data look like.

    Raises:
        UserError: a name that is in no table, or a value that is not valid.
    """
    if not spec.num_values or spec.kind == "table":
        raise UserError(
            f"config.data.name={config.data.name!r} is of kind {spec.kind!r}, and this job is for"
            " discrete data; valid for these: --config=configs/markov_diffusion.py or"
            " configs/flow_matching.py, of points of R^d configs/gaussian_diffusion.py"
        )
    noise = build_process(config.process, spec)
    parametrisation = lookup(
        ctmc.PARAMETRISATIONS, config.loss.parametrisation, "config.loss.parametrisation"
    )
    if config.loss.parametrisation == "ratio" and noise.chain.num_states > spec.num_values:
        raise UserError(
            "config.loss.parametrisation='ratio' needs an output for the mask, which the"
            " networks do not have; valid: leave_one_out, posterior"
        )
    read = parametrisation(noise)
    t_min = inside(config.loss.t_min, "config.loss.t_min")
    clock = time_sampler(config.loss, noise, t_min)
    network = networks.build(config.network, spec, noise.chain.num_states)
    labels = labelled(config, spec)
    train_loss = discrete.denoising(noise, read, loss_terms(config.loss, noise), clock)
    bound = discrete_elbo(noise, read, clock, t_min, positive(config.evaluate, "evaluate.times"))
    draw = sampler(config, noise, read, spec, t_min)
    drop = config.loss.label_dropout

    def init(key: Key):
        return network.init(key, jnp.zeros((1, *spec.shape), jnp.int32), jnp.ones(1))

    def predictor(params, **kwargs) -> Predict:
        return partial(_apply, network, params, kwargs)

    def loss(params, key, batch):
        key_loss, key_drop, key_label = jax.random.split(key, 3)
        cond = condition(batch, labels, "observed")
        if labels:
            dropped = jax.random.uniform(key_label, cond["label"].shape) < drop
            cond["label"] = jnp.where(dropped, spec.num_classes, cond["label"])
        predict = predictor(params, train=True, rngs={"dropout": key_drop})
        return train_loss(predict, key_loss, batch["x"], cond)

    start, update = from_loss(
        init,
        loss,
        optimizer(config.optimizer, config.train.steps),
        config.optimizer.ema,
        accumulation(config),
    )

    def evaluate(state: State, key: Key, batch: dict[str, Array]) -> dict[str, Array]:
        return bound(predictor(state.ema), key, batch["x"], condition(batch, labels, "observed"))

    def sample(state: State, key: Key, n: int, cond=None, **kwargs) -> Samples:
        return draw(predictor(state.ema), key, n, cond, **kwargs)

    return Method(start, update, evaluate, sample)


def build_process(config: Config, spec: DataSpec) -> ctmc.CTMC:
    """The noising process of `config.process`.

    Args:
        config: name, the chain's own keys, and schedule.{name, its keys}.
        spec: gives the number of values.
    """
    make = lookup(chains.CHAINS, config.name, "config.process.name")
    clock = {k: v for k, v in config.schedule.items() if v is not None}
    schedule = lookup(SCHEDULES, clock.pop("name"), "config.process.schedule.name")
    own = {k: v for k, v in config.items() if k not in ("name", "schedule") and v is not None}
    if config.name == "rates":
        chain = chains.rates(_matrix(own.pop("matrix", None), spec))
    else:
        chain = call(partial(make, spec.num_values), own, "config.process")
    return ctmc.CTMC(chain, call(schedule, clock, "config.process.schedule"))


def loss_terms(config: Config, noise: ctmc.CTMC) -> dict[str, float]:
    """The weighted terms of `config.loss.terms`; the chain's own bound where none is given.

    Without a mask the bound alone trains slowly, and half a cross-entropy is added.
    """
    terms = {k: weight(v, f"config.loss.terms.{k}") for k, v in config.terms.items()}
    given = {name: share for name, share in terms.items() if share}
    masked = noise.chain.num_values < noise.chain.num_states
    chosen = {"masked_elbo": 1.0} if masked else {"score_entropy": 1.0, "cross_entropy": 0.5}
    return given or chosen


def time_sampler(config: Config, noise: ctmc.CTMC, t_min: float) -> times.TimeSampler:
    """The times that `config.loss.{times, spread}` ask for."""
    spread = lookup(times.SPREADS, config.spread, "config.loss.spread")
    table = {
        "uniform": partial(times.uniform_in_t, t_min),
        "noise": partial(times.uniform_in_noise, noise.schedule, t_min),
    }
    return lookup(table, config.times, "config.loss.times")(spread)


def sampler(
    config: Config,
    noise: ctmc.CTMC,
    read: ctmc.Parametrisation,
    spec: DataSpec,
    t_min: float,
) -> Callable[..., Samples]:
    """The sampler of `config.sample`.

    Returns:
        (predict, key, n, cond, *, trajectory=0, place=None) -> `Samples`. `cond` may hold
        label [n], and observed [n, *S] bool with values [n, *S], which are clamped; `place`
        lays the batch out over devices.
    """
    c = config.sample
    steps = positive(c, "sample.steps")
    base = ctmc.base(noise, spec.shape)
    finish = lookup({"argmax": False, "sample": True}, c.finish, "config.sample.finish")
    guide = guided(config, spec, logits=True)
    for name in ("num_samples", "batch_size"):
        positive(c, f"sample.{name}")
    last = steppers.denoise(read, finish)
    name, options = c.name, {}
    table = {**steppers.STEPPERS, "exact": None}
    make = lookup(table, name, "config.sample.name")
    if name == "tau_leaping":
        options["ordinal"] = c.ordinal
    stepper = make and make(noise, read, **options)
    if c.corrector.steps and stepper is not None:
        kind = "ordinal" if options.get("ordinal") else "categorical"
        stepper = steppers.corrected(
            stepper, noise, read, steppers.JUMPS[kind], **dict(c.corrector)
        )
    lookup({**grids.GRIDS, "adaptive": None}, c.grid, "config.sample.grid")
    times = grids.build("noise" if c.grid == "adaptive" else c.grid, steps, t_min, noise.schedule)

    def draw(predict, key, n, cond=None, *, trajectory=0, place=None) -> Samples:
        key_base, key_run, key_pilot, key_last = jax.random.split(key, 4)
        x = jax.vmap(base.sample)(jax.random.split(key_base, n))
        x = place(x) if place else x
        project, cond = None, dict(cond or {})
        if "values" in cond:
            values = cond.pop("values")
            if stepper is None and not c.clean:
                raise UserError(
                    "config.sample.clean=False: config.sample.name='exact' has no steps after which"
                    " what is given could be noised anew; valid: True"
                )
            project = steppers.infill(noise, cond["observed"], values, c.clean)
            x = project(key_base, x, jnp.ones(n))
        predict, passes = guide(predict)
        if stepper is None:
            path = exact.exact(noise, read, predict, key_run, x, times, cond)
            t = jnp.full(n, t_min)
            x0 = last(predict, key_last, path.x, t, cond)
            x0 = project(key_last, x0, jnp.zeros(n)) if project else x0
            return Samples(x0, passes * (path.nfe + 1), times)
        grid, pilot = times, 0
        if c.grid == "adaptive":
            few = jax.tree.map(lambda a: a[:64], (x, cond))
            grid = steppers.adaptive_grid(
                stepper, read, predict, key_pilot, few[0], times, steps, few[1]
            )
            pilot = 2 * steps + 1
        out = driver.reverse(
            stepper,
            predict,
            key_run,
            x,
            grid,
            cond,
            finish=last,
            project=project,
            trajectory=trajectory,
        )
        return out._replace(nfe=passes * (out.nfe + pilot))

    return draw


def _apply(network, params, kwargs: Mapping[str, Any], x, t, cond) -> Any:
    return network.apply(params, x, t, cond, **kwargs)


def _matrix(given: Any, spec: DataSpec) -> np.ndarray:
    key = "config.process.matrix"
    if given is None:
        raise UserError(f"{key} is missing; give the path of a .npy file, [S, S]")
    try:
        matrix = np.load(given)
    except (OSError, ValueError, EOFError):
        raise UserError(f"{key}={given!r} cannot be read; give the path of a .npy file") from None
    matrix = chains.check_rates(matrix)
    if len(matrix) != spec.num_values:
        raise UserError(
            f"{key} is {len(matrix)} x {len(matrix)}; the data have {spec.num_values} values"
        )
    return matrix
