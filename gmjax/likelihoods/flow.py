"""The log-likelihood of a model by its flow.

Along dx/dt = v(x, t) with the marginals p_t (instantaneous change of variables)

    log p_{s}(x_s) = log base(x_1) + int_s^1 (div v)(x_t, t) dt.

The velocity is a network's own (flow matching), or that of the probability flow of a diffusion,
v = b - (div A + A s) / 2, whose score s a network gives. The integral runs with x by the classical
Runge-Kutta rule on a fixed grid, in the coordinates that embed the space; the velocity is evaluated
at the projection, which extends it smoothly off the space, and the state is projected after every
step. Source: Chen et al. (2018); Song et al. (2021), section 4.3; De Bortoli et al. (2022) on
manifolds.

A Gaussian path needs less. With u = arctan(sigma / alpha), the size r = sqrt(alpha^2 + sigma^2)
and y = x / r = cos(u) x0 + sin(u) eps, every path is one curve,

    dy/du = cos(u) E[eps | x] - sin(u) E[x0 | x],

without the infinite slopes that alpha, sigma or the score have in t at an end or at a knot. A
head that says nothing of x0 in pure noise (eps, score) has its means there extrapolated, by the
parabola through the last half-step and the two before it, which keeps the fourth order.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.paths import heads
from gmjax.paths.gaussian import GaussianPath, base_std
from gmjax.processes.gaussian import normal
from gmjax.processes.observed import batch_size
from gmjax.spaces.euclidean import euclidean
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
        raise ValueError(
            "no probability flow: this process has no velocity (a Gaussian path: flow.on_path)"
        )

    def velocity(out, x, t):
        score = process.read(out, x, t)  # type: ignore[misc]
        return of(lambda x, t: score)(x, t)

    return along(process.space, velocity, process.base.log_prob, times, probes, law)


def on_path(
    path: GaussianPath,
    head: str,
    shape: tuple[int, ...],
    times: Array,
    probes: int = 0,
    law: str = "rademacher",
    data_std: float = 1.0,
) -> LogLikelihood:
    """log p_s(x) under a network of a Gaussian path, s the least of `times`, in nats.

    It is that of the model, which starts from N(0, alpha_1^2 data_std^2 + sigma_1^2): where
    alpha_1 > 0 the data's mean m costs a KL(q_1 || base) of about alpha_1^2 m^2 / 2 an entry.

    Args:
        path: the path.
        head: what the network predicts, in `paths.heads.HEADS`.
        shape: [*S], one state.
        times: [N + 1], decreasing, as the samplers' grids, with noise at the last.
        probes, law: see `along`.
        data_std: standard deviation of an entry of the data.

    Returns:
        See `along`; 4 N evaluations, of a head blind in pure noise two more.
    """
    space, standard = euclidean(shape), normal(shape)
    angles = jnp.arctan2(path.sigma(times), path.alpha(times))
    size = lambda t: jnp.sqrt(path.alpha(t) ** 2 + path.sigma(t) ** 2)
    tiny = jnp.finfo(angles.dtype).eps

    def means(predict, y, u, cond):
        """(E[x0 | x], E[eps | x]) [B, *S] at an angle []."""
        tangent = jnp.sin(u) / jnp.maximum(jnp.cos(u), tiny)
        t = jnp.clip(path.inverse(-2 * jnp.log(tangent)), times[-1], times[0])
        t = jnp.full(len(y), t)
        x = heads.spread(size(t), y) * y
        return heads.denoised(head, path, predict(x, t, cond), x, t, data_std)

    def extrapolated(predict, y, cond):
        back = angles[0] - 0.5 * (angles[0] - angles[1]) * jnp.arange(1, 4)
        near = jax.vmap(lambda u: means(predict, y, u, cond))(back)
        return jax.tree.map(lambda m: 3 * m[0] - 3 * m[1] + m[2], near)

    # A head says c = sigma p - alpha q of x0, in pure noise p.
    form, noise = lookup(heads.HEADS, head, "config.loss.head"), np.asarray([0.0, 1.0, -1.0, 0.0])
    with jax.ensure_compile_time_eval():
        blind = bool(form(*noise, data_std)[0] == 0)

    def network(predict):
        def both(y, u, cond):
            if not blind:
                return means(predict, y, u[0], cond)
            return jax.lax.cond(
                jnp.cos(u[0]) < tiny**0.5,
                lambda: extrapolated(predict, y, cond),
                lambda: means(predict, y, u[0], cond),
            )

        return both

    last = base_std(path, data_std) / size(times[0])
    run = along(
        space,
        lambda out, y, u: jnp.cos(u) * out[1] - jnp.sin(u) * out[0],
        lambda y: standard.log_prob(y / last) - space.dim * jnp.log(last),
        angles,
        probes,
        law,
    )

    def log_prob(predict: Predict, key: Key, x: Array, cond: Cond) -> Array:
        scale = size(times[-1])
        return run(network(predict), key, x / scale, cond) - space.dim * jnp.log(scale)

    return log_prob


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
