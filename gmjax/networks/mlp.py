"""A residual MLP over all sites at once, for small vectors, sequences and images.

Every site's state is embedded, the embeddings of all sites are laid side by side, and residual
blocks ``h + W2 silu(W1 (norm(h) (1 + scale) + shift))`` follow, with scale and shift linear in the
vector of time and class (Perez et al. 2018, FiLM).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gmjax.networks import embeddings, heads, settings
from gmjax.networks.layers import Dense, Modulation, normalise
from gmjax.types import Array, Cond, DataSpec

SETTINGS = {
    "width": settings.size(256),
    "blocks": settings.size(2),
    "expand": settings.size(2),
    "embed": settings.size(16),
    "dropout": settings.share(0.0),
}


def body(
    h: Array, c: Array, train: bool, blocks: int, expand: int, dropout: float, dtype: Any
) -> Array:
    """The residual blocks.

    To be called in a compact method: the layers made here belong to its module.

    Args:
        h: [B, C] float32.
        c: [B, E] float32, the vector of time, class and context.
        train: drop out?
        blocks, expand, dropout, dtype: see `Mlp`.

    Returns:
        [B, C] float32.
    """
    width = h.shape[-1]
    for _ in range(blocks):
        scale, shift = Modulation(2, width)(c)
        u = normalise(h) * (1 + scale) + shift
        u = nn.silu(Dense(expand * width, dtype)(u))
        u = nn.Dropout(dropout, deterministic=not train)(u)
        h = h + Dense(width, dtype)(u)
    return h


class Mlp(nn.Module):
    """x [B, *S] int below num_states, t [B] -> logits [B, *S, num_values] float32.

    Args:
        num_states: K states a site.
        num_values: V data values, the first of the states.
        num_classes: 0 where the data have no labels.
        ordinal: are the values ordered?
        width: of the residual stream.
        blocks: number of residual blocks.
        expand: hidden width of a block, in widths.
        embed: size of one site's embedding.
        dropout: probability, on the hidden layer of each block.
        head: a name in `heads.HEADS`.
        smoothing: Gaussian width over ordinal levels at input and output, in levels.
        dtype: of matrix products; parameters, norms and logits are float32.
    """

    num_states: int
    num_values: int
    num_classes: int
    ordinal: bool
    width: int
    blocks: int
    expand: int
    embed: int
    dropout: float
    head: str
    smoothing: float
    dtype: str

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, *, train: bool = False) -> Array:
        """See the class; dropout, when training, draws from the stream "dropout"."""
        flat = x.reshape(len(x), -1)
        c = embeddings.Condition(self.width, self.num_classes)(t, cond)
        embed = embeddings.value_embedding(
            self.num_states, self.num_values, self.embed, self.ordinal, self.smoothing, self.dtype
        )
        h = embed(flat).reshape(len(x), -1)
        h = Dense(self.width, self.dtype)(h).astype(jnp.float32)
        h = body(h, c, train, self.blocks, self.expand, self.dropout, self.dtype)
        readout = heads.Readout(self.num_values, self.head, self.smoothing, self.dtype)
        return readout(normalise(h), flat).reshape(*x.shape, self.num_values)


def build(config: Mapping[str, Any], spec: DataSpec, num_states: int) -> Mlp:
    """The MLP of `config.network` for data of `spec`.

    Args:
        config: hyperparameters, the keys of `SETTINGS` and `heads.SETTINGS`.
        spec: shape and values of the data.
        num_states: K, the data values and the mask where there is one.

    Raises:
        UserError: an unknown key or a value that is not valid.
    """
    values = heads.read(config, SETTINGS, spec)
    return Mlp(
        num_states=num_states,
        num_values=spec.num_values,
        num_classes=spec.num_classes,
        ordinal=spec.ordinal,
        **values,
    )
