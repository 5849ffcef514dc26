r"""Networks for continuous states: `(x, t, cond, *, train) -> numbers for every entry of x`.

x [B, *S] float of order one (callers scale it); t [B] float in (0, 1]; cond None or a mapping
that may hold "label" [B] int and "context" [B, E] float; the output is float32, [B, *S] for one
number an entry and [B, *S, k] for k, such as a mean and a log-variance. It is zero at first.

The bodies are those of the discrete networks; what differs is how a state enters and leaves:

    unet         a 3x3 convolution in, another out (Ho et al. 2020; Dhariwal and Nichol 2021)
    transformer  patches through a dense layer in, another out (Peebles and Xie 2023, DiT);
                 positions are fixed sines and cosines added to the tokens, rotary angles of
                 queries and keys, both, or none, which leaves patches exchangeable
    mlp          coordinates and random Fourier features of them in (`field.Field`)

Convolutions and matrix products of the bodies are `dtype`; parameters, norms, the residual
stream, the first and last layer are float32, since an input rounded to eight bits would cost
more than these layers do.

A network has layers for a context only if it was initialised with one.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gmjax.networks import embeddings, field, settings, transformer, unet
from gmjax.networks.layers import Dense
from gmjax.networks.settings import PREFIX
from gmjax.types import Array, Cond, DataSpec, UserError, lookup

_zeros = nn.initializers.zeros

# name -> (are sines added to the tokens?, are queries and keys turned?)
POSITIONS = {
    "none": (False, False),
    "sinusoidal": (True, False),
    "rotary": (False, True),
    "both": (True, True),
}

DTYPE = settings.choice("float32", ("float32", "bfloat16"))

# The hyperparameters of each network, as `config.network` may hold them.
SETTINGS = {
    "unet": {
        **{key: row for key, row in unet.SETTINGS.items() if key != "embed"},
        "mixer": settings.length(0),
        "waves": settings.length(0),
        "dtype": DTYPE,
    },
    "transformer": {
        **{key: row for key, row in transformer.SETTINGS.items() if key != "embed"},
        "patch": settings.size(2),
        "positions": settings.choice("both", POSITIONS),
        "waves": settings.length(0),
        "dtype": DTYPE,
    },
    "mlp": field.SETTINGS,
}


class UNet(nn.Module):
    """x [B, H, W, C] float, t [B], cond -> [B, H, W, C] or [B, H, W, C, outputs] float32.

    Args:
        shape: [H, W, C].
        outputs: numbers for every entry.
        num_classes: 0 where the data have no labels.
        channels, blocks, attention, mixer, dropout, remat, dtype: see `unet.UNet`.
        waves: octaves of sines of the state beside it, for data on levels.
    """

    shape: tuple[int, ...]
    outputs: int
    num_classes: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    mixer: int
    dropout: float
    remat: bool
    waves: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, *, train: bool = False) -> Array:
        """See the class; dropout, when training, draws from the stream "dropout"."""
        x = _entering(x, self.shape)
        c = embeddings.Condition(4 * self.channels[0], self.num_classes)(t, cond)
        h = nn.Conv(self.channels[0], (3, 3))(embeddings.octaves(x, int(self.waves)))
        h = unet.body(
            h,
            embeddings.add_context(c, cond),
            train,
            channels=self.channels,
            blocks=self.blocks,
            attention=self.attention,
            mixer=self.mixer,
            dropout=self.dropout,
            remat=self.remat,
            dtype=self.dtype,
        )
        h = nn.Conv(self.shape[-1] * self.outputs, (3, 3), kernel_init=_zeros)(h)
        return _leaving(h, x, self.outputs)


class Transformer(nn.Module):
    """x [B, *S] float, t [B], cond -> [B, *S] or [B, *S, outputs] float32.

    Args:
        shape: [H, W, C] of images, [L, C] of sequences, [D] of vectors: the axes but the last
            are cut into patches, of a vector its only one.
        outputs: numbers for every entry.
        num_classes: 0 where the data have no labels.
        positions: a name in `POSITIONS`; the entries of a vector have no order to turn by.
        waves: octaves of sines of the state beside it, for data on levels.
        width, blocks, heads, expand, patch, dropout, attention_by, remat, dtype: see
            `transformer.Transformer`.
    """

    shape: tuple[int, ...]
    outputs: int
    num_classes: int
    width: int
    blocks: int
    heads: int
    expand: int
    patch: int
    dropout: float
    attention_by: str
    remat: bool
    positions: str
    waves: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, *, train: bool = False) -> Array:
        """See the class; dropout, when training, draws from the stream "dropout"."""
        x = _entering(x, self.shape)
        sides = _sides(self.shape)
        grid = [n // self.patch for n in sides]
        patches = transformer.patchify(x, self.patch, len(sides))
        seen = embeddings.octaves(patches, int(self.waves))
        added, turned = POSITIONS[self.positions]
        turned = turned and len(self.shape) > 1

        c = embeddings.Condition(self.width, self.num_classes)(t, cond)
        h = Dense(self.width)(seen.reshape(*seen.shape[:2], -1))
        h = h + embeddings.sinusoidal_positions(grid, self.width) if added else h
        h = transformer.body(
            h,
            embeddings.add_context(c, cond),
            embeddings.rotary_angles(grid, self.width // self.heads) if turned else None,
            train,
            blocks=self.blocks,
            heads=self.heads,
            expand=self.expand,
            dropout=self.dropout,
            attention_by=self.attention_by,
            remat=self.remat,
            dtype=self.dtype,
        )
        h = Dense(prod(patches.shape[2:]) * self.outputs, kernel_init=_zeros)(h)
        h = transformer.unpatchify(h.reshape(*patches.shape, self.outputs), self.patch, grid)
        return _leaving(h, x, self.outputs)


class Mlp(nn.Module):
    """x [B, *S] float, t [B], cond -> [B, *S] or [B, *S, outputs] float32, by a `field.Field`.

    Args:
        shape: [*S].
        outputs: numbers for every entry.
        network: what maps [B, prod(S)] to [B, prod(S) outputs].
    """

    shape: tuple[int, ...]
    outputs: int
    network: field.Field

    def __call__(self, x: Array, t: Array, cond: Cond = None, *, train: bool = False) -> Array:
        """See the class; dropout, when training, draws from the stream "dropout"."""
        x = _entering(x, self.shape)
        return _leaving(self.network(x.reshape(len(x), -1), t, cond, train=train), x, self.outputs)


def _entering(x: Array, shape: tuple[int, ...]) -> Array:
    if x.shape[1:] != shape:
        raise UserError(
            f"{PREFIX}: the network is for examples of shape {shape}, the data's, and was given"
            f" {x.shape[1:]}"
        )
    return x.astype(jnp.float32)


def _leaving(h: Array, x: Array, outputs: int) -> Array:
    return h.reshape(*x.shape, *((outputs,) if outputs > 1 else ()))


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of an example that are cut into patches: not the channels."""
    return shape[:-1] or shape


def _unet(values: dict[str, Any], shape: tuple[int, ...], outputs: int, num_classes: int) -> UNet:
    settings.require(len(shape) == 3, "name", "unet", f"needs images [H, W, C], not {shape}")
    unet.check_sides(shape[:2], values["channels"])
    unet.check_attention(values["attention"], values["channels"])
    return UNet(shape, outputs, num_classes, **values)


def _transformer(
    values: dict[str, Any], shape: tuple[int, ...], outputs: int, num_classes: int
) -> Transformer:
    positions, ordered = values["positions"], len(shape) > 1
    settings.require(len(shape) < 4, "name", "transformer", f"needs up to 3 axes, not {shape}")
    why = "the entries of a vector have no order; give sinusoidal"
    settings.require(ordered or positions != "rotary", "positions", positions, why)
    transformer.check_sides(_sides(shape), values, rotary=ordered and POSITIONS[positions][1])
    return Transformer(shape, outputs, num_classes, **values)


def _mlp(values: dict[str, Any], shape: tuple[int, ...], outputs: int, num_classes: int) -> Mlp:
    network = field.Field(outputs=prod(shape) * outputs, num_classes=num_classes, **values)
    return Mlp(shape, outputs, network)


CONTINUOUS = {"mlp": _mlp, "transformer": _transformer, "unet": _unet}


def build(config: Mapping[str, Any], spec: DataSpec, outputs_per_entry: int = 1) -> nn.Module:
    """The network named `config["name"]`, for continuous data of `spec`.

    Args:
        config: the section `config.network`: a name in `CONTINUOUS` and its hyperparameters;
            those of the other networks do not count.
        spec: shape [H, W, C], [L, C] or [D] and classes of the data.
        outputs_per_entry: k; the output is [B, *S] for one and [B, *S, k] for more.

    Returns:
        An unbound module (x [B, *S], t [B], cond=None, *, train=False) -> float32.

    Raises:
        UserError: an unknown name or key, a value that is not valid, sides that the levels do
            not halve or the patch does not divide, heads that do not divide the width. Calling
            the module raises it for x of another shape than the data's.
    """
    if "name" not in config:
        raise UserError(f"{PREFIX}.name is missing; valid: {', '.join(sorted(CONTINUOUS))}")
    make = lookup(CONTINUOUS, config["name"], f"{PREFIX}.name")
    own = SETTINGS[config["name"]]
    # A preset may hold keys of a network that the command line has replaced.
    others = {key for table in SETTINGS.values() for key in table} - set(own)
    values = settings.read({key: config[key] for key in config if key not in others}, own)
    return make(values, tuple(spec.shape), outputs_per_entry, spec.num_classes)
