"""Mixtures of K Gaussians by expectation and maximisation.

    p(x) = sum_k pi_k N(x; m_k, S_k),   r_nk = pi_k N(x_n; m_k, S_k) / p(x_n),
    N_k = sum_n r_nk,  d_k = sum_n r_nk (x_n - m_k) / N_k,
    pi_k' = N_k / N,  m_k' = m_k + d_k,
    S_k' = sum_n r_nk (x_n - m_k)(x_n - m_k)^T / N_k - d_k d_k^T + floor I.

Moments about the old means keep what cancels small, and let one pass over the data do both steps,
a block of rows at a time: nothing of size [N, K, D] exists. The four families of covariances
differ in how they average S_k' (see `covariances`).

Data rounded to cells are x + u with u uniform in a cell, of variance `jitter` an entry. The bound
log p(x + u) >= sum_k r_k log(pi_k N(x + u; m_k, S_k) / r_k), averaged over u, has the closed form

    log sum_k pi_k N(x; m_k, S_k) exp(-jitter tr(S_k^{-1}) / 2),

and its EM steps are those above with these r and S_k' + jitter I: no noise is ever drawn.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmjax.classical import kmeans
from gmjax.classical.covariances import FAMILIES, Family
from gmjax.classical.moments import rank, sweep
from gmjax.types import Array, Key, lookup

EMPTY = 0.5  # examples; a component with fewer starts again where the fit is worst


class Params(NamedTuple):
    """A mixture."""

    weights: Array  # [K]
    means: Array  # [K, D]
    covariances: Array  # full [K, D, D], tied [D, D], diagonal [K, D], spherical [K]


class Statistics(NamedTuple):
    """What the maximisation needs, sums over examples weighted by responsibilities."""

    counts: Array  # [K], N_k
    first: Array  # [K, D], about the old means
    second: Array  # likewise, in the family's shape


class Fit(NamedTuple):
    """What EM found."""

    params: Params
    log_likelihood: Array  # [], mean over the examples, nats
    iterations: Array  # [] int32
    converged: Array  # [] bool


@partial(jax.jit, static_argnames=("components", "covariance", "restarts", "lloyd"))
def fit(
    key: Key,
    x: Array,
    components: int,
    covariance: str = "full",
    *,
    iterations: int = 100,
    tolerance: float = 1e-3,
    floor: float = 1e-6,
    jitter: float = 0.0,
    restarts: int = 1,
    lloyd: int = 20,
    initial: Params | None = None,
) -> Fit:
    """The best of several runs of EM.

    Args:
        key: of the starts.
        x: [N, D] floats, in whose dtype all is computed.
        components: K, in 1 .. N.
        covariance: a row of `FAMILIES`.
        iterations: at most so many steps a run.
        tolerance: a run ends when a step changes the mean log-likelihood by less, nats.
        floor: added to every variance.
        jitter: variance of the noise up to which x is given; see the module.
        restarts: runs, side by side.
        lloyd: iterations of k-means after the k-means++ seeds of a run; 0 leaves the seeds.
        initial: parameters to start from; then there is one run.

    Raises:
        UserError: an unknown family, or K or the number of runs out of range.
    """
    family = lookup(FAMILIES, covariance, "covariance")
    rank(components, len(x), "components")
    rank(restarts, 2**31, "restarts")

    def run(params: Params) -> Fit:
        def body(carry):
            params, _, last, i = carry
            params, loglik = _step(params, x, family, floor, jitter)
            return params, last, loglik, i + 1

        def going(carry):
            _, before, last, i = carry
            return (i < iterations) & ~(jnp.abs(last - before) < tolerance)

        low = jnp.asarray(-jnp.inf, x.dtype)  # -inf - -inf is nan: the loop starts
        params, before, last, i = lax.while_loop(going, body, (params, low, low, jnp.int32(0)))
        loglik = _log_likelihood(params, x, family, jitter).mean()
        return Fit(params, loglik, i, jnp.abs(last - before) < tolerance)

    if initial is not None:
        return run(initial)
    start = lambda k: _start(k, x, components, family, floor, jitter, lloyd)
    if restarts == 1:
        return run(start(key))
    fits = jax.vmap(lambda k: run(start(k)))(jax.random.split(key, restarts))
    return jax.tree.map(lambda a: a[jnp.argmax(fits.log_likelihood)], fits)


@partial(jax.jit, static_argnames=("components", "covariance", "lloyd"))
def start(
    key: Key,
    x: Array,
    components: int,
    covariance: str = "full",
    floor: float = 1e-6,
    jitter: float = 0.0,
    lloyd: int = 20,
) -> Params:
    """The mixture of the clusters of k-means, for the arguments see `fit`."""
    family = lookup(FAMILIES, covariance, "covariance")
    return _start(key, x, components, family, floor, jitter, lloyd)


@partial(jax.jit, static_argnames=("covariance",))
def step(
    params: Params,
    x: Array,
    covariance: str = "full",
    floor: float = 1e-6,
    jitter: float = 0.0,
) -> tuple[Params, Array]:
    """One EM step, and the mean log-likelihood [] of the parameters given."""
    return _step(params, x, lookup(FAMILIES, covariance, "covariance"), floor, jitter)


@partial(jax.jit, static_argnames=("covariance",))
def log_likelihood(
    params: Params, x: Array, covariance: str = "full", jitter: float = 0.0
) -> Array:
    """log p(x) of x [N, D], or with `jitter` the bound of the module: [N] nats."""
    return _log_likelihood(params, x, lookup(FAMILIES, covariance, "covariance"), jitter)


@partial(jax.jit, static_argnames=("covariance",))
def responsibilities(
    params: Params, x: Array, covariance: str = "full", jitter: float = 0.0
) -> Array:
    """p(k | x) of x [N, D]: [N, K]."""
    family = lookup(FAMILIES, covariance, "covariance")
    joint = _joint(params, family, _factors(params, family), jitter)
    return sweep(lambda rows, fresh: (None, jax.nn.softmax(joint(rows))), x)[1]


@partial(jax.jit, static_argnames=("n", "covariance"))
def sample(key: Key, params: Params, n: int, covariance: str = "full") -> Array:
    """n draws: [n, D]."""
    family = lookup(FAMILIES, covariance, "covariance")
    key_label, key_noise = jax.random.split(key)
    label = jax.random.categorical(key_label, _log_weights(params.weights), shape=(n,))
    noise = jax.random.normal(key_noise, (n, params.means.shape[1]), params.means.dtype)
    return params.means[label] + family.colour(params.covariances, label, noise)


def size(components: int, d: int, covariance: str = "full") -> int:
    """The number of free parameters: K - 1 weights, K D means, and the covariances'."""
    family = lookup(FAMILIES, covariance, "covariance")
    return components - 1 + components * d + family.size(components, d)


def bic(log_likelihood: Array, n: int, components: int, d: int, covariance: str = "full") -> Array:
    """The Bayesian information criterion -2 N L + size log N of a fit; less is better.

    Args:
        log_likelihood: L, the mean over the N examples, nats.
        n: N.
        components, d, covariance: see `size`.
    """
    return -2 * n * log_likelihood + size(components, d, covariance) * math.log(n)


def mix(old: Params, new: Params, rate: Array | float, covariance: str = "full") -> Params:
    """The mixture whose mean sufficient statistics are (1 - rate) old + rate new.

    A mixture's parameters and its statistics E[r_k], E[r_k x], E[r_k x x^T] are functions of
    each other, so this is the step of online EM (Cappe and Moulines, J. R. Stat. Soc. B 71, 2009).
    """
    family = lookup(FAMILIES, covariance, "covariance")
    a, b = (1 - rate) * old.weights, rate * new.weights
    weights = a + b
    step = new.means - old.means
    second = (
        family.sums(old.covariances, a)
        + family.sums(new.covariances, b)
        + family.outer(a * b / weights, step)
    )
    means = old.means + (b / weights)[:, None] * step
    return Params(weights, means, family.normalise(second, weights))


def _log_weights(weights: Array) -> Array:
    return jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny))


def _factors(params: Params, family: Family) -> Any:
    return family.prepare(params.covariances, params.means)


def _joint(params: Params, family: Family, factors, jitter):
    """rows [B, D] -> log(pi_k N(x; m_k, S_k)) and the cost of jitter: [B, K]."""
    d = params.means.shape[1]
    constant = _log_weights(params.weights) - 0.5 * d * math.log(2 * math.pi)
    constant -= family.half_logdet(factors, d) + 0.5 * jitter * family.trace(factors, d)

    def joint(rows: Array) -> Array:
        # The ceiling keeps a point beyond all numbers from making inf - inf.
        square = jnp.minimum(family.square(factors, params.means, rows), 1e30)
        return constant - 0.5 * square

    return joint


def _log_likelihood(params: Params, x: Array, family: Family, jitter) -> Array:
    joint = _joint(params, family, _factors(params, family), jitter)
    return sweep(lambda rows, fresh: (None, jax.nn.logsumexp(joint(rows), 1)), x)[1]


def _step(params: Params, x: Array, family: Family, floor, jitter) -> tuple[Params, Array]:
    factors = _factors(params, family)
    joint = _joint(params, family, factors, jitter)

    def block(rows, fresh):
        scores = joint(rows)
        loglik = jax.nn.logsumexp(scores, 1)
        r = jnp.exp(scores - loglik[:, None]) * fresh[:, None]
        return _statistics(r, rows, params.means, family, factors), loglik

    stats, loglik = sweep(block, x)
    new = _maximise(stats, params.means, family, floor + jitter)
    revive = lambda p: _revive(p, stats.counts, x, loglik, family)
    new = lax.cond(jnp.any(stats.counts < EMPTY), revive, lambda p: p, new)
    return new, loglik.mean()


def _statistics(
    r: Array, rows: Array, means: Array, family: Family, factors: Any = None
) -> Statistics:
    counts = r.sum(0)
    middle = means.mean(0)  # rows far from the origin lose nothing
    first = r.T @ (rows - middle) - counts[:, None] * (means - middle)
    return Statistics(counts, first, family.second(factors, r, rows, means))


def _maximise(stats: Statistics, means: Array, family: Family, floor) -> Params:
    counts = jnp.maximum(stats.counts, 10 * jnp.finfo(means.dtype).eps)
    step = stats.first / counts[:, None]
    spread = family.normalise(stats.second - family.outer(counts, step), counts)
    return Params(counts / counts.sum(), means + step, family.add(spread, floor))


def _revive(params: Params, counts: Array, x: Array, loglik: Array, family: Family) -> Params:
    """Each empty component at one of the least likely examples, as wide as the others' mean."""
    empty = counts < EMPTY
    worst = x[lax.top_k(-loglik, len(counts))[1]]
    means = jnp.where(empty[:, None], worst[jnp.cumsum(empty) - 1], params.means)
    weights = jnp.where(empty, 1.0 / len(x), params.weights)
    return Params(weights / weights.sum(), means, family.pool(params.covariances, counts, empty))


def _start(key, x, components, family: Family, floor, jitter, lloyd: int) -> Params:
    centres = kmeans.fit(key, x, components, lloyd).centres

    def block(rows, fresh):
        nearest, distance = kmeans.assign(centres, rows)
        r = jax.nn.one_hot(nearest, components, dtype=x.dtype) * fresh[:, None]
        return _statistics(r, rows, centres, family), -distance

    stats, near = sweep(block, x)
    params = _maximise(stats, centres, family, floor + jitter)
    return _revive(params, stats.counts, x, near, family)
