"""R^d, and boxes and half-spaces of it that a process may not leave."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.types import Array, Space


def euclidean(
    shape: int | tuple[int, ...],
    project: Callable[[Array], Array] = lambda x: x,
    embed: Callable[[Array], Array] = jnp.ravel,
    check: Callable[[np.ndarray], str] | None = None,
) -> Space:
    """R^S with its flat metric: exp(x, v) = x + v.

    Args:
        shape: of one state, or d.
        project: brings a state back where the space has a boundary; identity in R^d.
        embed: features for a network.
        check: more to check of data than that they are finite.
    """
    shape = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(shape)
    dim = int(np.prod(shape))

    def valid(x: np.ndarray) -> str:
        if x.shape[1:] != shape:
            return f"states have shape {x.shape[1:]}; valid: {shape}"
        if not np.isfinite(x).all():
            return "states hold values that are not finite"
        return check(x) if check else ""

    return Space(
        shape=shape,
        dim=dim,
        check=valid,
        project=project,
        tangent=lambda x, v: v,
        exp=lambda x, v: x + v,
        log=lambda x, y: y - x,
        inner=lambda x, u, v: jnp.sum(u * v),
        frame=lambda x: jnp.eye(dim, dtype=x.dtype).reshape(dim, *shape),
        noise=lambda key, x, draw=jax.random.normal: draw(key, shape, x.dtype),
        uniform=None,
        embed=embed,
    )
