"""Implicit score matching for the Wright-Fisher diffusion: no score of the kernel is needed.

With A = diag(x) - x x^T, div A = 1 - D x and s = grad log beta, the implicit integrand is

    L* beta / beta + L log beta = rate(t) [ tr(A grad s) + s^T A s / 2 + s . (1 - D x)
                                            - D (D - 1) / 2 + |alpha| (D - 1) / 2 ],

where the drift has dropped out but for its divergence and tr(A grad s) = sum_k v_k . D_{v_k} s
over the fields v_k = sqrt(x_k) (e_k - x). Source: Benton et al. (2022), appendix on the simplex.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.losses.times import TimeSampler
from gmjax.processes.schedules import Schedule
from gmjax.types import Array, Cond, Key, Loss, Predict, Process


def implicit_wright_fisher(
    process: Process,
    schedule: Schedule,
    alpha: float | Sequence[float],
    times: TimeSampler,
    probes: int = 0,
) -> Loss:
    """`losses.generalised.implicit` for one noised draw an example, without an adjoint.

    Args:
        process: `wright_fisher(schedule, (D,), alpha)`, which draws x_t and reads scores.
        schedule, alpha: as given to it.
        times: the time sampler.
        probes: random directions for the trace; 0 takes all D fields, exactly.

    Returns:
        A loss (predict, key, x0 [B, D], cond) -> ([B] nats, {}).
    """
    size = process.space.shape[0]
    read = process.read
    assert read is not None
    theta = float(np.sum(np.broadcast_to(alpha, (size,))))
    constant = (theta - size) * (size - 1) / 2

    def loss(predict: Predict, key: Key, x0: Array, cond: Cond):
        key_t, key_x, key_v = jax.random.split(key, 3)
        t, weight = times(key_t, len(x0))
        x = jax.vmap(process.sample)(jax.random.split(key_x, len(x0)), x0, t)
        score = lambda y: jax.vmap(read)(predict(y, t, cond), y, t)
        # Directions v [K, B, D] whose outer products sum to A, or do on average.
        if probes:
            signs = jax.random.rademacher(key_v, (probes, *x.shape), x.dtype) / probes**0.5
            root = signs * jnp.sqrt(x)
            directions = root - x * jnp.sum(root, -1, keepdims=True)
        else:
            directions = jax.vmap(lambda e, r: r[:, None] * (e - x))(
                jnp.eye(size, dtype=x.dtype), jnp.sqrt(x).T
            )

        def turn(v):
            s, along = jax.jvp(score, (x,), (v,))
            return s, jnp.sum(v * along, -1)

        s, turns = jax.vmap(turn, out_axes=(None, 0))(directions)
        spread = jnp.sum(x * s**2, -1) - jnp.sum(x * s, -1) ** 2
        lean = jnp.sum(s * (1 - size * x), -1)
        value = jnp.sum(turns, 0) + spread / 2 + lean + constant
        return weight * jax.vmap(schedule.rate)(t) * value, {}

    return loss
