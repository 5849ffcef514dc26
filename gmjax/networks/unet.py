"""A U-Net for images of discrete values, conditioned on time and class.

Residual blocks (norm, SiLU, 3x3 convolution, twice) with a scale and shift from time and
class between the convolutions; one level per entry of `channels`, halving the resolution in
between; self-attention at chosen levels; at the lowest level a dense layer over all sites,
which is cheap at small resolutions and sees the whole image at once.

Grey levels are ordered, and so a one-hot input is smoothed with a Gaussian over levels before
the first convolution, and the output logits after the last one: neighbouring values then
share evidence, which a small data set needs.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gmjax.networks import embeddings
from gmjax.types import Array, Cond, DataSpec, UserError

_zeros = nn.initializers.zeros


class Block(nn.Module):
    """norm, SiLU, conv, scale and shift, SiLU, conv, residual."""

    channels: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool = False) -> Array:
        h = nn.silu(nn.GroupNorm(_groups(x.shape[-1]), dtype=self.dtype)(x))
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype)(h)
        film = nn.Dense(2 * self.channels, kernel_init=_zeros, dtype=self.dtype)(condition)
        scale, shift = jnp.split(film[:, None, None], 2, -1)
        h = nn.GroupNorm(_groups(self.channels), dtype=self.dtype)(h) * (1 + scale) + shift
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
        tokens = nn.GroupNorm(_groups(c), dtype=self.dtype)(x).reshape(b, h * w, c)
        qkv = nn.Dense(3 * c, dtype=self.dtype)(tokens.reshape(-1, c))
        q, k, v = jnp.split(qkv.reshape(b, h * w, 3 * self.heads, c // self.heads), 3, 2)
        mixed = jax.nn.dot_product_attention(q, k, v).reshape(-1, c)
        out = nn.Dense(c, kernel_init=_zeros, dtype=self.dtype)(mixed)
        return x + out.reshape(x.shape)


class Mixer(nn.Module):
    """Residual dense layer over all sites and channels of a small feature map."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array) -> Array:
        flat = nn.GroupNorm(_groups(x.shape[-1]), dtype=self.dtype)(x).reshape(len(x), -1)
        h = nn.Dense(self.width, dtype=self.dtype)(flat)
        h = nn.silu(h + nn.Dense(self.width, dtype=self.dtype)(condition))
        out = nn.Dense(flat.shape[-1], kernel_init=_zeros, dtype=self.dtype)(h)
        return x + out.reshape(x.shape)


class UNet(nn.Module):
    """x [B, H, W, C] integers below num_states, t [B] -> logits [B, H, W, C, num_values]."""

    num_states: int
    num_values: int
    num_classes: int = 0
    channels: tuple[int, ...] = (48, 96)
    blocks: int = 1
    attention: tuple[int, ...] = ()  # levels, 0 the finest
    mixer: int = 256  # width of the dense bottleneck; 0: none
    smoothing: float = 0.0  # levels; 0: values are categories
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, *, train: bool = False) -> Array:
        b, height, width, c = x.shape
        condition = embeddings.Condition(4 * self.channels[0], self.num_classes)(t, cond)
        h = jax.nn.one_hot(x, self.num_states, dtype=self.dtype)
        if self.smoothing:
            smooth = embeddings.smoothing_matrix(self.num_values, self.smoothing)
            extra = self.num_states - self.num_values
            h = h @ jnp.asarray(jax.scipy.linalg.block_diag(smooth, jnp.eye(extra)), self.dtype)
        h = nn.Conv(self.channels[0], (3, 3), dtype=self.dtype)(
            h.reshape(b, height, width, c * self.num_states)
        )

        def level(h, i):
            h = Block(self.channels[i], self.dropout, self.dtype)(h, condition, train)
            return Attention(dtype=self.dtype)(h) if i in self.attention else h

        skips = [h]
        last = len(self.channels) - 1
        for i, channels in enumerate(self.channels):
            for _ in range(self.blocks):
                h = level(h, i)
                skips.append(h)
            if i < last:
                h = nn.Conv(channels, (3, 3), strides=(2, 2), dtype=self.dtype)(h)
                skips.append(h)
        if self.mixer:
            h = Mixer(self.mixer, self.dtype)(h, condition)
        for i in reversed(range(len(self.channels))):
            for _ in range(self.blocks + 1):
                h = level(jnp.concatenate([h, skips.pop()], -1), i)
            if i > 0:
                h = jnp.repeat(jnp.repeat(h, 2, 1), 2, 2)
                h = nn.Conv(self.channels[i - 1], (3, 3), dtype=self.dtype)(h)
        h = nn.silu(nn.GroupNorm(_groups(h.shape[-1]), dtype=self.dtype)(h))
        h = nn.Conv(c * self.num_values, (3, 3), kernel_init=_zeros, dtype=self.dtype)(h)
        logits = h.reshape(b, height, width, c, self.num_values).astype(jnp.float32)
        if self.smoothing:
            logits = logits @ embeddings.smoothing_matrix(self.num_values, self.smoothing)
        return logits


def _groups(channels: int) -> int:
    """The largest group count up to 8 that divides the channels."""
    return next(g for g in (8, 6, 4, 3, 2, 1) if channels % g == 0)
