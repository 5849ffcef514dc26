"""Many independent runs of one program: vmapped, in chunks, over all devices, with a progress bar.

A replicate is a function of a key alone. Chunks bound the memory: a chunk's keys are laid out over
the devices and its replicates run as one program; what is kept of it is either all results
(`collect`, for small ones) or the sums that moments need (`moments`).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gmjax.types import Array, Key, PyTree, UserError

Draw = Callable[[Key], PyTree]


class Moments(NamedTuple):
    """Of independent replicates; every leaf is shaped as one replicate's."""

    number: int
    mean: PyTree
    variance: PyTree  # unbiased

    def error(self) -> PyTree:
        """Standard errors of the means."""
        return jax.tree.map(lambda v: np.sqrt(v / self.number), self.variance)


def collect(draw: Draw, key: Key, count: int, chunk: int, label: str = "replicates") -> PyTree:
    """All results: every leaf [count, ...], on the host.

    Args:
        draw: key -> the result of one replicate.
        key: replicate i takes split number i of it, whatever the chunks and the devices.
        count: replicates, 1 or more.
        chunk: of them at a time, rounded up to a multiple of the devices.
        label: of the progress bar.
    """
    run = jax.jit(jax.vmap(draw))
    parts = [jax.device_get(run(keys)) for keys, _ in _chunks(key, count, chunk, label)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)


def moments(draw: Draw, key: Key, count: int, chunk: int, label: str = "replicates") -> Moments:
    """Mean and variance of `count` replicates, 2 or more; arguments as in `collect`.

    A chunk's mean and sum of squares about it join the total by the parallel form of Welford's
    rule, so that float32 loses nothing to a large mean.
    """

    @jax.jit
    def add(total, keys, counted):
        n, mean, squares = total
        m = jnp.sum(counted)
        weigh = lambda x: counted.reshape(-1, *[1] * (x.ndim - 1))
        x = jax.vmap(draw)(keys)
        own = jax.tree.map(lambda x: jnp.sum(weigh(x) * x, 0) / m, x)
        about = jax.tree.map(lambda x, c: jnp.sum(weigh(x) * (x - c) ** 2, 0), x, own)
        gap = jax.tree.map(jnp.subtract, own, mean)
        mean = jax.tree.map(lambda a, g: a + g * m / (n + m), mean, gap)
        squares = jax.tree.map(lambda a, b, g: a + b + g**2 * n * m / (n + m), squares, about, gap)
        return n + m, mean, squares

    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(draw, key))
    total = (jnp.zeros(()), zero, zero)
    for keys, counted in _chunks(key, count, chunk, label):
        total = jax.block_until_ready(add(total, keys, counted))
    _, mean, squares = jax.device_get(total)
    return Moments(count, mean, jax.tree.map(lambda s: s / (count - 1), squares))


def _chunks(key: Key, count: int, chunk: int, label: str) -> Iterator[tuple[Key, Array]]:
    """Keys [size] laid out over the devices, and 1 for those that count."""
    from rich.console import Console
    from rich.progress import track

    if count < 1 or chunk < 1:
        raise UserError(f"{count} replicates in chunks of {chunk}; valid: at least 1 each")
    devices = np.array(jax.devices())
    size = -(-min(chunk, count) // devices.size) * devices.size
    place = NamedSharding(Mesh(devices, ("replicates",)), PartitionSpec("replicates"))
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(-(-count // size) * size))
    console = Console(stderr=True)
    steps = range(0, count, size)
    for at in track(steps, label, console=console, transient=True, disable=not console.is_terminal):
        counted = (jnp.arange(at, at + size) < count).astype(jnp.float32)
        yield jax.device_put((keys[at : at + size], counted), place)
