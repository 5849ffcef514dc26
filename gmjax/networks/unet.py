"""A U-Net for images of discrete values, conditioned on time and class.

Residual blocks (norm, SiLU, 3x3 convolution, twice) with a scale and shift from time and
class between the convolutions; one level per entry of `channels`, halving the resolution in
between; self-attention at chosen levels; at the lowest level a dense layer over all sites,
which is cheap at small resolutions and sees the whole image at once.

Grey levels are ordered, and so the one-hot input is smoothed with a Gaussian over levels before
the first convolution, and the output logits after the last layer: neighbouring values then
share evidence, which a small data set needs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gmjax.networks import embeddings, heads, settings
from gmjax.types import Array, Cond, DataSpec

_zeros = nn.initializers.zeros

SETTINGS = {
    "channels": settings.sizes((32, 64)),
    "blocks": settings.size(1),
    "attention": settings.Setting(
        (),
        "a sequence of levels, 0 the finest",
        lambda v: isinstance(v, (tuple, list)) and all(isinstance(i, int) and i >= 0 for i in v),
    ),
    "mixer": settings.length(256),
    "embed": settings.length(0),
    "dropout": settings.share(0.0),
    "remat": settings.flag(False),
}


class Block(nn.Module):
    """norm, SiLU, conv, scale and shift, SiLU, conv, residual."""

    channels: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool = False) -> Array:
        h = nn.silu(_norm(x))
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype)(h)
        film = nn.Dense(2 * self.channels, kernel_init=_zeros, dtype=self.dtype)(condition)
        scale, shift = jnp.split(film[:, None, None], 2, -1)
        h = _norm(h) * (1 + scale) + shift
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
        h = nn.Conv(self.channels, (3, 3), kernel_init=_zeros, dtype=self.dtype)(h)
        if x.shape[-1] != self.channels:
            x = nn.Conv(self.channels, (1, 1), dtype=self.dtype)(x)
        return x + h


class Attention(nn.Module):
    """Residual self-attention over the sites of a feature map."""

    heads: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        tokens = _norm(x).reshape(b, h * w, c)
        heads = next(n for n in (self.heads, 2, 1) if c % n == 0)
        qkv = nn.Dense(3 * c, dtype=self.dtype)(tokens.reshape(-1, c))
        q, k, v = jnp.split(qkv.reshape(b, h * w, 3 * heads, c // heads), 3, 2)
        mixed = jax.nn.dot_product_attention(q, k, v).reshape(-1, c)
        out = nn.Dense(c, kernel_init=_zeros, dtype=self.dtype)(mixed)
        return x + out.reshape(x.shape)


class Mixer(nn.Module):
    """Residual dense layer over all sites and channels of a small feature map."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array) -> Array:
        flat = _norm(x).reshape(len(x), -1)
        h = nn.Dense(self.width, dtype=self.dtype)(flat)
        h = nn.silu(h + nn.Dense(self.width, dtype=self.dtype)(condition))
        out = nn.Dense(flat.shape[-1], kernel_init=_zeros, dtype=self.dtype)(h)
        return x + out.reshape(x.shape)


def body(
    h: Array,
    c: Array,
    train: bool,
    *,
    channels: Sequence[int],
    blocks: int,
    attention: Sequence[int],
    mixer: int,
    dropout: float,
    remat: bool,
    dtype: Any,
) -> Array:
    """The U-Net between the first convolution and the readout.

    To be called in a compact method: the layers made here belong to its module.

    Args:
        h: [B, H, W, channels[0]].
        c: [B, E], the vector of time, class and context.
        train: drop out?
        channels, blocks, attention, mixer, dropout, remat, dtype: see `UNet`.

    Returns:
        [B, H, W, channels[0]] float32.
    """
    condition = nn.silu(c).astype(dtype)
    block = nn.remat(Block, static_argnums=(3,)) if remat else Block

    def conv(h, width, **kwargs):
        return nn.Conv(width, (3, 3), dtype=dtype, **kwargs)(h).astype(jnp.float32)

    def level(h, i, name):
        h = block(channels[i], dropout, dtype, name=f"{name}_block")(h, condition, train)
        return Attention(dtype=dtype, name=f"{name}_attention")(h) if i in attention else h

    h = h.astype(jnp.float32)
    skips = [h]
    for i, width in enumerate(channels):
        for j in range(blocks):
            h = level(h, i, f"down_{i}_{j}")
            skips.append(h)
        if i < len(channels) - 1:
            h = conv(h, width, strides=(2, 2))
            skips.append(h)
    if mixer:
        h = Mixer(int(mixer), dtype)(h, condition)
    for i in reversed(range(len(channels))):
        for j in range(blocks + 1):
            h = level(jnp.concatenate([h, skips.pop()], -1), i, f"up_{i}_{j}")
        if i > 0:
            h = conv(jnp.repeat(jnp.repeat(h, 2, 1), 2, 2), channels[i - 1])
    return nn.silu(_norm(h))


class UNet(nn.Module):
    """x [B, H, W, C] int, t [B], cond -> logits [B, H, W, C, V] float32.

    Args:
        num_states: K, the values and the mask where there is one.
        num_values: V.
        num_classes: 0: no labels.
        channels: of each level, finest first; the resolution halves from one to the next.
        blocks: residual blocks a level on the way down; one more on the way up.
        attention: levels with self-attention, 0 the finest.
        mixer: width of the dense layer at the lowest level; 0: none.
        embed: width of a learned embedding of the values, for many of them; 0: one-hot.
        dropout: inside the blocks.
        remat: recompute the blocks in the backward pass instead of storing them.
        head: a name in `heads.HEADS`.
        smoothing: width of the Gaussian over levels, in levels; 0 for categories.
        dtype: of convolutions and matrix products; parameters, norms, the residual stream and
            logits are float32.
    """

    num_states: int
    num_values: int
    num_classes: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    mixer: int
    embed: int
    dropout: float
    remat: bool
    head: str
    smoothing: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, *, train: bool = False) -> Array:
        """See the class; dropout, when training, draws from the stream "dropout"."""
        c = embeddings.Condition(4 * self.channels[0], self.num_classes)(t, cond)
        h = self.values(x).reshape(*x.shape[:3], -1)
        h = nn.Conv(self.channels[0], (3, 3), dtype=self.dtype)(h)
        h = body(
            h,
            c,
            train,
            channels=self.channels,
            blocks=self.blocks,
            attention=self.attention,
            mixer=self.mixer,
            dropout=self.dropout,
            remat=self.remat,
            dtype=self.dtype,
        )
        return heads.Readout(self.num_values, self.head, self.smoothing, self.dtype)(h, x)

    def values(self, x: Array) -> Array:
        """[...] int -> [..., features]: the smoothed one-hot vector, or a learned embedding."""
        if self.embed:
            return embeddings.value_embedding(
                self.num_states,
                self.num_values,
                self.embed,
                self.smoothing > 0,
                self.smoothing,
                self.dtype,
            )(x)
        table = embeddings.smoothing_matrix(self.num_states, self.smoothing, self.num_values)
        return jnp.asarray(table, self.dtype)[x]


def build(config: Mapping[str, Any], spec: DataSpec, num_states: int) -> UNet:
    """The U-Net of `config.network` for images of `spec`.

    Raises:
        UserError: an unknown key, a value that is not valid, data that are no images, or sides
            that the levels do not halve.
    """
    values = heads.read(config, SETTINGS, spec)
    settings.require(spec.kind == "image", "name", "unet", "needs images [H, W, C]")
    check_sides(spec.shape[:2], values["channels"])
    check_attention(values["attention"], values["channels"])
    return UNet(
        num_states=num_states,
        num_values=spec.num_values,
        num_classes=spec.num_classes,
        **values,
    )


def check_sides(sides: Sequence[int], channels: Sequence[int]) -> None:
    """Raises `UserError` unless every level but the last halves the sides of the image."""
    factor = 2 ** (len(channels) - 1)
    settings.require(
        all(side % factor == 0 for side in sides),
        "channels",
        channels,
        f"{len(channels)} levels need sides divisible by {factor}, the data have {sides}",
    )


def check_attention(attention: Sequence[int], channels: Sequence[int]) -> None:
    """Raises `UserError` where attention is asked for at a level that there is not."""
    inside = all(i < len(channels) for i in attention)
    settings.require(inside, "attention", attention, f"there are {len(channels)} levels")


def _norm(x: Array) -> Array:
    """Group norm in float32, with the largest number of groups up to 8 that divides."""
    groups = next(g for g in (8, 6, 4, 3, 2, 1) if x.shape[-1] % g == 0)
    return nn.GroupNorm(groups, dtype=jnp.float32)(x)
