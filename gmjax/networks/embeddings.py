r"""Embeddings of time, class, value and position.

Time. t in (0, 1] is a float feature: sin(w t) and cos(w t) with angular frequencies w spaced
evenly in log from 1 to 1000, so that the slowest is monotone over the whole interval and the
fastest turns by one radian between t and t + 1e-3, the finest difference that matters.

Value. A site holds one of K states, so whatever its embedding computes, it is a table of K rows
and one gather. `OrdinalEmbedding` builds the table as ``M E + F W``: E is learned freely, M mixes
the rows of neighbouring grey levels, and F holds Fourier features of the level scaled to [-1, 1].
``M[x]`` is the smoothed one-hot vector of x, hence ``(M E)[x]`` is exactly "smooth the one-hot
input, then apply a dense layer", at the price of a K x K product instead of one a site.

Position. Rotary: pair i of a query or key turns by the angle ``pos * w_i``; a dot product
then depends on the difference of the two positions only. With several axes (rows and columns of
an image) the pairs are shared out between the axes.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gmjax.networks.layers import Dense
from gmjax.types import Array, Cond


def time_features(t: Array, width: int, slowest: float = 1.0, fastest: float = 1e3) -> Array:
    """sqrt(2) [sin(w t), cos(w t)], w log-spaced: features of mean square one.

    Args:
        t: [B] float times in (0, 1].
        width: number of features; an odd one is padded with a zero.
        slowest: lowest angular frequency, radians a unit of time.
        fastest: highest angular frequency.

    Returns:
        [B, width] float32.
    """
    w = jnp.asarray(np.geomspace(slowest, fastest, width // 2), jnp.float32)
    angle = t.astype(jnp.float32)[:, None] * w
    waves = np.sqrt(2) * jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
    return jnp.pad(waves, ((0, 0), (0, width % 2)))


def octaves(x: Array, count: int) -> Array:
    """x, sin(2^k pi x) and cos(2^k pi x), k = 1 .. count, along the last axis.

    Data on levels are known exactly once noise is finer than the levels, which a network sees
    only in features that vary as fast (Kingma et al. 2021, appendix C).

    Args:
        x: [..., C] of order one.
        count: of octaves; 0 gives x.

    Returns:
        [..., C (1 + 2 count)].
    """
    angles = [2.0**k * np.pi * x for k in range(1, count + 1)]
    return jnp.concatenate([x, *map(jnp.sin, angles), *map(jnp.cos, angles)], -1)


class Condition(nn.Module):
    """One vector of time and class for each example, the same in every network; always float32.

    The time lies in (0, 1]; a log-SNR, of order ten, is to be mapped there first: the fastest
    wave, a thousand radians a unit, would tell its values apart far too finely.

    Args:
        width: its size.
        num_classes: 0 where the data have no labels; otherwise label `num_classes` is "no label",
            the null class of classifier-free guidance.
    """

    width: int
    num_classes: int

    @nn.compact
    def __call__(self, t: Array, cond: Cond) -> Array:
        """t [B] float, cond None or {"label": [B] int} -> [B, width] float32."""
        c = Dense(self.width)(nn.silu(Dense(self.width)(time_features(t, self.width))))
        return c + ClassEmbedding(self.width, self.num_classes)(cond) if self.num_classes else c


def add_context(c: Array, cond: Cond) -> Array:
    """c [B, E] and a two-layer network of cond["context"] [B, C], where there is one.

    To be called in a compact method, whose module the layers belong to; it has them only if it
    was initialised with a context.
    """
    if cond is None or "context" not in cond:
        return c
    width = c.shape[-1]
    return c + Dense(width)(nn.silu(Dense(width)(cond["context"])))


class ClassEmbedding(nn.Module):
    """A learned row for each class and one more, the last, for "no label".

    Args:
        width: size of a row.
        num_classes: number of classes, one or more.
    """

    width: int
    num_classes: int

    @nn.compact
    def __call__(self, cond: Cond) -> Array:
        """None or {"label": [B] int} -> [B, width], or [1, width] where there is no label."""
        shape = (self.num_classes + 1, self.width)
        table = self.param("table", nn.initializers.normal(1.0), shape, jnp.float32)
        label = (cond or {}).get("label", jnp.array([self.num_classes]))
        return table[jnp.clip(label, 0, self.num_classes)]


def scaled_levels(x: Array, num_values: int) -> Array:
    """Levels 0 .. V - 1 on [-1, 1]; any other state (the mask) goes to the centre, 0.

    Args:
        x: [...] int.
        num_values: V.

    Returns:
        [...] float32.
    """
    u = 2.0 * x.astype(jnp.float32) / max(num_values - 1, 1) - 1.0
    return jnp.where(x < num_values, u, 0.0)


def smoothing_matrix(num_states: int, width: float, num_values: int | None = None) -> np.ndarray:
    """M[i, j] proportional to exp(-(i - j)^2 / 2 width^2), rows summing to one.

    Args:
        num_states: K.
        width: standard deviation in levels; 0 gives the identity.
        num_values: the first V states are ordered levels, the others (the mask) are only
            themselves; None means all.

    Returns:
        [K, K] float32.
    """
    level = np.arange(num_states if num_values is None else num_values)
    gap = np.subtract.outer(level, level)
    kernel = np.exp(-0.5 * (gap / max(width, 1e-6)) ** 2)
    m = np.eye(num_states)
    m[: len(level), : len(level)] = kernel / kernel.sum(1, keepdims=True)
    return m.astype(np.float32)


def level_features(num_states: int, num_values: int) -> np.ndarray:
    """[u, sqrt(2) sin(2^k pi u), sqrt(2) cos(2^k pi u)] of the scaled level u, zero rows elsewhere.

    k runs from 0 until a half period is one level apart.

    Args:
        num_states: K rows.
        num_values: V, of which the first rows are the levels.

    Returns:
        [K, F] float32.
    """
    u = np.linspace(-1, 1, num_values)[:, None] if num_values > 1 else np.zeros((1, 1))
    angle = np.pi * u * 2.0 ** np.arange(max(1, int(np.log2(max(num_values - 1, 2)))))
    f = np.concatenate([u, np.sqrt(2) * np.sin(angle), np.sqrt(2) * np.cos(angle)], 1)
    return np.pad(f, ((0, num_states - num_values), (0, 0))).astype(np.float32)


class TokenEmbedding(nn.Module):
    """A learned row for each of K states.

    Args:
        num_states: K.
        width: size of a row.
        dtype: of the output.
    """

    num_states: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[...] int -> [..., width]."""
        shape = (self.num_states, self.width)
        table = self.param("table", nn.initializers.normal(1.0), shape, jnp.float32)
        return table.astype(self.dtype)[x]


class OrdinalEmbedding(nn.Module):
    """The rows of ``M E + F W``: free but smoothed over levels, plus Fourier features of the level.

    Args:
        num_states: K.
        num_values: V ordered levels, the first of the states.
        width: size of a row.
        smoothing: width of the Gaussian M, in levels.
        dtype: of the output.
    """

    num_states: int
    num_values: int
    width: int
    smoothing: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[...] int -> [..., width]."""
        shape = (self.num_states, self.width)
        free = self.param("table", nn.initializers.normal(1.0), shape, jnp.float32)
        mixed = smoothing_matrix(self.num_states, self.smoothing, self.num_values) @ free
        features = jnp.asarray(level_features(self.num_states, self.num_values))
        waves = Dense(self.width, use_bias=False)(features)
        return (mixed + waves).astype(self.dtype)[x]


def value_embedding(
    num_states: int, num_values: int, width: int, ordinal: bool, smoothing: float, dtype: Any
) -> nn.Module:
    """The embedding that suits the data: `OrdinalEmbedding` or `TokenEmbedding`."""
    if ordinal:
        return OrdinalEmbedding(num_states, num_values, width, smoothing, dtype)
    return TokenEmbedding(num_states, width, dtype)


def rotary_angles(grid: Sequence[int], head_width: int) -> Array:
    """Angles of the rotary embedding of every cell of a grid, in row-major order.

    Each of A axes has head_width / 2A frequencies, log-spaced from one radian a cell to one
    radian over the whole axis (Su et al. 2021, equation 15, with the base set by the extent).

    Args:
        grid: extent of each axis: [L] for a sequence, [h, w] for an image.
        head_width: size of one attention head, a multiple of 2A.

    Returns:
        [prod(grid), head_width / 2] float32, radians.
    """
    pairs = head_width // (2 * len(grid))
    cells = np.indices(grid).reshape(len(grid), -1)
    w = [np.geomspace(1.0, 1.0 / max(extent, 1), pairs) for extent in grid]
    angles = np.concatenate([np.outer(c, f) for c, f in zip(cells, w, strict=True)], 1)
    return jnp.asarray(angles, jnp.float32)


def sinusoidal_positions(grid: Sequence[int], width: int) -> Array:
    """sqrt(2) [sin, cos] of the `rotary_angles` of every cell: fixed vectors of mean square one.

    Args:
        grid: extent of each axis.
        width: size of a vector; where 2A does not divide it, zeros fill the end.

    Returns:
        [prod(grid), width] float32.
    """
    angles = rotary_angles(grid, width)
    waves = np.sqrt(2) * jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
    return jnp.pad(waves, ((0, 0), (0, width - waves.shape[-1])))


def rotate(x: Array, angles: Array) -> Array:
    """Turn the pairs (x_i, x_{i + d/2}) by `angles`.

    Args:
        x: [..., T, d].
        angles: [T, d / 2] radians.

    Returns:
        [..., T, d], same dtype; its norm is that of x.
    """
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x.astype(jnp.float32), 2, -1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x.dtype)
