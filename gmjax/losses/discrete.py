"""Losses of discrete diffusion, all from one forward pass.

Write R0(x, y) = beta R[y, x] q_t(y|x0) / q_t(x|x0) for the reverse rates given x0, and
R(x, y) = beta R[y, x] s(x, y) for the model's. The path measure of the model started at its
base law is bounded by (relative entropy of two jump processes, Girsanov)

    -log p(x0) <= KL(q_1(.|x0) || base) - E log p(x0 | x_{t_min})
                  + int E_{q_t} sum_y [ R - R0 + R0 log(R0 / R) ] dt,

whose integrand depends on the network at x ~ q_t alone. That is the denoising score entropy
(Lou et al. 2024, equation 9, with its constant). Campbell et al. (2022) arrive at the same
bound with the second sum at one jump x -> y of the forward process, and evaluate the network
once, at y. The jump's density given (y, x0) is known, so the average over x is exact:

    E[Z(x) log R(y, x) | y, x0] = sum_z R0(y, z) log R(y, z) / sum_z R0(y, z) / Z(z),

Z(z) being the total rate out of y with one site moved to z (their appendix C.3).

For the absorbing chain only masked sites contribute, and with s = alpha / (1 - alpha) p the
integrand is the weighted cross-entropy beta alpha / (1 - alpha) sum_masked -log p(x0 | x).

Every value is in nats per site, a mean over the sites that are not observed.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmjax import draws
from gmjax.losses.times import TimeSampler
from gmjax.processes.chains import tiny
from gmjax.processes.ctmc import (
    CTMC,
    Parametrisation,
    conditional_log_ratio,
)
from gmjax.types import Array, Cond, Key, Loss, Predict, UserError, lookup

_LARGEST = 60.0  # of a log ratio in a loss; exp of it is still far from overflow


class Corrupted(NamedTuple):
    """One noised example."""

    x0: Array  # [*S]
    x: Array  # [*S], where the network is evaluated
    t: Array  # []
    free: Array  # [*S] bool, the sites that are noised
    jumped: Array  # [] bool: is x one forward jump beyond q_t?


class Term(NamedTuple):
    """One part of a loss."""

    value: Callable[..., Array]  # (ctmc, parametrisation, Corrupted, out) -> [*S] nats
    integral: bool  # an integral over dt; else a mean over the sampled times


def entropy_term(ctmc: CTMC, read: Parametrisation, c: Corrupted, out: Array) -> Array:
    """sum_y R - R0 + R0 log(R0 / R) at every site: [*S] nats per unit time."""
    return _divergence(ctmc, read, c, out, jnp.ones(()))


def jump_term(ctmc: CTMC, read: Parametrisation, c: Corrupted, out: Array) -> Array:
    """The integrand of the CT-ELBO at x, one jump beyond q_t, the jump averaged out: [*S]."""
    chain, schedule = ctmc
    leave = chain.exit_rate(jnp.arange(chain.num_states))
    total = jnp.sum(leave[c.x] * c.free)
    before = total - leave[c.x][..., None] + leave  # Z with one site moved, over beta
    ratio = jnp.exp(conditional_log_ratio(ctmc, c.x0, c.x, c.t))
    back = chain.rates_in(c.x) * ratio * c.free[..., None]
    mass = jnp.sum(back / jnp.maximum(before, tiny(before)))
    weight = jnp.where(c.jumped & (mass > 0), 1 / jnp.where(mass > 0, mass, 1), 0)
    return _divergence(ctmc, read, c, out, weight)


def _divergence(ctmc, read, c, out, weight):
    """sum_y R - R0 + weight * R0 log(R0 / R) at every site."""
    if ctmc.chain.flat:
        return _flat_divergence(ctmc, read, c, out, weight)
    into = ctmc.chain.rates_in(c.x)
    # A ratio that no jump uses may overflow; one that is used saturates, with no gradient.
    log_s = jnp.where(into > 0, jnp.minimum(read.log_ratio(out, c.x, c.t), _LARGEST), 0)
    log_r = conditional_log_ratio(ctmc, c.x0, c.x, c.t)
    r = jnp.exp(log_r)
    # 0 log 0: where the conditional ratio vanishes its logarithm must not count.
    gap = jnp.where(r > 0, log_r - log_s, 0)
    return ctmc.schedule.rate(c.t) * jnp.sum(into * (jnp.exp(log_s) - r + weight * r * gap), -1)


def _flat_divergence(ctmc, read, c, out, weight):
    """The same where q(y|x0) takes two values: sums over y of s and log s are all it needs."""
    chain, schedule = ctmc
    zero = jnp.zeros((), jnp.int32)
    at_x0, elsewhere = chain.row(zero, schedule.clock(c.t))[:2]
    q = jnp.where(c.x == c.x0, at_x0, elsewhere)
    gain = jnp.log(at_x0 / q)
    loss = jnp.log(jnp.maximum(elsewhere, tiny(q)) / q)
    # At y = x log s is zero and s is one: sums over all y are right but for that one.
    log_s = jnp.minimum(read.log_ratio(out, c.x, c.t), _LARGEST)
    others = gain + (chain.num_states - 1) * loss - jnp.sum(log_s, -1)
    gap = (at_x0 - elsewhere) * (gain - _pick(log_s, c.x0)) + elsewhere * others
    total = jnp.sum(jnp.exp(log_s), -1) - 1 / q + weight * gap / q
    return schedule.rate(c.t) * chain.rates_in(zero)[1] * total


def cross_entropy_term(ctmc: CTMC, read: Parametrisation, c: Corrupted, out: Array) -> Array:
    """-log p(x0 | x) at every site: [*S] nats."""
    del ctmc
    return _pick(-read.log_posterior(out, c.x, c.t), c.x0)


def masked_term(ctmc: CTMC, read: Parametrisation, c: Corrupted, out: Array) -> Array:
    """beta alpha / (1 - alpha) times -log p(x0 | x) at the masked sites: [*S] nats."""
    chain, schedule = ctmc
    clock = schedule.clock(c.t)
    weight = schedule.rate(c.t) / jnp.expm1(clock)
    nats = _pick(-read.log_posterior(out, c.x, c.t), c.x0)
    return jnp.where(c.x == chain.num_values, weight * nats, 0)


TERMS: dict[str, Term] = {
    "score_entropy": Term(entropy_term, True),
    "ct_elbo": Term(jump_term, True),
    "masked_elbo": Term(masked_term, True),
    "cross_entropy": Term(cross_entropy_term, False),
}


def denoising(
    ctmc: CTMC,
    read: Parametrisation,
    terms: Mapping[str, float],
    times: TimeSampler,
    weighting: Callable[[Array], Array] = jnp.ones_like,
) -> Loss:
    """A weighted sum of terms at one noised draw and one network evaluation.

    Args:
        ctmc: the noising process.
        read: how the network's output is read.
        terms: name in `TERMS` -> weight.
        times: the time sampler.
        weighting: t [B] -> [B], multiplies the terms that are no integrals over time.

    Returns:
        A loss (predict, key, x0 [B, *S], cond, part=None) -> ([B] nats per site, {term: [B]}).
        Sites with cond["observed"] True stay clean and do not count.

    Raises:
        UserError: an unknown term, or the masked bound of a chain without a mask.
    """
    parts = {name: lookup(TERMS, name, "config.loss.terms") for name in terms}
    if "masked_elbo" in parts and ctmc.chain.num_values == ctmc.chain.num_states:
        raise UserError("config.loss.terms has 'masked_elbo', which needs the absorbing process")
    jump = "ct_elbo" in parts
    if jump and "score_entropy" in parts:
        raise UserError("config.loss.terms: give 'ct_elbo' or 'score_entropy', they are one bound")

    def loss(predict: Predict, key: Key, x0: Array, cond: Cond, part=None):
        key_t, key_x, key_jump = jax.random.split(key, 3)
        t, inverse_density = times(key_t, len(x0), part)
        free = free_sites(x0, cond)
        x = noised(ctmc, key_x, x0, t, free)
        jumped = jnp.zeros(len(x0), bool)
        if jump:
            x, jumped = one_jump(ctmc, key_jump, x, free)
        out = predict(x, t, cond)
        noisy = Corrupted(x0, x, t, free, jumped)
        values = {}
        for name, term in parts.items():
            per_site = jax.vmap(lambda c, o, f=term.value: f(ctmc, read, c, o))(noisy, out)
            value = mean_over(per_site, free)
            values[name] = value * (inverse_density if term.integral else weighting(t))
        return sum(terms[name] * values[name] for name in parts), values

    return loss


def free_sites(x0: Array, cond: Cond) -> Array:
    """The sites that are noised and count: all but cond["observed"], [B, *S] bool."""
    if cond is None or "observed" not in cond:
        return jnp.ones(x0.shape, bool)
    return ~cond["observed"]


def noised(ctmc: CTMC, key: Key, x0: Array, t: Array, free: Array) -> Array:
    """x ~ q_t(. | x0) at the free sites, x0 at the others: [B, *S]."""
    keys = jax.random.split(key, len(x0))
    x = jax.vmap(ctmc.chain.sample)(keys, x0, ctmc.schedule.clock(t))
    return jnp.where(free, x, x0)


def one_jump(ctmc: CTMC, key: Key, x: Array, free: Array) -> tuple[Array, Array]:
    """One jump of the forward chain at a free site: (y [B, *S], did it jump [B])."""
    chain = ctmc.chain

    def jump(key, x, free):
        site_key, value_key = jax.random.split(key)
        rate = chain.exit_rate(x) * free
        flat = x.reshape(-1)
        site = draws.categorical(jax.random.uniform(site_key), rate.reshape(-1))
        row = chain.rates_out(flat[site])
        value = draws.categorical(jax.random.uniform(value_key), row).astype(x.dtype)
        possible = jnp.sum(rate) > 0
        y = flat.at[site].set(jnp.where(possible, value, flat[site]))
        return y.reshape(x.shape), possible

    return jax.vmap(jump)(jax.random.split(key, len(x)), x, free)


def mean_over(per_site: Array, free: Array) -> Array:
    """Mean over the free sites: [B, *S] -> [B]."""
    axes = tuple(range(1, per_site.ndim))
    count = jnp.maximum(jnp.sum(free, axes), 1)
    return jnp.sum(jnp.where(free, per_site, 0), axes) / count


def _pick(values: Array, index: Array) -> Array:
    return jnp.take_along_axis(values, index[..., None], -1)[..., 0]
