"""A transformer over sites, or over patches of sites, conditioned on time and class.

After Peebles and Xie (2023, DiT): pre-norm blocks whose norms are shifted and scaled, and whose
branches are gated, by vectors linear in the conditioning (adaLN-zero), so that every block starts
as the identity. A token stands for a patch: `patch` neighbouring sites of a sequence, or
`patch` x `patch` pixels with all their channels; the states of the patch are embedded and
laid side by side, and the token's last vector gives the logits of all of them.

Positions enter twice: as a learned vector a token, and (except for vectors, whose sites have no
order) as rotary angles in the attention, one set of frequencies an axis.

The residual stream and the norms are float32, matrix products are `dtype`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gmjax.networks import embeddings, heads, settings
from gmjax.networks.layers import Dense, Modulation, normalise
from gmjax.types import Array, Cond, DataSpec


def plain_attention(q: Array, k: Array, v: Array) -> Array:
    """softmax(q k^T / sqrt(d)) v with the softmax in float32.

    Heads come before positions, so both products are plain batched matrix products: on CPU this
    is twice as fast, forward and backward, as `jax.nn.dot_product_attention`.

    Args:
        q: [B, h, T, d], as are k and v.

    Returns:
        [B, h, T, d].
    """
    q = q * q.shape[-1] ** -0.5
    scores = jnp.einsum("bhtd,bhsd->bhts", q, k, preferred_element_type=jnp.float32)
    return jnp.einsum("bhts,bhsd->bhtd", nn.softmax(scores).astype(v.dtype), v)


def _library_attention(q: Array, k: Array, v: Array, implementation: str) -> Array:
    q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
    out = jax.nn.dot_product_attention(q, k, v, implementation=implementation)  # type: ignore
    return out.swapaxes(1, 2)


ATTENTION: dict[str, Callable[..., Array]] = {
    "plain": plain_attention,
    "xla": partial(_library_attention, implementation="xla"),
    "cudnn": partial(_library_attention, implementation="cudnn"),  # GPU and bfloat16 only
}

SETTINGS = {
    "width": settings.size(128),
    "blocks": settings.size(4),
    "heads": settings.size(4),
    "expand": settings.size(4),
    "patch": settings.size(1),
    "embed": settings.size(32),
    "dropout": settings.share(0.0),
    "attention_by": settings.choice("plain", ATTENTION),
    "remat": settings.flag(False),
}


def patchify(x: Array, patch: int, axes: int) -> Array:
    """Cut the first `axes` axes after the batch into patches, row-major both over and in them.

    Args:
        x: [B, g_1 p, .., g_A p, *R].
        patch: p.
        axes: A.

    Returns:
        [B, g_1 .. g_A, p^A, *R].
    """
    grid, rest = [n // patch for n in x.shape[1 : axes + 1]], x.shape[axes + 1 :]
    x = x.reshape(len(x), *(n for g in grid for n in (g, patch)), *rest)
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2)]
    x = x.transpose(*order, *range(2 * axes + 1, x.ndim))
    return x.reshape(len(x), prod(grid), patch**axes, *rest)


def unpatchify(x: Array, patch: int, grid: Sequence[int]) -> Array:
    """The inverse of `patchify`.

    Args:
        x: [B, g_1 .. g_A, p^A, *R].
        patch: p.
        grid: (g_1, .., g_A).

    Returns:
        [B, g_1 p, .., g_A p, *R].
    """
    axes, rest = len(grid), x.shape[3:]
    x = x.reshape(len(x), *grid, *[patch] * axes, *rest)
    order = [0, *(i for a in range(1, axes + 1) for i in (a, a + axes))]
    x = x.transpose(*order, *range(2 * axes + 1, x.ndim))
    return x.reshape(len(x), *(g * patch for g in grid), *rest)


class Block(nn.Module):
    """Self-attention, then a two-layer network at each token, both modulated and gated.

    Args:
        width: of the residual stream.
        heads: attention heads.
        expand: hidden width, in widths.
        dropout: probability, on the output of each branch.
        attention_by: a name in `ATTENTION`.
        dtype: of matrix products.
    """

    width: int
    heads: int
    expand: int
    dropout: float
    attention_by: str
    dtype: Any

    @nn.compact
    def __call__(self, h: Array, c: Array, angles: Array | None, train: bool) -> Array:
        """h [B, T, C] float32, c [B, C], angles [T, d / 2] or None -> [B, T, C] float32."""
        vectors = (v[:, None] for v in Modulation(6, self.width)(c))
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = vectors
        drop = nn.Dropout(self.dropout, deterministic=not train)
        h = h + gate_1 * drop(self.attend(normalise(h) * (1 + scale_1) + shift_1, angles))
        u = Dense(self.expand * self.width, self.dtype)(normalise(h) * (1 + scale_2) + shift_2)
        return h + gate_2 * drop(Dense(self.width, self.dtype)(nn.gelu(u)))

    @nn.compact
    def attend(self, h: Array, angles: Array | None) -> Array:
        """[B, T, C] -> [B, T, C]."""
        b, t, _ = h.shape
        qkv = Dense(3 * self.width, self.dtype)(h).reshape(b, t, 3, self.heads, -1)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        if angles is not None:
            q, k = embeddings.rotate(q, angles), embeddings.rotate(k, angles)
        mixed = ATTENTION[self.attention_by](q, k, v).swapaxes(1, 2).reshape(b, t, self.width)
        return Dense(self.width, self.dtype)(mixed)


def body(
    h: Array,
    c: Array,
    angles: Array | None,
    train: bool,
    *,
    blocks: int,
    heads: int,
    expand: int,
    dropout: float,
    attention_by: str,
    remat: bool,
    dtype: Any,
) -> Array:
    """The blocks and the last modulated norm.

    To be called in a compact method: the layers made here belong to its module.

    Args:
        h: [B, T, C] float32, the tokens.
        c: [B, C] float32, the vector of time, class and context.
        angles: [T, d / 2], or None for no rotary positions.
        train: drop out?
        blocks, heads, expand, dropout, attention_by, remat, dtype: see `Transformer`.

    Returns:
        [B, T, C] float32.
    """
    width = h.shape[-1]
    block = nn.remat(Block, static_argnums=(4,)) if remat else Block
    for i in range(blocks):
        name = f"block_{i}"  # the same with and without remat
        h = block(width, heads, expand, dropout, attention_by, dtype, name=name)(
            h, c, angles, train
        )
    scale, shift = (v[:, None] for v in Modulation(2, width)(c))
    return normalise(h) * (1 + scale) + shift


class Transformer(nn.Module):
    """x [B, *S] int below num_states, t [B] -> logits [B, *S, num_values] float32.

    Args:
        num_states: K states a site.
        num_values: V data values, the first of the states.
        num_classes: 0 where the data have no labels.
        ordinal: are the values ordered?
        kind: of the data: "image" [H, W, C], "sequence" [L] or "vector" [D].
        width: of the residual stream.
        blocks: number of blocks.
        heads: attention heads; width / heads must be a multiple of 2 (images: 4).
        expand: hidden width of a block, in widths.
        patch: sites a token, along each axis.
        embed: size of one site's embedding.
        dropout: probability, on the output of each branch.
        attention_by: a name in `ATTENTION`.
        remat: recompute each block's activations in the backward pass, to save memory.
        head: a name in `heads.HEADS`.
        smoothing: Gaussian width over ordinal levels at input and output, in levels.
        dtype: of matrix products; parameters, norms and logits are float32.
    """

    num_states: int
    num_values: int
    num_classes: int
    ordinal: bool
    kind: str
    width: int
    blocks: int
    heads: int
    expand: int
    patch: int
    embed: int
    dropout: float
    attention_by: str
    remat: bool
    head: str
    smoothing: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, *, train: bool = False) -> Array:
        """See the class; dropout, when training, draws from the stream "dropout"."""
        axes = num_axes(self.kind)
        grid = [n // self.patch for n in x.shape[1 : axes + 1]]
        sites = patchify(x, self.patch, axes)
        sites = sites.reshape(*sites.shape[:2], -1)

        c = embeddings.Condition(self.width, self.num_classes)(t, cond)
        embed = embeddings.value_embedding(
            self.num_states, self.num_values, self.embed, self.ordinal, self.smoothing, self.dtype
        )
        h = Dense(self.width, self.dtype)(embed(sites).reshape(*sites.shape[:2], -1))
        unit = nn.initializers.normal(1.0)  # the scale of the tokens: a smaller one trains slower
        h = h.astype(jnp.float32) + self.param("position", unit, h.shape[1:], jnp.float32)

        angles = None
        if self.kind != "vector":
            angles = embeddings.rotary_angles(grid, self.width // self.heads)
        h = body(
            h,
            c,
            angles,
            train,
            blocks=self.blocks,
            heads=self.heads,
            expand=self.expand,
            dropout=self.dropout,
            attention_by=self.attention_by,
            remat=self.remat,
            dtype=self.dtype,
        )
        readout = heads.Readout(self.num_values, self.head, self.smoothing, self.dtype)
        logits = readout(h, sites)
        logits = logits.reshape(*logits.shape[:2], self.patch**axes, -1, self.num_values)
        return unpatchify(logits, self.patch, grid).reshape(*x.shape, self.num_values)


def num_axes(kind: str) -> int:
    """The axes of an example that are cut into patches: not the channels of an image."""
    return 2 if kind == "image" else 1


def build(config: Mapping[str, Any], spec: DataSpec, num_states: int) -> Transformer:
    """The transformer of `config.network` for data of `spec`.

    Args:
        config: hyperparameters, the keys of `SETTINGS` and `heads.SETTINGS`.
        spec: shape and values of the data.
        num_states: K, the data values and the mask where there is one.

    Raises:
        UserError: an unknown key, a value that is not valid, a patch that does not divide the
            data, heads that do not divide the width.
    """
    values = heads.read(config, SETTINGS, spec)
    check_sides(spec.shape[: num_axes(spec.kind)], values, rotary=spec.kind != "vector")
    return Transformer(
        num_states=num_states,
        num_values=spec.num_values,
        num_classes=spec.num_classes,
        ordinal=spec.ordinal,
        kind=spec.kind,
        **values,
    )


def check_sides(sides: Sequence[int], values: Mapping[str, Any], rotary: bool) -> None:
    """Raises `UserError` unless patch, width and heads fit each other and the data.

    Args:
        sides: of the axes that are cut into patches.
        values: holds patch, width and heads.
        rotary: are pairs of each head turned, so many on every axis?
    """
    patch, width, number = values["patch"], values["width"], values["heads"]
    fits = all(n % patch == 0 for n in sides)
    settings.require(fits, "patch", patch, f"must divide the data's {' x '.join(map(str, sides))}")
    settings.require(width % number == 0, "heads", number, f"must divide width={width}")
    turns = 2 * len(sides) if rotary else 1
    even = width // number % turns == 0
    settings.require(even, "heads", number, f"width={width} / heads must be a multiple of {turns}")
