"""Finite sets, one a site: no geometry, but a check and features as every space has."""

from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.types import Array, Distribution, Space


def discrete(shape: tuple[int, ...], num_states: int, num_values: int | None = None) -> Space:
    """The values 0 .. V - 1 at every site of [*shape], and further states that noise reaches.

    Args:
        shape: [*S], the sites.
        num_states: K.
        num_values: V <= K, what data may be; all K if None.
    """
    values = num_values or num_states

    def check(x: np.ndarray) -> str:
        if x.shape[1:] != tuple(shape):
            return f"states have shape {x.shape[1:]}; valid: {tuple(shape)}"
        if np.any(x != np.round(x)) or x.min() < 0 or x.max() >= values:
            return f"states hold values outside 0..{values - 1}; valid: whole numbers in it"
        return ""

    def none(*args) -> NoReturn:
        raise ValueError("a finite set has no geometry: give a jump process, not a diffusion")

    size = float(np.prod(shape) * np.log(values))
    uniform = Distribution(
        lambda key: jax.random.randint(key, shape, 0, values), lambda x: jnp.asarray(-size)
    )
    return Space(
        shape=tuple(shape),
        dim=0,
        check=check,
        project=lambda x: x,
        tangent=none,
        exp=none,
        log=none,
        inner=none,
        frame=none,
        noise=none,
        uniform=uniform,
        embed=lambda x: _one_hot(x, num_states),
    )


def _one_hot(x: Array, num_states: int) -> Array:
    return jax.nn.one_hot(x, num_states).reshape(-1)
