"""An autoencoder of vectors: two perceptrons that mirror each other, or two linear maps.

Without hidden layers x -> V (W x + a) + b is linear, and its least squared error is that of the
principal components, whose plane the columns of V then span (Baldi and Hornik 1989).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gmjax.networks import settings
from gmjax.networks.layers import Dense
from gmjax.types import Array

SETTINGS = {
    "latent": settings.size(10),
    "hidden": settings.Setting(
        (),
        "a sequence of positive integers, or none",
        lambda v: isinstance(v, (tuple, list)) and all(isinstance(i, int) and i > 0 for i in v),
    ),
}


class Autoencoder(nn.Module):
    """x [B, D] -> x [B, D] through codes [B, latent].

    Args:
        features: D.
        latent: size of a code.
        hidden: widths of the encoder's layers, with silu; the decoder has them in reverse.
    """

    features: int
    latent: int
    hidden: tuple[int, ...] = ()

    def setup(self):
        self.encoder = [*(Dense(width) for width in self.hidden), Dense(self.latent)]
        self.decoder = [*(Dense(width) for width in reversed(self.hidden)), Dense(self.features)]

    def encode(self, x: Array) -> Array:
        """[B, D] -> [B, latent] float32."""
        return _chain(self.encoder, x)

    def decode(self, z: Array) -> Array:
        """[B, latent] -> [B, D] float32."""
        return _chain(self.decoder, z)

    def __call__(self, x: Array) -> Array:
        """The reconstruction."""
        return self.decode(self.encode(x))


def _chain(layers: list[Dense], x: Array) -> Array:
    for layer in layers[:-1]:
        x = nn.silu(layer(x))
    return layers[-1](x).astype(jnp.float32)


def build(config: Mapping[str, Any], features: int) -> Autoencoder:
    """The autoencoder of `config.network`.

    Args:
        config: the keys of `SETTINGS`.
        features: D.

    Raises:
        UserError: an unknown key or a value that is not valid.
    """
    return Autoencoder(features, **settings.read(config, SETTINGS))
