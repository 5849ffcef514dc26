"""Encoders x -> (mean, log std) of a Gaussian code and decoders z -> numbers for every entry.

    mlp   perceptrons that mirror each other, or without hidden layers two linear maps
    conv  3x3 convolutions that halve the sides of an image, a dense layer, and the way back by
          doubling pixels and convolving, which leaves no checkerboard

A label enters both as a one-hot vector beside what the dense layers see.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gmjax.networks import settings
from gmjax.networks.layers import Dense
from gmjax.networks.settings import PREFIX
from gmjax.types import Array, UserError, lookup

BOUND = 8.0  # of log standard deviations, reached smoothly

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": nn.gelu,
    "relu": nn.relu,
    "silu": nn.silu,
    "tanh": jnp.tanh,
}


def _widths(default: tuple[int, ...]) -> settings.Setting:
    row = settings.sizes(default)
    empty = lambda v: isinstance(v, (tuple, list)) and not len(v)
    return settings.Setting(default, f"{row.valid}, or none", lambda v: empty(v) or row.accepts(v))


_SHARED = {"latent": settings.size(10), "activation": settings.choice("silu", ACTIVATIONS)}

# The hyperparameters of each network, as `config.network` may hold them.
SETTINGS = {
    "mlp": {**_SHARED, "hidden": _widths((200, 200))},
    "conv": {**_SHARED, "hidden": _widths((128,)), "channels": settings.sizes((32, 64))},
}


class Mlp(nn.Module):
    """An encoder and a decoder.

    Args:
        shape: [*S] of an example as it is decoded.
        outputs: numbers that the decoder gives for every entry.
        num_classes: 0 where no label is given.
        latent: L.
        activation: a name in `ACTIVATIONS`.
        hidden: widths of the encoder's layers; the decoder has them in reverse.
    """

    shape: tuple[int, ...]
    outputs: int
    num_classes: int
    latent: int
    activation: str
    hidden: tuple[int, ...]

    def setup(self):
        self.inward = [*(Dense(width) for width in self.hidden), Dense(2 * self.latent)]
        outward = [*reversed(self.hidden), prod(self.shape) * self.outputs]
        self.outward = [Dense(width) for width in outward]

    def encode(self, x: Array, label: Array | None = None) -> tuple[Array, Array]:
        """x [B, ...] of order one, label [B] int -> mean and log std, [B, L] float32."""
        h = _chain(self.inward, _beside(_flat(x), label, self.num_classes), self.activation)
        return _code(h)

    def decode(self, z: Array, label: Array | None = None) -> Array:
        """z [B, L], label [B] int -> [B, *S, outputs] float32."""
        h = _chain(self.outward, _beside(z, label, self.num_classes), self.activation)
        return h.reshape(len(z), *self.shape, self.outputs)

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        """What is decoded from the mean code."""
        return self.decode(self.encode(x, label)[0], label)


class Conv(nn.Module):
    """The same for images [H, W, C].

    Args:
        shape, outputs, num_classes, latent, activation: see `Mlp`.
        hidden: widths of dense layers between the smallest image and the code.
        channels: of each halving.
    """

    shape: tuple[int, ...]
    outputs: int
    num_classes: int
    latent: int
    activation: str
    hidden: tuple[int, ...]
    channels: tuple[int, ...]

    def setup(self):
        self.inward_convs = [nn.Conv(c, (3, 3), strides=(2, 2)) for c in self.channels]
        self.inward = [*(Dense(width) for width in self.hidden), Dense(2 * self.latent)]
        outward = [*reversed(self.hidden), prod(self._smallest())]
        self.outward = [Dense(width) for width in outward]
        after = [*reversed(self.channels[:-1]), self.shape[-1] * self.outputs]
        self.outward_convs = [nn.Conv(c, (3, 3)) for c in after]

    def _smallest(self) -> tuple[int, int, int]:
        parts = 2 ** len(self.channels)
        return self.shape[0] // parts, self.shape[1] // parts, self.channels[-1]

    def encode(self, x: Array, label: Array | None = None) -> tuple[Array, Array]:
        """See `Mlp.encode`; x [B, H, W, ...]."""
        act = ACTIVATIONS[self.activation]
        h = x.reshape(*x.shape[:3], -1).astype(jnp.float32)
        for conv in self.inward_convs:
            h = act(conv(h))
        return _code(
            _chain(self.inward, _beside(_flat(h), label, self.num_classes), self.activation)
        )

    def decode(self, z: Array, label: Array | None = None) -> Array:
        """See `Mlp.decode`."""
        act = ACTIVATIONS[self.activation]
        h = _chain(self.outward, _beside(z, label, self.num_classes), self.activation)
        h = h.reshape(len(z), *self._smallest())
        for conv in self.outward_convs:
            h = conv(jnp.repeat(jnp.repeat(act(h), 2, 1), 2, 2))
        return h.reshape(len(z), *self.shape, self.outputs)

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        """What is decoded from the mean code."""
        return self.decode(self.encode(x, label)[0], label)


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1).astype(jnp.float32)


def _beside(h: Array, label: Array | None, num_classes: int) -> Array:
    if not num_classes:
        return h
    if label is None:
        raise UserError("config.labels=True: the model was given no label")
    return jnp.concatenate([h, jax.nn.one_hot(label, num_classes, dtype=h.dtype)], -1)


def _chain(layers: list[Dense], h: Array, activation: str) -> Array:
    for layer in layers[:-1]:
        h = ACTIVATIONS[activation](layer(h))
    return layers[-1](h)


def _code(h: Array) -> tuple[Array, Array]:
    mean, log_std = jnp.split(h, 2, -1)
    return mean, BOUND * jnp.tanh(log_std / BOUND)


def _conv(values: dict[str, Any], shape: tuple[int, ...], outputs: int, num_classes: int) -> Conv:
    settings.require(len(shape) == 3, "name", "conv", f"needs images [H, W, C], not {shape}")
    parts = 2 ** len(values["channels"])
    ok = all(side % parts == 0 for side in shape[:2])
    why = f"each channel halves the sides {shape[0]} x {shape[1]}, which must be whole"
    settings.require(ok, "channels", values["channels"], why)
    return Conv(shape, outputs, num_classes, **values)


def _mlp(values: dict[str, Any], shape: tuple[int, ...], outputs: int, num_classes: int) -> Mlp:
    return Mlp(shape, outputs, num_classes, **values)


NETWORKS: dict[str, Callable[..., nn.Module]] = {"mlp": _mlp, "conv": _conv}


def build(
    config: Mapping[str, Any], shape: tuple[int, ...], outputs: int, num_classes: int
) -> nn.Module:
    """The network named `config["name"]`.

    Args:
        config: the section `config.network`: a name in `NETWORKS` and its hyperparameters; those
            of the other networks do not count.
        shape: [*S], one example.
        outputs: numbers that the decoder gives for every entry.
        num_classes: 0 where no label is given.

    Raises:
        UserError: an unknown name or key, a value that is not valid, sides that cannot be halved.
    """
    make = lookup(NETWORKS, config["name"], f"{PREFIX}.name")
    own = SETTINGS[config["name"]]
    others = {key for table in SETTINGS.values() for key in table} - set(own)
    values = settings.read({key: config[key] for key in config if key not in others}, own)
    return make(values, tuple(shape), outputs, num_classes)
