"""The continuous-time variational bound of a discrete diffusion.

    log p(x0) >= -KL(q_1(.|x0) || base) + E log p(x0 | x_{t_min})
                 - int_{t_min}^1 E_{q_t} sum_y [ R - R0 + R0 log(R0 / R) ] dt

The first part is a closed form, the second one network evaluation, and the integral a
stratified importance-weighted mean over times, unbiased for any number of them. See
`gmjax.losses.discrete` for the integrand.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax.losses import discrete
from gmjax.losses.times import TimeSampler
from gmjax.processes.ctmc import CTMC, Parametrisation, base_law
from gmjax.types import Array, Cond, Key, Predict


def discrete_elbo(
    ctmc: CTMC,
    read: Parametrisation,
    times: TimeSampler,
    t_min: float,
    num_times: int = 16,
) -> Callable[[Predict, Key, Array, Cond], dict[str, Array]]:
    """The negative bound of each example and its parts, in nats per free site.

    Args:
        ctmc: the noising process.
        read: how the network's output is read.
        times: the time sampler on [t_min, 1], with weights that make an integral.
        t_min: where the reverse process stops and the posterior decodes.
        num_times: times an example; the network is evaluated `num_times + 1` times.

    Returns:
        (predict, key, x0 [B, *S], cond) -> {"nats", "prior", "diffusion",
        "reconstruction"}: [B] each, the first the sum of the others.
    """
    loss = discrete.denoising(ctmc, read, {"score_entropy": 1.0}, times)

    def prior(x0, free):
        row = ctmc.chain.row(x0, ctmc.schedule.clock(jnp.ones(())))
        log_gap = jnp.log(jnp.maximum(row, 1e-30)) - jnp.log(base_law(ctmc))
        return discrete.mean_over(jnp.sum(jnp.where(row > 0, row * log_gap, 0), -1), free)

    def elbo(predict: Predict, key: Key, x0: Array, cond: Cond):
        key_times, key_last = jax.random.split(key)
        free = discrete.free_sites(x0, cond)
        keys = jax.random.split(key_times, num_times)
        draw = lambda kj: loss(predict, kj[0], x0, cond, (kj[1], num_times))[0]
        draws = jax.lax.map(draw, (keys, jnp.arange(num_times)))
        t = jnp.full(len(x0), t_min)
        x = discrete.noised(ctmc, key_last, x0, t, free)
        log_p = jax.vmap(read.log_posterior)(predict(x, t, cond), x, t)
        found = jnp.take_along_axis(log_p, x0[..., None], -1)[..., 0]
        parts = {
            "prior": prior(x0, free),
            "diffusion": jnp.mean(draws, 0),
            "reconstruction": discrete.mean_over(-found, free),
        }
        return {"nats": sum(parts.values()), **parts}

    return elbo
