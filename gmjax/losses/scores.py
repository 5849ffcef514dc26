"""Losses of a score network, on any space a process lives in.

A network predicts the generalised score s(x, t) of the marginals: grad log p_t for diffusions,
the ratios p_t(y) / p_t(x) for jumps. A process knows Phi(q / beta) as a function of two
scores, so that with the kernel's own score as target

    int E Phi(q_t|0 / beta) dt = int E phi(x_t, t; grad log q_t|0(x_t | x0), s(x_t, t)) dt

is denoising score matching on R^d, on a manifold, on a finite set, and on products of them,
where it is the sum over the parts. Weighted by one it is the bound of `losses.generalised`;
with `simple` each part is weighted to be of order one at every t, which learns better.

Where the kernel has no score, the implicit form needs none:

    int E [ |sigma^T s|^2 / 2 + div(A s) + ... ] dt,   with div by random probes (sliced).

Source: Vincent (2011); Song et al. (2020, sliced score matching); De Bortoli et al. (2022);
Benton et al. (2022), section 4.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax.losses.generalised import end_terms
from gmjax.losses.times import TimeSampler
from gmjax.processes.observed import batch_size, clamp, where
from gmjax.types import Array, Cond, Key, Loss, Predict, Process, PyTree, Space


def denoising(process: Process, times: TimeSampler, likelihood: bool = False) -> Loss:
    """Denoising score matching for one noised draw an example.

    Args:
        process: the noising process; its `read` turns a network's output into a score.
        times: the time sampler.
        likelihood: weight by one, for the variational bound; else by the process's `simple`.

    Returns:
        A loss (predict, key, x0 [B, *S], cond, part=None) -> ([B], {}); with `likelihood` in nats.
        With cond["observed"], a tree like x0 of booleans [B] or [B, *S], those components
        stay clean.
    """
    if process.phi is None or process.simple is None or process.read is None:
        raise ValueError("this process lacks phi, simple or read, which a score loss needs")
    gap = process.phi if likelihood else process.simple

    def loss(predict: Predict, key: Key, x0: PyTree, cond: Cond, part=None):
        key_t, key_x = jax.random.split(key)
        size = batch_size(x0)
        t, weight = times(key_t, size, part)
        x = jax.vmap(process.sample)(jax.random.split(key_x, size), x0, t)
        x = clamp(x, x0, cond)
        out = predict(x, t, cond)

        def one(x, x0, t, out, observed):
            score, target = process.read(out, x, t), process.target(x0, x, t)
            # What is observed is not noised, and has nothing to learn.
            target = target if observed is None else where(observed, score, target)
            return gap(x, t, target, score)

        observed = None if cond is None else cond.get("observed")
        return jax.vmap(one)(x, x0, t, out, observed) * (weight if likelihood else 1), {}

    return loss


def sliced(
    process: Process,
    space: Space,
    rate: Callable[[Array], Array],
    times: TimeSampler,
    probes: int = 1,
) -> Loss:
    """Sliced implicit score matching for a Brownian motion of speed rate(t) on a space.

    rate (|s|^2 / 2 + div s), its divergence by Hutchinson's estimator: the implicit loss of
    `losses.generalised` up to what does not depend on s, with no score of the kernel.

    Args:
        process: draws x ~ q_t and reads scores.
        space: its space.
        rate: t [] -> [], the squared speed of the noise.
        times: the time sampler.
        probes: random directions an example.

    Returns:
        A loss (predict, key, x0 [B, *S], cond, part=None) -> ([B] nats, {}).
    """

    def loss(predict: Predict, key: Key, x0: Array, cond: Cond):
        key_t, key_x, key_probe = jax.random.split(key, 3)
        t, weight = times(key_t, len(x0))
        x = jax.vmap(process.sample)(jax.random.split(key_x, len(x0)), x0, t)
        score = lambda x: jax.vmap(process.read)(predict(x, t, cond), x, t)  # type: ignore

        def probe(key):
            z = jax.vmap(space.noise)(jax.random.split(key, len(x)), x)
            s, turned = jax.jvp(score, (x,), (z,))
            return s, jax.vmap(space.inner)(x, z, jax.vmap(space.tangent)(x, turned))

        s, divergences = jax.vmap(probe)(jax.random.split(key_probe, probes))
        half = 0.5 * jax.vmap(space.inner)(x, s[0], s[0])
        return weight * jax.vmap(rate)(t) * (half + jnp.mean(divergences, 0)), {}

    return loss


def elbo(
    process: Process, times: TimeSampler, t_min: float, num_times: int = 16
) -> Callable[[Predict, Key, PyTree, Cond], dict[str, Array]]:
    """The negative bound on E log p_s(X_s), s = t_min, of a score network.

    Args:
        process: with a density of its kernel.
        times: a time sampler on [t_min, 1].
        t_min: s, where the reverse process stops.
        num_times: network evaluations an example.

    Returns:
        (predict, key, x0 [B, *S], cond) -> {"nats", "prior", "diffusion", "entropy"}: [B],
        nats in the reference measure; the first is the sum of the others.
    """
    integral = denoising(process, times, likelihood=True)

    def bound(predict: Predict, key: Key, x0: PyTree, cond: Cond):
        key_integral, key_ends = jax.random.split(key)
        keys = jax.random.split(key_integral, num_times)
        draw = lambda kj: integral(predict, kj[0], x0, cond, (kj[1], num_times))[0]
        draws = jax.lax.map(draw, (keys, jnp.arange(num_times)))

        def ends(key):
            each = jax.random.split(key, batch_size(x0))
            return jax.vmap(lambda k, a: end_terms(process, k, a, t_min))(each, x0)

        prior, entropy = jax.lax.map(ends, jax.random.split(key_ends, num_times))
        parts = {
            "prior": jnp.mean(prior, 0),
            "diffusion": jnp.mean(draws, 0),
            "entropy": jnp.mean(entropy, 0),
        }
        return {"nats": sum(parts.values()), **parts}

    return bound
