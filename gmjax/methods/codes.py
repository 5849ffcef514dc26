"""What a model with codes shows of itself, `Method.views`, drawn by `gmjax.metrics.codes`."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from gmjax.types import Array

MOVED = np.linspace(-3, 3, 13)  # standard deviations
ROWS = 10  # coordinates that are moved


def traverse(code: Array, order: Array, mean: Array, std: Array) -> Array:
    """One code with one coordinate moved.

    Args:
        code: [L].
        order: [L] int, coordinates, those to be moved first; at most `ROWS` are.
        mean, std: [L], coordinate l goes through mean_l + std_l * `MOVED`.

    Returns:
        [R, K, L], a row a coordinate.
    """
    rows = order[:ROWS]
    z = jnp.broadcast_to(code, (len(rows), len(MOVED), len(code)))
    moved = mean[rows, None] + std[rows, None] * MOVED
    return z.at[jnp.arange(len(rows))[:, None], jnp.arange(len(MOVED)), rows[:, None]].set(moved)


def views(
    codes: Array,
    decode: Callable[..., Array],
    order: Array,
    mean: Array,
    std: Array,
    label: Array | None = None,
) -> dict[str, Array]:
    """The reconstruction, the traversal from the first example's code, and the codes.

    Args:
        codes: [B, L], of examples.
        decode: (z [n, L], label [n] or None) -> x [n, *S] of the data.
        order, mean, std: see `traverse`.
        label: [B], where the decoder is told it.

    Returns:
        reconstruction [B, *S], traversal [R, K, *S], codes [B, L].
    """
    z = traverse(codes[0], order, mean, std)
    count = z.shape[0] * z.shape[1]
    moved = decode(z.reshape(count, -1), None if label is None else jnp.full(count, label[0]))
    return {
        "reconstruction": decode(codes, label),
        "traversal": moved.reshape(*z.shape[:2], *moved.shape[1:]),
        "codes": codes,
    }
