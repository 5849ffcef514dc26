r"""The law of one entry of x given what a decoder says of it.

    bernoulli             two values; one number, the log-odds of 1
    categorical           V values in no order; V logits
    gaussian              real numbers; a mean and a log standard deviation
    discretised_logistic  V levels in order; a mean and a log-scale, the levels being on [-1, 1]

Level k of the last is the bin of width w = 2 / (V - 1) around its number, the outer bins reaching
to infinity. With edges a < b in units of the scale and the logistic function S,

    S(b) - S(a) = S(b) S(-a) (1 - e^(a - b)),

whose factors are positive and known to full precision; S(-a) and the last are 1 in the lowest
bin, S(b) and the last in the highest. Only the bin of x is looked at (Salimans et al. 2017).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmjax.types import Array, DataSpec, Key, UserError, lookup

BOUND = 8.0  # of log-scales and log standard deviations, reached smoothly


class Observation(NamedTuple):
    """A law of entries, given raw [..., channels]."""

    channels: int  # numbers an entry
    log_prob: Callable[[Array, Array], Array]  # (x [...], raw) -> [...] nats
    mean: Callable[[Array], Array]  # raw -> [...], in units of x
    sample: Callable[[Key, Array], Array]  # (key, raw) -> x [...]


def bernoulli(num_values: int) -> Observation:
    """Values 0 and 1."""
    sigma = lambda raw: jax.nn.sigmoid(raw[..., 0])
    return Observation(
        1,
        lambda x, raw: x * raw[..., 0] - _softplus(raw[..., 0]),
        sigma,
        lambda key, raw: jax.random.bernoulli(key, sigma(raw)).astype(jnp.int32),
    )


def categorical(num_values: int) -> Observation:
    """Values 0 .. V - 1."""

    def log_prob(x, raw):
        chosen = jnp.take_along_axis(raw, x[..., None].astype(jnp.int32), -1)[..., 0]
        return chosen - jax.nn.logsumexp(raw, -1)

    return Observation(
        num_values,
        log_prob,
        lambda raw: jax.nn.softmax(raw) @ jnp.arange(num_values, dtype=raw.dtype),
        lambda key, raw: jax.random.categorical(key, raw).astype(jnp.int32),
    )


def gaussian(num_values: int) -> Observation:
    """Real numbers; log_prob is of the density."""

    def log_prob(x, raw):
        log_std = _bounded(raw[..., 1])
        gap = (x - raw[..., 0]) * jnp.exp(-log_std)
        return -0.5 * gap**2 - log_std - 0.5 * math.log(2 * math.pi)

    def sample(key, raw):
        noise = jax.random.normal(key, raw.shape[:-1], raw.dtype)
        return raw[..., 0] + jnp.exp(_bounded(raw[..., 1])) * noise

    return Observation(2, log_prob, lambda raw: raw[..., 0], sample)


def discretised_logistic(num_values: int) -> Observation:
    """Levels 0 .. V - 1."""
    top, half = num_values - 1, 1 / (num_values - 1)

    def log_prob(x, raw):
        log_scale = _bounded(raw[..., 1])
        gap, precision = 2 * half * x - 1 - raw[..., 0], jnp.exp(-log_scale)
        below = jax.nn.log_sigmoid((gap + half) * precision)
        above = jax.nn.log_sigmoid((half - gap) * precision)
        width = jnp.log(-jnp.expm1(-2 * half * precision))
        lowest, highest = x <= 0, x >= top
        inner = jnp.where(lowest | highest, 0, width)
        return jnp.where(highest, 0, below) + jnp.where(lowest, 0, above) + inner

    def mean(raw):
        # E k = sum over the edges of P(k above the edge)
        edges = (2 * jnp.arange(1, num_values) - 1) * half - 1
        gap = (raw[..., :1] - edges) * jnp.exp(-_bounded(raw[..., 1:]))
        return jnp.sum(jax.nn.sigmoid(gap), -1)

    def sample(key, raw):
        noise = jax.random.logistic(key, raw.shape[:-1], raw.dtype)
        y = raw[..., 0] + jnp.exp(_bounded(raw[..., 1])) * noise
        return jnp.clip(jnp.round(0.5 * top * (y + 1)), 0, top).astype(jnp.int32)

    return Observation(2, log_prob, mean, sample)


def _softplus(x: Array) -> Array:
    """log(1 + e^x): in half the time of `jax.nn.softplus`, gradient included, on CPUs."""
    # Both choices fall alike at zero, so that the slope there is a half.
    return jnp.where(x > 0, x, 0) + jnp.log1p(jnp.exp(jnp.where(x > 0, -x, x)))


def _bounded(log_scale: Array) -> Array:
    return BOUND * jnp.tanh(log_scale / BOUND)


class Row(NamedTuple):
    """A law, and what data it is for."""

    make: Callable[[int], Observation]  # V -> the law
    valid: str
    accepts: Callable[[DataSpec], bool]


OBSERVATIONS: dict[str, Row] = {
    "bernoulli": Row(bernoulli, "data of two values", lambda spec: spec.num_values == 2),
    "categorical": Row(categorical, "discrete data", lambda spec: spec.num_values > 1),
    "gaussian": Row(
        gaussian,
        "real numbers, data of kind euclidean",
        lambda spec: not spec.num_values and spec.kind == "euclidean",
    ),
    "discretised_logistic": Row(
        discretised_logistic,
        "discrete data in order",
        lambda spec: spec.num_values > 1 and (spec.ordinal or spec.num_values == 2),
    ),
}


def build(name: str, spec: DataSpec, key: str) -> Observation:
    """The law `name`, for data of `spec`.

    Args:
        name: in `OBSERVATIONS`.
        spec: of the data, as the decoder is to give them.
        key: the configuration key that `name` came from, for messages.

    Raises:
        UserError: an unknown name, or a law that does not fit the range of the data.
    """
    row = lookup(OBSERVATIONS, name, key)
    if not row.accepts(spec):
        found = f"{spec.num_values} values" if spec.num_values else f"kind {spec.kind!r}"
        fits = [name for name, other in OBSERVATIONS.items() if other.accepts(spec)]
        raise UserError(
            f"{key}={name!r} is for {row.valid}; these have {found}; valid: {', '.join(fits)}"
        )
    return row.make(spec.num_values)
