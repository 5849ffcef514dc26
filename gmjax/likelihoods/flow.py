"""The log-likelihood of a score model by its probability flow.

The flow dx/dt = v(x, t), v = b - (div A + A s) / 2, has the marginals of the diffusion, so
along it (instantaneous change of variables)

    log p_{s}(x_s) = log base(x_1) + int_s^1 (div v)(x_t, t) dt.

The integral runs with x by the classical Runge-Kutta rule on a fixed grid, in the coordinates
that embed the space; the velocity is evaluated at the projection, which extends it smoothly
off the space, and the state is projected after every step. Source: Chen et al. (2018); Song et
al. (2021), section 4.3; De Bortoli et al. (2022) on manifolds.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax.types import Array, Cond, Key, Predict, Process


def log_likelihood(
    process: Process, times: Array, probes: int = 0
) -> Callable[[Predict, Key, Array, Cond], Array]:
    """log p_s(x) of each example, s the least of `times`, in nats in the reference measure.

    Args:
        process: on one space, with a velocity.
        times: [N + 1], decreasing from 1, as the samplers' grids; 4 N evaluations.
        probes: 0: the divergence exactly, by one derivative a frame vector; else Hutchinson's
            estimator with so many random directions, fixed along the path.

    Returns:
        (predict, key, x [B, *S], cond) -> [B]. Differentiable in what `predict` closes over.

    Raises:
        ValueError: the process has no probability flow, or lives on a product.
    """
    space, of = process.space, process.velocity
    if of is None or isinstance(space, dict):
        raise ValueError("no probability flow: this process has no velocity on a single space")

    def log_prob(predict: Predict, key: Key, x: Array, cond: Cond) -> Array:
        def velocity(x, t):
            x = jax.vmap(space.project)(x)
            out = predict(x, jnp.full(len(x), t), cond)

            def one(x, out):
                score = process.read(out, x, t)  # type: ignore[misc]
                return space.tangent(x, of(lambda x, t: score)(x, t))

            return jax.vmap(one)(x, out)

        def directions(x):
            if not probes:
                return jnp.moveaxis(jax.vmap(space.frame)(x), 1, 0), 1.0
            keys = jax.random.split(key, (probes, len(x)))
            return jax.vmap(lambda k: jax.vmap(space.noise)(k, x))(keys), 1 / probes

        def rates(x, t):
            at = jax.vmap(space.project)(x)
            e, share = directions(at)

            def along(v):
                speed, turned = jax.jvp(lambda y: velocity(y, t), (at,), (v,))
                return speed, jax.vmap(space.inner)(at, v, turned)

            speed, parts = jax.vmap(along)(e)
            return speed[0], share * jnp.sum(parts, 0)

        def body(state, pair):
            x, total = state
            t, h = pair[0], pair[1] - pair[0]
            v1, d1 = rates(x, t)
            v2, d2 = rates(x + 0.5 * h * v1, t + 0.5 * h)
            v3, d3 = rates(x + 0.5 * h * v2, t + 0.5 * h)
            v4, d4 = rates(x + h * v3, t + h)
            x = jax.vmap(space.project)(x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4))
            return (x, total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)), None

        ascending = times[::-1]
        pairs = jnp.stack([ascending[:-1], ascending[1:]], -1)
        (x, total), _ = jax.lax.scan(body, (x, jnp.zeros(len(x))), pairs)
        return jax.vmap(process.base.log_prob)(x) + total

    return log_prob
