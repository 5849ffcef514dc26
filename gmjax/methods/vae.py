"""Variational autoencoders: one Gaussian code an example, trained by a bound on log p(x).

`build(config, spec)` reads the sections model, network, bound, optimizer, evaluate and sample.

    bound.particles = 1    the ELBO, whose KL is known in closed form (`kl` analytic) or drawn
    bound.particles = N    the VR-IWAE bound of order alpha, alpha = 0 being the IWAE

Discrete data are judged in nats a site, others in nats an example, by importance sampling with
`evaluate.times` draws. With `model.binarise` a grey level is the chance of a 1, drawn anew in
every batch; bits are then those of the drawn pixels and samples their means, as grey levels.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.likelihoods import importance, observations
from gmjax.losses import variational
from gmjax.methods import codes
from gmjax.methods.combinators import State, from_loss, optimizer
from gmjax.methods.settings import accumulation, condition, positive, weight
from gmjax.networks import vae
from gmjax.types import Array, DataSpec, Key, Method, PyTree, Samples, UserError, lookup

Config = Any
KINDS = ("image", "vector", "sequence", "euclidean")
KL = ("analytic", "sampled")


class Model(NamedTuple):
    """A decoder p(x | z), an encoder q(z | x), and the prior N(0, I)."""

    latent: int  # L
    init: Callable[[Key], PyTree]
    read: Callable[[Key, Array], Array]  # (key, x of the data) -> x of the model, [B, *S]
    encode: Callable[..., variational.Gaussian]  # (params, x, label) -> [B, L]
    decode: Callable[..., Array]  # (params, z [B, L], label) -> raw [B, *S, channels]
    law: observations.Observation  # of an entry, given raw
    write: Callable[[Array], Array]  # means or draws of the law -> x of the data
    show: Callable[[Key, Array], Array]  # raw -> x of the data: means, or draws if in no order


def model(config: Config, spec: DataSpec) -> Model:
    """The model of a configuration.

    Raises:
        UserError: a name that is in no table, data that the law does not fit, or no labels.
    """
    c = config.model
    if spec.kind not in KINDS:
        raise UserError(
            f"config.data.name={config.data.name!r} is of kind {spec.kind!r}; valid kinds:"
            f" {', '.join(KINDS)}, such as config.data.name=digits"
        )
    if config.labels and not spec.num_classes:
        raise UserError(f"config.labels=True: data set {config.data.name!r} has no labels")
    top = max(spec.num_values - 1, 1)
    if c.binarise and not (spec.ordinal and top > 1):
        raise UserError("config.model.binarise=True needs data on grey levels, more than two")
    seen = spec._replace(num_values=2) if c.binarise else spec
    law = observations.build(c.likelihood, seen, "config.model.likelihood")
    unordered = seen.num_values > 2 and not seen.ordinal
    if unordered and not config.sample.noise:
        raise UserError("config.sample.noise=False: values in no order have no mean; valid: True")
    classes = spec.num_classes if config.labels else 0
    network = vae.build(config.network, spec.shape, law.channels, classes)
    unit = max(seen.num_values - 1, 1)

    def enter(x):
        # Levels on [0, 1]: paper is silent. On [-1, 1] it moves every unit at every step.
        return jax.nn.one_hot(x, seen.num_values) if unordered else x / unit

    def init(key):
        label = jnp.zeros(1, jnp.int32) if classes else None
        return network.init(key, enter(jnp.zeros((1, *spec.shape))), label)

    def read(key, x):
        return jax.random.bernoulli(key, x / top).astype(jnp.int32) if c.binarise else x

    def encode(params, x, label=None):
        return variational.Gaussian(*network.apply(params, enter(x), label, method="encode"))

    def decode(params, z, label=None):
        return network.apply(params, z, label, method="decode")

    def write(x):
        if not spec.num_values:
            return x
        x = x * top if c.binarise else x
        return jnp.clip(jnp.round(x), 0, top).astype(jnp.int32)

    def show(key, raw):
        return write(law.sample(key, raw) if unordered else law.mean(raw))

    return Model(network.latent, init, read, encode, decode, law, write, show)


def log_likelihood(m: Model, params: PyTree, x: Array, z: Array, label: Array | None) -> Array:
    """log p(x | z): x [B, *S], z [K, B, L], label [B] -> [K, B] nats."""
    k = len(z)
    labels = None if label is None else jnp.tile(label, k)
    raw = m.decode(params, z.reshape(k * len(x), -1), labels)
    raw = raw.reshape(k, *x.shape, -1)
    values = m.law.log_prob(jnp.broadcast_to(x, raw.shape[:-1]), raw)
    return jnp.sum(values, tuple(range(2, values.ndim)))


def build(config: Config, spec: DataSpec) -> Method:
    """The method of a configuration for data of `spec`.

    Args:
        config: a ConfigDict as in `configs/vae.py`.
        spec: what the data look like.

    Raises:
        UserError: a name that is in no table, or a value that is not valid.
    """
    m, value = model(config, spec), _bound(config)
    unit = prod(spec.shape) if spec.num_values else 1
    e, s = config.evaluate, config.sample
    for section, name in ((s, "sample.num_samples"), (s, "sample.batch_size")):
        positive(section, name)
    draws, chunk = e.times, min(positive(e, "evaluate.chunk"), e.times)
    if draws < 2:
        raise UserError(f"config.evaluate.times={draws} must be at least 2")

    def told(batch):
        return condition(batch, bool(config.labels)).get("label")

    def loss(params, key, batch):
        key_read, key_draw = jax.random.split(key)
        x, label = m.read(key_read, batch["x"]), told(batch)
        q = m.encode(params, x, label)
        log_lik = lambda z: log_likelihood(m, params, x, z, label)
        values, parts = value(key_draw, q, log_lik)
        scaled = {name: part / unit for name, part in parts.items() if name != "ess"}
        return -values / unit, {**parts, **scaled}

    begin, update = from_loss(
        m.init,
        loss,
        optimizer(config.optimizer, config.train.steps),
        config.optimizer.ema,
        accumulation(config),
    )

    def evaluate(state: State, key: Key, batch: Mapping[str, Any]) -> dict[str, Array]:
        key_read, key_draws = jax.random.split(key)
        x, label = m.read(key_read, batch["x"]), told(batch)
        q = m.encode(state.ema, x, label)

        def draw(key):
            noise = jax.random.normal(key, (chunk, *q.mean.shape))
            log_w, log_lik = log_weights(m, state.ema, x, q, noise, label)
            return log_w, {"log_lik": log_lik}

        found = importance.estimate(draw, key_draws, draws, chunk)
        kl, missed = variational.kl(q).sum(-1), -found.parts["log_lik"]
        return {
            "nats": -found.log_mean / unit,
            "nll": -found.log_mean,
            "elbo": missed + kl,
            "reconstruction": missed / unit,
            "kl": kl / unit,
            "monte_carlo_error": found.error / unit,
            "ess": found.effective,
        }

    def sample(state: State, key: Key, n: int, cond=None, *, place=None, **kwargs) -> Samples:
        key_code, key_entries = jax.random.split(key)
        z = jax.random.normal(key_code, (n, m.latent))
        raw = m.decode(state.ema, place(z) if place else z, told(cond or {}))
        x = m.law.sample(key_entries, raw) if s.noise else m.law.mean(raw)
        return Samples(m.write(x), jnp.ones((), jnp.int32))

    def views(state: State, key: Key, batch: Mapping[str, Any]) -> dict[str, Array]:
        key_read, key_draw, key_show = jax.random.split(key, 3)
        params, label = state.ema, told(batch)
        x = m.read(key_read, batch["x"])
        q = m.encode(params, x, label)
        show = lambda z, label: m.show(key_show, m.decode(params, z, label))
        order, zero = jnp.argsort(-variational.kl(q).mean(0)), jnp.zeros(m.latent)
        found = codes.views(q.mean, show, order, zero, jnp.ones(m.latent), label)
        particles = config.bound.particles
        if particles > 1:
            noise = jax.random.normal(key_draw, (particles, *q.mean.shape))
            found["log_weights"] = log_weights(m, params, x, q, noise, label)[0]
        return found

    return Method(begin, update, evaluate, sample, finite, views=views)


def log_weights(
    m: Model,
    params: PyTree,
    x: Array,
    q: variational.Gaussian,
    noise: Array,
    label: Array | None = None,
) -> tuple[Array, Array]:
    """log p(x, z) / q(z | x) and log p(x | z) at z = mean + std noise [K, B, L]: [K, B] nats."""
    z = variational.draw(q, noise)
    log_lik = log_likelihood(m, params, x, z, label)
    return log_lik + variational.standard(z) - variational.log_prob(q, z), log_lik


def _bound(config: Config) -> Callable:
    """(key, q, z -> log p(x | z)) -> the bound [B] and its parts [B], nats an example."""
    c = config.bound
    particles = positive(c, "bound.particles")
    if not 0 <= c.alpha < 1:
        raise UserError(f"config.bound.alpha={c.alpha} must lie in [0, 1)")
    for name in ("beta", "free_bits"):
        weight(c[name], f"config.bound.{name}")
    held = lookup(variational.GRADIENTS, c.gradient, "config.bound.gradient")
    lookup(dict.fromkeys(KL), c.kl, "config.bound.kl")
    analytic = c.kl == "analytic"
    if analytic and (particles > 1 or c.gradient != "rep"):
        raise UserError(
            f"config.bound.kl='analytic' needs config.bound.particles=1 and gradient='rep', and"
            f" these are {particles} and {c.gradient!r}; give config.bound.kl='sampled'"
        )
    if c.free_bits and not analytic:
        raise UserError(f"config.bound.free_bits={c.free_bits} needs config.bound.kl='analytic'")

    def value(key, q, log_likelihood):
        z = variational.draw(q, jax.random.normal(key, (particles, *q.mean.shape)))
        kl = variational.kl(q)
        if analytic:
            log_lik = log_likelihood(z)
            cost = variational.free_bits(kl, c.free_bits) if c.free_bits else kl.sum(-1)
            return log_lik[0] - c.beta * cost, {"reconstruction": -log_lik[0], "kl": kl.sum(-1)}
        z, q, mark = held(z, q, c.alpha)
        log_lik = log_likelihood(z)
        log_w = log_lik + c.beta * (variational.standard(z) - variational.log_prob(q, z)) + mark
        parts = {
            "reconstruction": -log_lik.mean(0),
            "kl": kl.sum(-1),
            "ess": variational.effective_size(log_w, c.alpha),
        }
        return variational.bound(log_w, c.alpha), parts

    return value


def finite(x: Any) -> str:
    """What is wrong with data x [N, *S]: numbers that are not."""
    return "" if np.isfinite(x).all() else "values that are not finite; valid: real numbers"
