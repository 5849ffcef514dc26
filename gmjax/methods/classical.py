"""PCA, probabilistic PCA, Gaussian mixtures and autoencoders as methods.

`build(config, spec)` reads the sections model, network, loss, optimizer, evaluate and sample.

    pca, ppca    an update adds the moments of its batch and solves anew: one epoch is exact
    gmm          an update is one EM step on its batch, all the data where batch_size says so;
                 `model.stepwise` > 0 makes it online EM with rates (step + 1)^-stepwise
    autoencoder  an update is one step of the optimiser on the squared error; a Gaussian follows
                 the codes, and a variance the residuals, with which the decoder is a density

Discrete data of S levels are read as level / (S - 1), known up to noise u that is uniform in a
cell of width 1 / (S - 1). With log P(level) >= E_u log p(x + u) - D log(S - 1), a density p gives a
bound on the probability of the levels. Where log p is a sum of squares the mean over u is known,
and neither the fit nor the bound draws u; only autoencoders do, once an example.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.classical import gmm, laplace, moments, pca
from gmjax.classical.covariances import FAMILIES
from gmjax.methods import codes, combinators
from gmjax.methods.settings import accumulation, positive
from gmjax.networks import autoencoder
from gmjax.types import Array, DataSpec, Key, Method, Samples, UserError, lookup

Config = Any
KINDS = ("image", "vector", "euclidean")
MEMORY = 0.98  # of the codes' moments, a step


class Units(NamedTuple):
    """How data become real vectors, and densities what is reported."""

    size: int  # D
    width: float  # of a cell; 0 for data that are not rounded
    read: Callable[[Array], Array]  # x [B, *S] -> [B, D] float32
    write: Callable[[Array], Array]  # [n, D] -> x [n, *S]
    nats: Callable[[Array], Array]  # log p -> nats a site of discrete data, an example of others

    @property
    def jitter(self) -> float:
        """The variance of the rounding."""
        return self.width**2 / 12


class Linear(NamedTuple):
    """PCA's state."""

    step: Array
    moments: moments.Moments
    params: pca.Params


class Mixture(NamedTuple):
    """The state of R runs of EM."""

    step: Array
    params: gmm.Params  # [R, ...]
    score: Array  # [R], mean log-likelihood of late


class Coder(NamedTuple):
    """An autoencoder's state."""

    step: Array
    fit: combinators.State
    codes: moments.Moments  # of late
    residual: Array  # [], the mean squared residual of late


def build(config: Config, spec: DataSpec) -> Method:
    """The method of a configuration for data of `spec`.

    Args:
        config: a ConfigDict as in `configs/classical.py`.
        spec: what the data look like.

    Raises:
        UserError: a name that is in no table, a value that is not valid, or data of a kind that
            is not made of numbers.
    """
    make = lookup(MODELS, config.model.name, "config.model.name")
    for name in ("num_samples", "batch_size"):
        positive(config.sample, f"sample.{name}")
    if config.labels:
        raise UserError("config.labels=True: these models have no classes; valid: False")
    return make(config, units(spec, config.data.name))


def units(spec: DataSpec, name: str) -> Units:
    """How data of `spec` are read.

    Args:
        spec: of images, vectors of levels, or real vectors.
        name: of the data, for the message.
    """
    if spec.kind not in KINDS or (spec.num_values > 2 and not spec.ordinal):
        raise UserError(
            f"config.data.name={name!r} has unordered or non-euclidean values; valid: images,"
            f" ordinal vectors and data of kind euclidean"
        )
    d = math.prod(spec.shape)
    flat = lambda x: x.reshape(len(x), d).astype(jnp.float32)
    if not spec.num_values:
        return Units(d, 0.0, flat, lambda x: x.reshape(-1, *spec.shape), lambda p: -p)
    top = max(spec.num_values - 1, 1)

    def write(x):
        return jnp.clip(jnp.round(x * top), 0, top).astype(jnp.int32).reshape(-1, *spec.shape)

    return Units(d, 1 / top, lambda x: flat(x) / top, write, lambda p: math.log(top) - p / d)


def linear(config: Config, of: Units) -> Method:
    """PCA and probabilistic PCA: one density, drawn from without or with its noise."""
    q = moments.rank(config.model.components, of.size - 1, "config.model.components")

    def fit(total: moments.Moments) -> pca.Params:
        # The noise of rounding adds its variance to every eigenvalue.
        params = pca.from_moments(total, q)
        return params._replace(
            variances=params.variances + of.jitter, noise=params.noise + of.jitter
        )

    def init(key: Key) -> Linear:
        total = moments.empty(of.size)
        return Linear(jnp.zeros((), jnp.int32), total, fit(total))

    def update(state: Linear, key: Key, batch: Mapping[str, Array]):
        x = of.read(batch["x"])
        total = moments.merge(state.moments, moments.moments(x))
        params = fit(total)
        loss = of.nats(pca.log_likelihood(params, x, of.jitter)).mean()
        return Linear(state.step + 1, total, params), {"loss": loss, "noise": params.noise}

    def evaluate(state: Linear, key: Key, batch: Mapping[str, Array]) -> dict[str, Array]:
        x = of.read(batch["x"])
        rest = x - pca.decode(state.params, pca.encode(state.params, x))
        nats = of.nats(pca.log_likelihood(state.params, x, of.jitter))
        return {"nats": nats, "mse": jnp.mean(rest**2, 1)}

    def sample(state: Linear, key: Key, n: int, cond=None, **kwargs) -> Samples:
        x = pca.sample(key, state.params, n, bool(config.sample.noise))
        return Samples(of.write(x), jnp.zeros((), jnp.int32))

    def views(state: Linear, key: Key, batch: Mapping[str, Array]) -> dict[str, Array]:
        p, z = state.params, pca.encode(state.params, of.read(batch["x"]))
        decode = lambda z, label: of.write(pca.decode(p, z))
        return codes.views(z, decode, jnp.arange(q), jnp.zeros(q), jnp.sqrt(p.variances))

    return Method(init, update, evaluate, sample, finite, views=views)


def mixture(config: Config, of: Units) -> Method:
    """A Gaussian mixture; the best of `model.restarts` runs is evaluated and sampled."""
    c = config.model
    lookup(FAMILIES, c.covariance, "config.model.covariance")
    for name in ("components", "restarts"):
        positive(c, f"model.{name}")
    if c.components > config.train.batch_size:
        raise UserError(
            f"config.model.components={c.components} needs as many examples in a batch;"
            f" config.train.batch_size={config.train.batch_size}"
        )
    if c.stepwise and not 0.5 < c.stepwise <= 1:
        raise UserError(f"config.model.stepwise={c.stepwise}; valid: 0 (full steps) or in (0.5, 1]")
    for name in ("floor", "lloyd"):
        if c[name] < 0:
            raise UserError(f"config.model.{name}={c[name]} must not be negative")
    start = partial(
        gmm.start, components=c.components, covariance=c.covariance, floor=c.floor,
        jitter=of.jitter, lloyd=c.lloyd,
    )  # fmt: skip

    def init(key: Key) -> Mixture:
        x = jax.ShapeDtypeStruct((c.components, of.size), jnp.float32)
        keys = jax.random.split(key, c.restarts)
        shapes = jax.eval_shape(lambda k, x: jax.vmap(lambda k: start(k, x))(k), keys, x)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return Mixture(jnp.zeros((), jnp.int32), zeros, jnp.zeros(c.restarts))

    def update(state: Mixture, key: Key, batch: Mapping[str, Array]):
        x = of.read(batch["x"])
        keys = jax.random.split(key, c.restarts)
        begin = lambda: jax.vmap(lambda k: start(k, x))(keys)
        params = jax.lax.cond(state.step == 0, begin, lambda: state.params)
        rate = (state.step + 1.0) ** -c.stepwise

        def one(params, score):
            new, loglik = gmm.step(params, x, c.covariance, c.floor, of.jitter)
            if c.stepwise:
                new = gmm.mix(params, new, rate, c.covariance)
            return new, score + rate * (loglik - score)

        params, score = jax.vmap(one)(params, state.score)
        return Mixture(state.step + 1, params, score), {"loss": of.nats(score.max())}

    def best(state: Mixture) -> gmm.Params:
        return jax.tree.map(lambda a: a[jnp.argmax(state.score)], state.params)

    def evaluate(state: Mixture, key: Key, batch: Mapping[str, Array]) -> dict[str, Array]:
        x = of.read(batch["x"])
        return {"nats": of.nats(gmm.log_likelihood(best(state), x, c.covariance, of.jitter))}

    def sample(state: Mixture, key: Key, n: int, cond=None, **kwargs) -> Samples:
        x = gmm.sample(key, best(state), n, c.covariance)
        return Samples(of.write(x), jnp.zeros((), jnp.int32))

    return Method(init, update, evaluate, sample, finite)


def coder(config: Config, of: Units) -> Method:
    """An autoencoder, linear where `network.hidden` is empty.

    As a density it is p(x) = int N(z; m, C) N(x; g(z), s^2 I) dz with the moments m and C of the
    codes and s^2 = D / (D - q) times the mean squared residual, as in probabilistic PCA.
    """
    network = autoencoder.build(config.network, of.size)
    q = moments.rank(network.latent, of.size - 1, "config.network.latent")
    draws, blur = positive(config.evaluate, "evaluate.times"), config.loss.noise
    if blur < 0:
        raise UserError(f"config.loss.noise={blur} must not be negative")

    def call(params, x: Array, f: str) -> Any:
        return network.apply(params, x, method=f)

    def loss(params, key, batch):
        x = of.read(batch["x"])
        seen = x + blur * jax.random.normal(key, x.shape) if blur else x
        return jnp.mean((call(params, seen, "__call__") - x) ** 2, 1), {}

    start, step = combinators.from_loss(
        lambda key: network.init(key, jnp.zeros((1, of.size))),
        loss,
        combinators.optimizer(config.optimizer, config.train.steps),
        config.optimizer.ema,
        accumulation(config),
    )

    def init(key: Key) -> Coder:
        fit = start(key)
        return Coder(jnp.zeros((), jnp.int32), fit, moments.empty(q), jnp.zeros(()))

    def update(state: Coder, key: Key, batch: Mapping[str, Array]):
        fit, metrics = step(state.fit, key, batch)
        x = of.read(batch["x"])
        z = call(fit.ema, x, "encode")
        error = jnp.mean((call(fit.ema, z, "decode") - x) ** 2)
        old = state.codes
        old = old._replace(number=MEMORY * old.number, scatter=MEMORY * old.scatter)
        recent = moments.merge(old, moments.moments(z))
        residual = state.residual + len(x) / recent.number * (error - state.residual)
        return Coder(state.step + 1, fit, recent, residual), metrics

    def variance(state: Coder) -> Array:
        return jnp.maximum(state.residual, 1e-12) * of.size / (of.size - q) + of.jitter

    def evaluate(state: Coder, key: Key, batch: Mapping[str, Array]) -> dict[str, Array]:
        x, params = of.read(batch["x"]), state.fit.ema
        key_cell, key_draws = jax.random.split(key)
        y = x + of.width * (jax.random.uniform(key_cell, x.shape) - 0.5)
        decode = lambda z: call(params, z[None], "decode")[0]
        m, c, s2 = state.codes.mean, moments.covariance(state.codes), variance(state)
        one = lambda k, x, z: laplace.log_likelihood(k, x, z, decode, m, c, s2, draws)
        loglik = jax.vmap(one)(jax.random.split(key_draws, len(x)), y, call(params, y, "encode"))
        rest = x - call(params, x, "__call__")
        return {"nats": of.nats(loglik), "mse": jnp.mean(rest**2, 1)}

    def sample(state: Coder, key: Key, n: int, cond=None, **kwargs) -> Samples:
        key_code, key_noise = jax.random.split(key)
        single = gmm.Params(
            jnp.ones(1), state.codes.mean[None], moments.covariance(state.codes)[None]
        )
        x = call(state.fit.ema, gmm.sample(key_code, single, n), "decode")
        if config.sample.noise:
            x += jnp.sqrt(variance(state)) * jax.random.normal(key_noise, x.shape)
        return Samples(of.write(x), jnp.ones((), jnp.int32))

    def views(state: Coder, key: Key, batch: Mapping[str, Array]) -> dict[str, Array]:
        z = call(state.fit.ema, of.read(batch["x"]), "encode")
        decode = lambda z, label: of.write(call(state.fit.ema, z, "decode"))
        std = jnp.sqrt(jnp.diag(moments.covariance(state.codes)))
        return codes.views(z, decode, jnp.arange(q), state.codes.mean, std)

    return Method(init, update, evaluate, sample, finite, views=views)


def finite(x: Any) -> str:
    """What is wrong with data x [N, *S]: numbers that are not."""
    return "" if np.isfinite(x).all() else "values that are not finite; valid: real numbers"


MODELS: dict[str, Callable[[Config, Units], Method]] = {
    "pca": linear,
    "ppca": linear,
    "gmm": mixture,
    "autoencoder": coder,
}
