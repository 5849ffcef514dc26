"""How a batch of data x0 and a batch of the source x1 are paired.

A coupling is (key, x0 [B, *S], x1 [B, *S]) -> j [B]: row i of x0 goes with row j_i of x1. Any
coupling with the right marginals gives the right marginals p_t; one of low transport cost gives
straighter paths and less variance of the target (Pooladian et al. 2023; Tong et al. 2024). Row
numbers, rather than rows, keep labels and whatever else comes with x0 in place.

    paired        j_i = i: as they come, for source and data that belong together
    independent   a random permutation
    exact         the permutation of least total squared distance
    sinkhorn      j_i drawn from row i of the entropic plan

The distance is the space's geodesic one; sites of finite sets count one where they differ, and on
products squares add up. Both transports run inside the compiled step, on any device and mesh: the
assignment by optax (Hungarian method, exact, B^3 work in about B^2 sequential steps: on one CPU
core 0.6 ms at B = 64, 2.5 ms at 128, 32 ms at 256), the entropic plan by ott-jax (matrix products:
about 10 ms at 256 and at 512; the extra `ot`). A host callback to scipy would be faster from
B = 256 on, but stalls where several devices of one process wait for each other in a collective. A
batch may be cut in groups that are coupled by themselves, side by side.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from optax import assignment

from gmjax.processes.observed import batch_size
from gmjax.types import Array, Key, PyTree, UserError, lookup

Coupling = Callable[[Key, PyTree, PyTree], Array]


def paired(key: Key, x0: PyTree, x1: PyTree) -> Array:
    """j_i = i."""
    return jnp.arange(batch_size(x0))


def independent(key: Key, x0: PyTree, x1: PyTree) -> Array:
    """A random permutation, which also parts what came in pairs."""
    return jax.random.permutation(key, batch_size(x0))


def exact(space: PyTree) -> Coupling:
    """The pairing of least total squared distance.

    Args:
        space: of the states, or a tree of spaces.
    """

    def couple(key, x0, x1):
        rows, columns = assignment.hungarian_algorithm(squared_distances(space, x0, x1))
        return jnp.zeros_like(columns).at[rows].set(columns)

    return couple


def sinkhorn(space: PyTree, regularisation: float = 0.05, iterations: int = 200) -> Coupling:
    """Draws from the entropic plan, whose first marginal is uniform.

    Args:
        space: of the states, or a tree of spaces.
        regularisation: of the entropy, in units of the mean squared distance.
        iterations: at most so many.

    Raises:
        UserError: a regularisation that is not positive, or ott-jax is not installed.
    """
    if not regularisation > 0:
        raise UserError(f"config.coupling.regularisation={regularisation} must exceed 0")
    if iterations < 1:
        raise UserError(f"config.coupling.iterations={iterations} must be at least 1")
    try:
        from ott.geometry.geometry import Geometry
        from ott.solvers import linear
    except ImportError as error:
        raise UserError(
            "config.coupling.name='sinkhorn' needs ott-jax: pip install 'gmjax[ot]'; valid without:"
            " exact, independent, paired"
        ) from error

    def couple(key, x0, x1):
        cost = squared_distances(space, x0, x1)
        scale = jnp.maximum(jnp.mean(cost), 1e-30)
        geometry = Geometry(cost_matrix=cost / scale, epsilon=regularisation)
        # Draws want the plan to a per cent, which Sinkhorn's last updates would only polish.
        plan = linear.solve(geometry, max_iterations=iterations, threshold=1e-2)
        logits = (plan.f[:, None] + plan.g - cost / scale) / regularisation
        return jax.random.categorical(key, logits, -1)

    return couple


def squared_distances(space: PyTree, x: PyTree, y: PyTree) -> Array:
    """Squared geodesic distances of every x [n, *S] from every y [m, *S]: [n, m].

    Args:
        space: of the states, or a tree of spaces; sites of a finite set count one each.
        x, y: trees like it.
    """
    if isinstance(space, dict):
        parts = [squared_distances(space[name], x[name], y[name]) for name in space]
        return jnp.sum(jnp.stack(parts), 0)

    def between(a, b):
        if space.dim == 0:
            return jnp.sum((a != b).astype(jnp.float32))
        v = space.log(a, b)
        return space.inner(a, v, v)

    # A row at a time: no [n, m, *S] array.
    return jax.lax.map(lambda a: jax.vmap(lambda b: between(a, b))(y), x)


def grouped(coupling: Coupling, size: int) -> Coupling:
    """A coupling of groups of `size` consecutive rows, side by side; 0: of the whole batch.

    Raises:
        UserError: (from the coupling) the batch is not a multiple of the size.
    """
    if size < 0:
        raise UserError(f"config.coupling.group={size} must be 0 (the whole batch) or more")
    if not size:
        return coupling

    def couple(key, x0, x1):
        n = batch_size(x0)
        if n % size:
            raise UserError(f"config.coupling.group={size} must divide the batch of {n}")
        cut = lambda tree: jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), tree)
        keys = jax.random.split(key, n // size)
        within = jax.vmap(coupling)(keys, cut(x0), cut(x1))
        return (within + size * jnp.arange(n // size)[:, None]).reshape(-1)

    return couple


COUPLINGS: dict[str, Callable[..., Coupling]] = {
    "paired": lambda space: paired,
    "independent": lambda space: independent,
    "exact": exact,
    "sinkhorn": sinkhorn,
}
# The keys of each coupling, with their defaults.
KEYS: dict[str, dict[str, Any]] = {
    "paired": {},
    "independent": {},
    "exact": {},
    "sinkhorn": {"regularisation": 0.05, "iterations": 200},
}


def build(config: dict[str, Any], space: PyTree) -> Coupling:
    """The coupling of `config.coupling`: a name in `COUPLINGS` with its keys, and `group`.

    Args:
        config: its `name` may also be a function, a user's own coupling.
        space: of the states.

    Raises:
        UserError: an unknown name, or a value that is not valid.
    """
    name = config["name"]
    if callable(name):
        return grouped(name, config.get("group") or 0)
    form = lookup(COUPLINGS, name, "config.coupling.name")
    own = {k: v for k, v in config.items() if k in KEYS[name] and v is not None}
    make = partial(form, space, **own)
    return grouped(make(), config.get("group") or 0)
