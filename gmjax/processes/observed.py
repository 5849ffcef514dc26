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

    def keep(observed, clean, noisy):
        mask = observed.reshape(observed.shape + (1,) * (clean.ndim - observed.ndim))
        return jnp.where(mask, clean, noisy)

    return jax.tree.map(keep, cond["observed"], clean, x)


def batch_size(x: PyTree) -> int:
    """The leading length of a tree of arrays."""
    return len(jax.tree.leaves(x)[0])
