"""The log-likelihood of a model by its flow.

Along dx/dt = v(x, t) with the marginals p_t (instantaneous change of variables)

    log p_{s}(x_s) = log base(x_1) + int_s^1 (div v)(x_t, t) dt.

The velocity is a network's own (flow matching), or that of the probability flow of a diffusion,
v = b - (div A + A s) / 2, whose score s a network gives. The integral runs with x by the classical
Runge-Kutta rule on a fixed grid, in the coordinates that embed the space; the velocity is evaluated
at the projection, which extends it smoothly off the space, and the state is projected after every
step. Source: Chen et al. (2018); Song et al. (2021), section 4.3; De Bortoli et al. (2022) on
manifolds.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from gmjax.processes.observed import batch_size
from gmjax.spaces.product import product
from gmjax.types import Array, Cond, Key, Predict, Process, PyTree, UserError, lookup

LogLikelihood = Callable[[Predict, Key, PyTree, Cond], Array]

PROBES = {"rademacher": jax.random.rademacher, "gaussian": jax.random.normal}


def log_likelihood(
    process: Process, times: Array, probes: int = 0, law: str = "rademacher"
) -> LogLikelihood:
    """log p_s(x) under a score network, s the least of `times`, in nats in the reference measure.

    Args:
        process: with a velocity.
        times, probes, law: see `along`.

    Returns:
        See `along`; `predict` gives what the process reads as a score.

    Raises:
        ValueError: the process has no probability flow.
    """
    of = process.velocity
    if of is None:
        raise ValueError("no probability flow: this process has no velocity")

    def velocity(out, x, t):
        score = process.read(out, x, t)  # type: ignore[misc]
        return of(lambda x, t: score)(x, t)

    return along(process.space, velocity, process.base.log_prob, times, probes, law)


def along(
    space: PyTree,
    velocity: Callable[[PyTree, PyTree, Array], PyTree],
    log_base: Callable[[PyTree], Array],
    times: Array,
    probes: int = 0,
    law: str = "rademacher",
) -> LogLikelihood:
    """log p_s(x) of each example, s the least of `times`, in nats in the reference measure.

    Args:
        space: a `Space`, or a dictionary of them for states that are dictionaries.
        velocity: (network output, x, t) -> v, of one state.
        log_base: x -> [], the log density at the largest time.
        times: [N + 1], decreasing, as the samplers' grids; 4 N evaluations.
        probes: 0: the divergence exactly, by one derivative a frame vector; else Hutchinson's
            estimator with so many random directions, fixed along the path.
        law: of the directions, a name in `PROBES`. With A the symmetric part of the derivative
            in the frame, normal ones have variance 2 |A|^2, signs that without the diagonal.

    Returns:
        (predict, key, x [B, *S], cond) -> [B]. Differentiable in what `predict` closes over.

    Raises:
        UserError: an unknown law, or a negative number of directions.

    Source: Hutchinson (1990) with signs; Grathwohl et al. (2019) for fixed directions.
    """
    draw = lookup(PROBES, law, "config.evaluate.probe")
    if probes < 0:
        raise UserError(f"config.evaluate.probes={probes} must be 0 (exact) or more")
    space = product(space) if isinstance(space, Mapping) else space
    tree, noise = jax.tree.map, lambda key, x: space.noise(key, x, draw)

    def log_prob(predict: Predict, key: Key, x: PyTree, cond: Cond) -> Array:
        size = batch_size(x)

        def speed(x, t):
            x = jax.vmap(space.project)(x)
            out = predict(x, jnp.full(size, t), cond)
            one = lambda x, out: space.tangent(x, velocity(out, x, t))
            return jax.vmap(one)(x, out)

        def directions(x):
            if not probes:
                frame = jax.vmap(space.frame)(x)
                return tree(lambda e: jnp.moveaxis(e, 1, 0), frame), 1.0
            keys = jax.random.split(key, (probes, size))
            return jax.vmap(lambda k: jax.vmap(noise)(k, x))(keys), 1 / probes

        def rates(x, t):
            at = jax.vmap(space.project)(x)
            e, share = directions(at)

            def turn(v):
                value, turned = jax.jvp(lambda y: speed(y, t), (at,), (v,))
                return value, jax.vmap(space.inner)(at, v, jax.vmap(space.tangent)(at, turned))

            value, parts = jax.vmap(turn, out_axes=(None, 0))(e)
            return value, share * jnp.sum(parts, 0)

        def ahead(x, h, *moves):
            """x + h times a weighted sum of velocities."""
            weights, fields = zip(*moves, strict=True)
            return tree(
                lambda a, *v: a + h * sum(w * b for w, b in zip(weights, v, strict=True)),
                x,
                *fields,
            )

        def body(state, pair):
            x, total = state
            t, h = pair[0], pair[1] - pair[0]
            v1, d1 = rates(x, t)
            v2, d2 = rates(ahead(x, 0.5 * h, (1, v1)), t + 0.5 * h)
            v3, d3 = rates(ahead(x, 0.5 * h, (1, v2)), t + 0.5 * h)
            v4, d4 = rates(ahead(x, h, (1, v3)), t + h)
            x = jax.vmap(space.project)(ahead(x, h / 6, (1, v1), (2, v2), (2, v3), (1, v4)))
            return (x, total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)), None

        ascending = times[::-1]
        pairs = jnp.stack([ascending[:-1], ascending[1:]], -1)
        start = (x, jnp.zeros(size, jnp.result_type(*jax.tree.leaves(x))))
        (x, total), _ = jax.lax.scan(body, start, pairs)
        return jax.vmap(log_base)(x) + total

    return log_prob
