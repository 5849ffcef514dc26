"""Values on levels as numbers in [-1, 1], so that Gaussian noise can be added to them."""

from collections.abc import Callable

import jax.numpy as jnp

from gmjax.types import Array, DataSpec


def codec(spec: DataSpec) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """(encode, decode) of data of `spec`; identities where the data are continuous.

    Values 0 .. V - 1 go to 2 v / (V - 1) - 1, and a number to the nearest value.
    """
    if not spec.num_values:
        return (lambda x: x), (lambda x: x)
    top = spec.num_values - 1

    def encode(x):
        return 2.0 / top * x.astype(jnp.float32) - 1.0

    def decode(x):
        return jnp.clip(jnp.round(0.5 * top * (x + 1)), 0, top).astype(jnp.int32)

    return encode, decode


def grid(spec: DataSpec) -> Array:
    """[V], the numbers that the values become."""
    return jnp.linspace(-1.0, 1.0, spec.num_values)
