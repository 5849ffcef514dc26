"""Noising on the counts 0, 1, 2, ...: immigration and death, with thinning as a special case.

In every component individuals arrive at rate lam and each dies at rate mu, all times beta(t).
With the clock tau, alpha = e^{-mu tau} and m = (lam / mu)(1 - alpha) the kernel is

    X = Binomial(x0, alpha) + Poisson(m),

survivors and immigrants, and the limit Poisson(lam / mu); lam = 0 is binomial thinning. With
K the number of survivors given x and x0, whose law is a finite sum over k <= min(x0, x), the
generalised score, the ratios of the kernel to its neighbours, is

    q(x - 1) / q(x) = (x - E K) / m,
    q(x + 1) / q(x) = (m + alpha / (1 - alpha) (x0 - E K)) / (x + 1),

the second from the generating function (1 - alpha + alpha z)^{x0} e^{m (z - 1)}. Time reversal
adds one at rate beta mu (x + 1) times the upper ratio, so brings back the dead, and takes one
off at rate beta lam times the lower, so sends immigrants home. Poisson data of mean a stay
Poisson, of mean m + a alpha, and a network predicts the log of the ratios over theirs.

A step lets everybody live or die and new ones arrive independently, at rates frozen over dt:
Poisson(up dt) - Binomial(x, 1 - exp(-down dt / x)). It is never below zero, and of weak order
one. Source: Kelly, Reversibility and Stochastic Networks, chapter 1 (the queue M/M/inf).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, logsumexp, xlogy

from gmjax import draws, generators
from gmjax.processes.schedules import Schedule
from gmjax.spaces.discrete import discrete
from gmjax.types import Array, Distribution, Generator, Key, Process, UserError

# Next to impossible, not impossible: a reverse leap past the counts that thinning can have come
# from then still knows which of them is nearest.
_TINY = 1e-30

Rates = Callable[[Array, Array], Array]


def birth_death(
    schedule: Schedule,
    shape: tuple[int, ...],
    cap: int,
    arrival: float = 1.0,
    death: float = 1.0,
    mean: float | None = None,
) -> Process:
    """Immigration and death, independently in every component of a count vector.

    Args:
        schedule: beta, and the clock.
        shape: of one state, integers.
        cap: the largest count in the data; states of the process may exceed it.
        arrival: lam >= 0.
        death: mu > 0, of each individual.
        mean: of the data, roughly; the base is Poisson, with the mean that Poisson data of this
            mean have at t = 1. By default lam / mu, so that the base is the limit law.

    Returns:
        A `Process` with scores [*S, 2], the ratios of x + 1 and x - 1 to x.

    Raises:
        UserError: an argument is out of range.
    """
    for name, value, valid in (
        ("cap", cap, cap >= 1),
        ("arrival", arrival, arrival >= 0),
        ("death", death, death > 0),
        ("mean", mean, mean is None or mean > 0),
    ):
        if not valid:
            bound = {"cap": ">= 1", "arrival": ">= 0"}.get(name, "> 0")
            raise UserError(f"config.process.{name}={value} is out of range; valid: {bound}")
    if arrival == 0 and mean is None:
        raise UserError("config.process.mean is missing; with arrival=0.0 give one, > 0")
    shape, limit = tuple(shape), arrival / death
    start = limit if mean is None else mean

    def kernel(t):
        """alpha, 1 - alpha and m."""
        alpha = jnp.exp(-death * schedule.clock(t))
        lost = -jnp.expm1(-death * schedule.clock(t))
        return alpha, lost, limit * lost

    def survivors(x, x0, t):
        """log P(k survive, X = x | x0) for k = 0 .. cap: [*S, cap + 1]."""
        alpha, lost, m = kernel(t)
        k, x, x0 = jnp.arange(cap + 1.0), x[..., None] * 1.0, x0[..., None] * 1.0
        possible = (k <= x) & (k <= x0)
        dead, new = jnp.maximum(x0 - k, 0), jnp.maximum(x - k, 0)
        choose = gammaln(x0 + 1) - gammaln(k + 1) - gammaln(dead + 1)
        # log alpha = -mu tau, which does not overflow as alpha does.
        binomial = choose - k * death * schedule.clock(t) + xlogy(dead, jnp.maximum(lost, _TINY))
        poisson = xlogy(new, jnp.maximum(m, _TINY)) - m - gammaln(new + 1)
        return jnp.where(possible, binomial + poisson, -jnp.inf)

    def sample(key, x0, t):
        alpha, _, m = kernel(t)
        return _thin(key, x0, alpha, m)

    def log_prob(x, x0, t):
        return jnp.sum(logsumexp(survivors(x, x0, t), -1))

    def target(x0, x, t):
        alpha, lost, m = kernel(t)
        law = jax.nn.softmax(survivors(x, x0, t), -1)
        # Sums of differences, which do not cancel.
        k = jnp.arange(cap + 1.0)
        mean = lambda n: jnp.sum(law * jnp.maximum(n[..., None] - k, 0), -1)
        up = (m + alpha / lost * mean(x0)) / (x + 1)
        return jnp.stack([up, mean(x) / m if arrival else jnp.zeros_like(up)], -1)

    def usual(x, t):
        """The ratios of Poisson data: [*S, 2]."""
        alpha, _, m = kernel(t)
        level = m + start * alpha
        return jnp.stack([level / (x + 1), x / level], -1)

    def rates(x, t):
        """Up and down: [*S, 2]."""
        return schedule.rate(t) * jnp.stack([jnp.full(x.shape, arrival), death * x], -1)

    def back(x, t):
        """The rates of x + 1 and of x - 1 into x: [*S, 2]."""
        into = jnp.stack([death * (x + 1.0), jnp.where(x > 0, arrival, 0.0)], -1)
        return schedule.rate(t) * into

    def phi(x, t, target, score):
        true, model = back(x, t) * target, back(x, t) * score
        positive = (true > 0) & (model > 0)
        ratio = jnp.where(positive, true, 1) / jnp.where(positive, model, 1)
        return jnp.sum(model - true + true * jnp.log(ratio))

    def simple(x, t, target, score):
        alpha, _, m = kernel(t)
        flow = arrival + death * (m + start * alpha)
        return phi(x, t, target, score) / (schedule.rate(t) * flow * x.size)

    alpha, _, m = kernel(jnp.ones(()))
    return Process(
        generator=hops(rates, back),
        sample=sample,
        log_prob=log_prob,
        base=_poisson(shape, m + start * alpha),
        target=target,
        reverse=lambda score: hops(lambda x, t: back(x, t) * score(x, t)),
        space=discrete(shape, cap + 1)._replace(
            project=lambda x: jnp.maximum(x, 0),
            embed=lambda x: jnp.concatenate([jnp.log1p(x).ravel(), (x / (start + x)).ravel()]),
            uniform=None,
        ),
        phi=phi,
        simple=simple,
        read=lambda out, x, t: jnp.exp(out) * usual(x, t),
    )


def hops(rates: Rates, back: Rates | None = None) -> Generator:
    """Jumps of one up or down in every component.

    Args:
        rates: (x [*S], t []) -> [*S, 2], the rates from x to x + 1 and to x - 1.
        back: the same, the rates from x + 1 and from x - 1 into x.
    """

    def moves(of):
        def at(x, t):
            eye = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
            # The rate down from zero is zero: stay there.
            targets = jnp.stack([x + eye, jnp.maximum(x - eye, 0)], 1)
            return targets.reshape(-1, *x.shape), of(x, t).reshape(-1)

        return at

    def step(key, x, t, dt):
        up, down = jnp.moveaxis(rates(x, t) * dt, -1, 0)
        return _thin(key, x, jnp.exp(-down / jnp.maximum(x, 1)), up)

    return generators.jumps(moves(rates), moves(back) if back else None)._replace(step=step)


def _thin(key: Key, x: Array, stay: Array, new: Array) -> Array:
    """Binomial(x, stay) + Poisson(new): [*S]."""
    key_stay, key_new = jax.random.split(key)
    kept = jax.random.binomial(key_stay, x.astype(jnp.float32), stay, x.shape, jnp.float32)
    born = draws.poisson(jax.random.uniform(key_new, x.shape), new)
    return (kept + born).astype(x.dtype)


def _poisson(shape: tuple[int, ...], mean: Array) -> Distribution:
    return Distribution(
        lambda key: draws.poisson(jax.random.uniform(key, shape), mean),
        lambda x: jnp.sum(xlogy(x, mean) - mean - gammaln(x + 1.0)),
    )
