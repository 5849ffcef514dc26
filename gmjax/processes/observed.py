"""States of which a part is observed: conditional simulation by clamping."""

import jax
import jax.numpy as jnp

from gmjax.types import Cond, PyTree


def clamp(x: PyTree, clean: PyTree, cond: Cond) -> PyTree:
    """x with what cond["observed"] marks taken from `clean`; x itself where nothing is marked.

    Args:
        x, clean: arrays [B, *S], or trees of such.
        cond: may hold "observed", a tree like x of booleans [B] or [B, *S].
    """
    if cond is None or "observed" not in cond:
        return x
    return where(cond["observed"], clean, x)


def where(mask: PyTree, a: PyTree, b: PyTree) -> PyTree:
    """a where the mask is true and b elsewhere; a mask of fewer axes covers the trailing ones."""

    def pick(mask, a, b):
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)

    return jax.tree.map(pick, mask, a, b)


def batch_size(x: PyTree) -> int:
    """The leading length of a tree of arrays."""
    return len(jax.tree.leaves(x)[0])
