"""One scan that drives every stepper from t = 1 down to t_min.

A stepper moves a batch from t to t_next with some evaluations of the network; the driver
owns the time grid, the keys, the sites that are clamped, the last denoising step and, only
when asked, the trajectory.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.processes.observed import batch_size
from gmjax.types import Array, Cond, Key, Predict, PyTree, Samples, Stepper


def reverse(
    stepper: Stepper,
    predict: Predict,
    key: Key,
    x: PyTree,
    times: Array,
    cond: Cond = None,
    *,
    finish: Callable[..., Array] | None = None,
    project: Callable[[Key, PyTree, Array], PyTree] | None = None,
    trajectory: int = 0,
) -> Samples:
    """Run the reverse process along `times`.

    Args:
        stepper: moves (x, t) to t_next.
        predict: the network, (x [B, *S], t [B], cond) -> output.
        key: a PRNG key.
        x: [B, *S], or a tree of such, a draw of the law at times[0].
        times: [N + 1], decreasing.
        cond: passed to `predict`.
        finish: (predict, key, x, t [B], cond) -> x0, one evaluation at times[-1].
        project: (key, x, t [B]) -> x, applied to the start and after every step; clamps the
            sites of a conditional simulation.
        trajectory: return the N + 1 states before `finish` of this many examples.

    Returns:
        `Samples` with x [B, *S] and the number of network evaluations.
    """
    steps = len(times) - 1
    clamp = project or (lambda key, x, t: x)
    key_steps, key_start, key_last = jax.random.split(key, 3)
    size = batch_size(x)
    start = clamp(key_start, x, jnp.full(size, times[0]))
    shown = lambda x: jax.tree.map(lambda a: a[:trajectory], x)

    def body(state, inputs):
        x, carry = state
        i, t, t_next = inputs
        key_step, key_clamp = jax.random.split(jax.random.fold_in(key_steps, i))
        t, t_next = jnp.full(size, t), jnp.full(size, t_next)
        x, carry = stepper.step(predict, key_step, x, t, t_next, carry, cond)
        x = clamp(key_clamp, x, t_next)
        return (x, carry), shown(x) if trajectory else None

    inputs = (jnp.arange(steps), times[:-1], times[1:])
    (x, _), path = jax.lax.scan(body, (start, stepper.init(start)), inputs)
    nfe = stepper.nfe(times)
    if finish is not None:
        t = jnp.full(size, times[-1])
        x = clamp(key_last, finish(predict, key_last, x, t, cond), jnp.zeros_like(t))
        nfe = nfe + 1
    if trajectory:
        join = lambda a, b: jnp.concatenate([a[None], b])
        path = jax.tree.map(join, shown(start), path)
    return Samples(x, jnp.asarray(nfe, jnp.int32), times, path)


def count_steps(times: Array | np.ndarray) -> Array:
    """One evaluation a step."""
    return jnp.asarray(len(times) - 1)
