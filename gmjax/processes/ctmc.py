"""Discrete noising: a chain under a clock, factorised over sites.

Each site d of x0: [*S] runs the same chain with rates beta(t) R, so
q(x_t | x0) = prod_d q_{B(t)}(x_t^d | x0^d). Writing x\\d for all sites but d, the
reverse-time rate of site d from x to y is

    Rhat_t(x, y) = beta(t) R[y, x] s(y),       s(y) = p_t(y, x\\d) / p_t(x, x\\d),

so all a network has to supply is the ratio s, the discrete score. Because site d is
independent of x\\d given x0^d,

    s(y) = sum_{x0} g(x0) q(y | x0) / sum_{x0} g(x0) q(x | x0),    g(x0) = p(x0^d | x_t\\d),

which is a push of the law g through the kernel, O(S) for uniform and absorbing chains. The
posterior is p(x0^d | x_t) ~ g(x0) q(x | x0). A network may therefore predict

    posterior       logits of p(x0^d | x_t)
    leave_one_out   logits of g: the known factor q(x | x0) is left to the formula
    ratio           log s itself

and `PARAMETRISATIONS` turns each into the log ratio and the log posterior that losses and
samplers use. Sources: Campbell et al. (2022), equation 5 and proposition 3; Lou, Meng and
Ermon (2024) for the ratio.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmjax import draws, generators
from gmjax.processes.chains import Chain, tiny
from gmjax.processes.schedules import Schedule
from gmjax.spaces.discrete import discrete
from gmjax.types import Array, Distribution, Process

_NEVER = -1e30  # the log of an impossible event, finite so that gradients are
_HIGH = 80.0  # of a log ratio: its exponential is finite, sums of many such too


class CTMC(NamedTuple):
    """A chain and its clock."""

    chain: Chain
    schedule: Schedule


class Parametrisation(NamedTuple):
    """How a network's output is read, for one state x: [*S] at one time t: []."""

    log_posterior: Callable[..., Array]  # (out [*S, V or K], x, t) -> log p(x0 | x) [*S, V]
    log_ratio: Callable[..., Array]  # (out, x, t) -> log p_t(y) / p_t(x) [*S, K]
    ratio: Callable[..., Array]  # (out, x, t) -> p_t(y) / p_t(x) [*S, K]
    law: Callable[..., Array]  # (out, x, t, s <= t) -> [*S, K] ~ the site's law at s given x\\d
    logits: bool = True  # does adding to the output add to log p(x0 | x)?


def log_likelihood(ctmc: CTMC, x: Array, t: Array) -> Array:
    """log q(x | x0) for every x0: [*S, V]; impossible values get about -1e30."""
    chain, schedule = ctmc
    q = chain.column(x, schedule.clock(t))[..., : chain.num_values]
    return _log(q)


def conditional_log_ratio(ctmc: CTMC, x0: Array, x: Array, t: Array) -> Array:
    """log q(y | x0) / q(x | x0) for every y: [*S, K], the score of the kernel."""
    chain, schedule = ctmc
    return _relative(_log(chain.row(x0, schedule.clock(t))), x)


def reverse_rates(ctmc: CTMC, ratio: Array, x: Array, t: Array) -> Array:
    """Rhat_t(x, y) = beta(t) R[y, x] ratio(y): [*S, K], zero at y = x.

    Args:
        ratio: [*S, K], p_t(y) / p_t(x).
        x: [*S] states.
        t: [] time.

    Source: Campbell et al. (2022), proposition 1.
    """
    return ctmc.schedule.rate(t) * ctmc.chain.rates_in(x) * ratio


def rates_to_ratio(ctmc: CTMC, rates: Array, x: Array, t: Array) -> Array:
    """The inverse of `reverse_rates`; zero where the chain cannot move from y to x."""
    forward = ctmc.schedule.rate(t) * ctmc.chain.rates_in(x)
    ratio = jnp.where(forward > 0, rates / jnp.where(forward > 0, forward, 1), 0)
    return jnp.where(jax.nn.one_hot(x, ctmc.chain.num_states) > 0, 1.0, ratio)


def posterior_to_leave_one_out(ctmc: CTMC, log_p: Array, x: Array, t: Array) -> Array:
    """log g(x0) = log p(x0 | x) - log q(x | x0), normalised: [*S, V]."""
    log_q = log_likelihood(ctmc, x, t)
    possible = log_q > _NEVER / 2
    log_g = jnp.where(possible, log_p - jnp.where(possible, log_q, 0), _NEVER)
    return jax.nn.log_softmax(log_g, -1)


def leave_one_out_to_posterior(ctmc: CTMC, log_g: Array, x: Array, t: Array) -> Array:
    """log p(x0 | x) = log g(x0) + log q(x | x0), normalised: [*S, V]."""
    return jax.nn.log_softmax(log_g + log_likelihood(ctmc, x, t), -1)


def leave_one_out_to_ratio(ctmc: CTMC, log_g: Array, x: Array, t: Array) -> Array:
    """p_t(y) / p_t(x) by pushing g through the kernel: [*S, K]."""
    return _over(_law(ctmc, log_g, t), x)


def leave_one_out_to_log_ratio(ctmc: CTMC, log_g: Array, x: Array, t: Array) -> Array:
    """log p_t(y) / p_t(x), accurate where the ratio under- or overflows: [*S, K]."""
    return _relative(ctmc.chain.log_push(log_g, ctmc.schedule.clock(t)), x)


def ratio_to_posterior(ctmc: CTMC, ratio: Array, x: Array, t: Array) -> Array:
    """log p(x0 | x) from the ratio, by undoing the push: [*S, V].

    Exact in exact arithmetic; badly conditioned where the kernel has nearly mixed. What
    comes out negative, from an inconsistent ratio or rounding, counts as next to nothing.
    """
    chain, schedule = ctmc
    g = chain.pull(ratio, schedule.clock(t))[..., : chain.num_values]
    g = jnp.maximum(g / jnp.maximum(jnp.max(jnp.abs(g), -1, keepdims=True), tiny(g)), 1e-9)
    return leave_one_out_to_posterior(ctmc, jnp.log(g), x, t)


def posterior(ctmc: CTMC) -> Parametrisation:
    """The output is logits of p(x0 | x_t)."""
    chain, schedule = ctmc

    def law(out, x, t, s):
        # sum_x0 p(x0 | x) q_s(. | x0) / q_t(x | x0): g without its norm, which no ratio needs. The
        # floor keeps an impossible x0 from leaving no weight at all.
        q = chain.column(x, schedule.clock(t))[..., : chain.num_values]
        p, least = jnp.maximum(jax.nn.softmax(out, -1), 1e-30), 1e3 * tiny(q)
        return chain.push(jnp.where(q > least, p / jnp.maximum(q, least), 0), schedule.clock(s))

    def ratio(out, x, t):
        return _over(law(out, x, t, t), x)

    def log_ratio(out, x, t):
        return _relative(_log(law(out, x, t, t)), x)

    return Parametrisation(lambda out, x, t: jax.nn.log_softmax(out, -1), log_ratio, ratio, law)


def leave_one_out(ctmc: CTMC) -> Parametrisation:
    """The output is logits of p(x0^d | x_t\\d), the posterior without its known factor."""

    def log_g(out):
        return jax.nn.log_softmax(out, -1)

    return Parametrisation(
        lambda out, x, t: leave_one_out_to_posterior(ctmc, out, x, t),
        lambda out, x, t: leave_one_out_to_log_ratio(ctmc, log_g(out), x, t),
        lambda out, x, t: leave_one_out_to_ratio(ctmc, log_g(out), x, t),
        lambda out, x, t, s: _law(ctmc, log_g(out), s),
    )


def log_ratio(ctmc: CTMC) -> Parametrisation:
    """The output is log p_t(y) / p_t(x)."""
    chain, schedule = ctmc

    def law(out, x, t, s):
        elapsed = schedule.clock(t) - schedule.clock(s)
        return jnp.maximum(chain.pull(jax.nn.softmax(out, -1), elapsed), 0)

    return Parametrisation(
        lambda out, x, t: ratio_to_posterior(ctmc, jax.nn.softmax(out, -1), x, t),
        lambda out, x, t: _relative(out, x),
        lambda out, x, t: jnp.exp(jnp.minimum(_relative(out, x), _HIGH)),
        law,
        logits=False,
    )


PARAMETRISATIONS: dict[str, Callable[[CTMC], Parametrisation]] = {
    "posterior": posterior,
    "leave_one_out": leave_one_out,
    "ratio": log_ratio,
}


def base_law(ctmc: CTMC) -> Array:
    """The law at t = 1 of one site started from uniform values: [K].

    It differs from the stationary law only by what the clock leaves of the start, and gives
    mass to every state that the process can be in, so that the bound of the absorbing chain
    is finite.
    """
    chain, schedule = ctmc
    start = jnp.full(chain.num_values, 1 / chain.num_values)
    return chain.push(start, schedule.clock(jnp.ones(())))


def base(ctmc: CTMC, shape: tuple[int, ...]) -> Distribution:
    """The reference law at t = 1, independent at every site of [*shape]."""
    law = base_law(ctmc)
    return Distribution(
        lambda key: draws.categorical(
            jax.random.uniform(key, shape), jnp.broadcast_to(law, (*shape, law.size))
        ),
        lambda x: jnp.sum(jnp.log(law)[x]),
    )


def process(ctmc: CTMC, shape: tuple[int, ...]) -> Process:
    """The factorised chain on [*shape] as a noising process.

    Its score is the ratio p_t(y) / p_t(x) for every value of every site, [*S, K]; a network's
    output is read as the logits of the leave-one-out posterior, the first V of K.
    """
    chain, schedule = ctmc

    def log_prob(x, x0, t):
        q = chain.row(x0, schedule.clock(t))
        return jnp.sum(_log(jnp.take_along_axis(q, x[..., None], -1)))

    def rates_out(x, t):
        return schedule.rate(t) * chain.rates_out(x)

    def reverse(ratio):
        return generators.jump(lambda x, t: reverse_rates(ctmc, ratio(x, t), x, t))

    def phi(x, t, target, score):
        # 0 log 0: a ratio that vanishes leaves only the rate of the model.
        known = jnp.log(jnp.where(target > 0, target / jnp.maximum(score, tiny(score)), 1))
        excess = score - target + target * known
        return schedule.rate(t) * jnp.sum(chain.rates_in(x) * excess)

    def simple(x, t, target, score):
        # The weight that makes the masked chain's a cross-entropy.
        balance = jnp.expm1(schedule.clock(t)) / schedule.rate(t)
        return balance * phi(x, t, target, score) / x.size

    def read(out, x, t):
        return leave_one_out(ctmc).ratio(out[..., : chain.num_values], x, t)

    return Process(
        generator=generators.jump(rates_out, lambda x, t: schedule.rate(t) * chain.rates_in(x)),
        sample=lambda key, x0, t: chain.sample(key, x0, schedule.clock(t)),
        log_prob=log_prob,
        base=base(ctmc, shape),
        target=lambda x0, x, t: jnp.exp(conditional_log_ratio(ctmc, x0, x, t)),
        reverse=reverse,
        space=discrete(shape, chain.num_states, chain.num_values),
        phi=phi,
        simple=simple,
        read=read,
    )


def _law(ctmc: CTMC, log_g: Array, s: Array) -> Array:
    return ctmc.chain.push(jnp.exp(log_g), ctmc.schedule.clock(s))


def _over(law: Array, x: Array) -> Array:
    """law(y) / law(x) at every site."""
    return law / jnp.maximum(jnp.take_along_axis(law, x[..., None], -1), tiny(law))


def _log(p: Array) -> Array:
    return jnp.where(p > 0, jnp.log(jnp.maximum(p, tiny(p))), _NEVER)


def _relative(log_law: Array, x: Array) -> Array:
    """log_law(y) - log_law(x) at every site."""
    return log_law - jnp.take_along_axis(log_law, x[..., None], -1)
