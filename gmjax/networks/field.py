"""A residual MLP from features of a state to a generalised score, on any space.

The state enters as the features that its space gives (coordinates, cosines and sines, one-hot
values), laid side by side with sines of a random projection of them, which let a small network
follow densities that vary over short distances (Tancik et al. 2020). Residual blocks
``h + W2 silu(W1 (norm(h) (1 + scale) + shift))`` follow, scale and shift linear in the vector of
time, class and context. The last layer, which sees the features too, is zero at first.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gmjax.networks import embeddings, mlp, settings
from gmjax.networks.layers import Dense, Modulation, normalise
from gmjax.types import Array, Cond

SETTINGS = {
    "width": settings.size(256),
    "blocks": settings.size(3),
    "expand": settings.size(2),
    "frequencies": settings.size(64),
    "bandwidth": settings.length(1.0),
    "dropout": settings.share(0.0),
    "dtype": settings.choice("float32", ("float32", "bfloat16")),
}


class Field(nn.Module):
    """features [B, F], t [B], cond -> [B, outputs] float32.

    Args:
        outputs: size of the output.
        num_classes: 0 where the data have no labels.
        width: of the residual stream.
        blocks: number of residual blocks.
        expand: hidden width of a block, in widths.
        frequencies: number of random projections.
        bandwidth: standard deviation of a projection's entries, radians per unit of feature.
        dropout: probability, on the hidden layer of each block.
        dtype: of matrix products; parameters, norms and outputs are float32.
    """

    outputs: int
    num_classes: int
    width: int
    blocks: int
    expand: int
    frequencies: int
    bandwidth: float
    dropout: float
    dtype: str

    @nn.compact
    def __call__(
        self, features: Array, t: Array, cond: Cond = None, *, train: bool = False
    ) -> Array:
        """cond may hold "label" [B] int and "context" [B, C] float."""
        c = embeddings.Condition(self.width, self.num_classes)(t, cond)
        c = embeddings.add_context(c, cond)
        draw = jax.nn.initializers.normal(self.bandwidth)
        shape = (features.shape[-1], self.frequencies)
        angles = features @ self.param("frequencies", draw, shape, jnp.float32)
        waves = jnp.concatenate([features, jnp.sin(angles), jnp.cos(angles)], -1)
        h = Dense(self.width, self.dtype)(waves).astype(jnp.float32)
        h = mlp.body(h, c, train, self.blocks, self.expand, self.dropout, self.dtype)
        # Norms forget how far out a state is, and scores grow with it: a linear path keeps it.
        (scale,) = Modulation(1, features.shape[-1])(c)
        h = jnp.concatenate([normalise(h), features * (1 + scale)], -1)
        last = Dense(self.outputs, kernel_init=nn.initializers.zeros)
        return last(h).astype(jnp.float32)


def build(config: Mapping[str, Any], outputs: int, num_classes: int = 0) -> Field:
    """The field of `config.network`.

    Args:
        config: hyperparameters, the keys of `SETTINGS`.
        outputs: size of the output.
        num_classes: 0 where the data have no labels.

    Raises:
        UserError: an unknown key or a value that is not valid.
    """
    return Field(outputs=outputs, num_classes=num_classes, **settings.read(config, SETTINGS))
