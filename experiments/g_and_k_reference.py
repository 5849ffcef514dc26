"""The g-and-k law and its exact posterior: likelihood by inversion, ensemble MCMC.

The law is given by its quantile function, with z a standard normal number,

    Q(z) = A + B G(z),    G(z) = z (1 + c tanh(g z / 2)) (1 + z^2)^k,    c = 0.8.

G has the sign of z, and with s = log|z|

    log|G| = s + log(1 + c tanh(g z / 2)) + k log(1 + z^2),

whose slope in s is positive for c = 0.8 and between one and 1 + 2k far out, so that a safeguarded
Newton iteration in s inverts Q over forty orders of magnitude. The density follows,

    log p(x) = log phi(z) - log Q'(z),    Q'(z) = B (G / z) d log|G| / ds.

Parameters have the prior U[0, 10]^4 and are y with theta = 10 Phi(y) throughout, Phi the normal
distribution function: the prior of y is N(0, I), without edges.

Source: Prangle (2020), "gk: an R package for the g-and-k and generalised g-and-h distributions".
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from gmjax.types import Array, Key

NAMES = ("A", "B", "g", "k")
TRUTH = (3.0, 1.0, 2.0, 0.5)
HIGHEST = 10.0  # the prior is uniform from zero up to this
SKEWNESS = 0.8  # c

# -- the law ------------------------------------------------------------------------------------


def to_theta(y: Array) -> Array:
    """theta = 10 Phi(y), uniform where y is standard normal."""
    return HIGHEST * ndtr(y)


def to_y(theta: Array) -> Array:
    """The inverse of `to_theta`."""
    return ndtri(theta / HIGHEST)


def quantile(z: Array, theta: Array) -> Array:
    """Q(z), the value whose probability below is Phi(z): z [..., n], theta [..., 4] -> [..., n]."""
    a, b, g, k = jnp.moveaxis(theta[..., None], -2, 0)
    return a + b * z * jnp.exp(_log_gain(z, g, k))


def log_density(x: Array, theta: Array) -> Array:
    """log p(x) of each value: x [n], theta [4] -> [n] nats."""
    a, b, g, k = theta
    z = invert((x - a) / b, g, k)
    normal = -0.5 * (z**2 + np.log(2 * np.pi))
    return normal - jnp.log(b) - _log_gain(z, g, k) - jnp.log(_slope(z, g, k))


def invert(w: Array, g: Array, k: Array, iterations: int = 8) -> Array:
    """z with G(z) = w, element by element.

    Bounds of log|G| bracket s = log|z|; a Newton step that leaves the bracket halves it instead.
    Eight iterations leave a relative error of 1e-13 over w, g, k of the prior's range.
    """
    tiny = jnp.finfo(w.dtype).tiny
    level, sign = jnp.log(jnp.maximum(jnp.abs(w), tiny)), jnp.sign(w)
    # log(1 + z^2) lies within log 2 above 2 max(s, 0), and 1 + c tanh within 1 -+ c.
    steep = lambda s: jnp.where(s > 0, s / (1 + 2 * k), s)
    # The slack keeps a root at a bound, as where tanh is one, from being crossed by rounding.
    slack = 0.1
    low = steep(level - np.log(1 + SKEWNESS) - k * np.log(2)) - slack
    high = steep(level - np.log(1 - SKEWNESS)) + slack

    def body(_, state):
        s, low, high = state
        z = sign * jnp.exp(s)
        gap = s + _log_gain(z, g, k) - level
        low, high = jnp.where(gap < 0, s, low), jnp.where(gap < 0, high, s)
        newton = s - gap / _slope(z, g, k)
        inside = (newton >= low) & (newton <= high)
        return jnp.where(inside, newton, 0.5 * (low + high)), low, high

    s, _, _ = jax.lax.fori_loop(0, iterations, body, (0.5 * (low + high), low, high))
    return sign * jnp.exp(s)


def log_posterior(y: Array, x: Array) -> Array:
    """log p(y, x) up to a constant: y [4], x [n] -> []."""
    return jnp.sum(log_density(x, to_theta(y))) - 0.5 * jnp.sum(y**2)


def _log_gain(z, g, k):
    """log(G(z) / z)."""
    return jnp.log1p(SKEWNESS * jnp.tanh(0.5 * g * z)) + k * jnp.log1p(z**2)


def _slope(z, g, k):
    """d log|G| / d log|z|."""
    u = 0.5 * g * z
    skew = SKEWNESS * jnp.tanh(u)
    turn = SKEWNESS * u * (1 - jnp.tanh(u) ** 2) / (1 + skew)
    return 1 + turn + 2 * k * z**2 / (1 + z**2)


# -- Markov chain Monte Carlo -------------------------------------------------------------------


class Chains(NamedTuple):
    """What a run of `ensembles` leaves."""

    x: Array  # [N, C, d], the states of C walkers
    acceptance: Array  # []


def ensembles(
    log_prob: Callable[[Array], Array],
    key: Key,
    x: Array,
    burn: int,
    steps: int,
    stretch: float = 2.0,
) -> Chains:
    """Independent ensembles under the affine-invariant stretch move.

    A walker of one half moves along the line through a walker of the other half,
    x' = other + z (x - other), p(z) ~ z^{-1/2} on [1/a, a], and is accepted with probability
    min(1, z^{d - 1} p(x') / p(x)). Source: Goodman and Weare (2010), equation 10.

    Args:
        log_prob: x [d] -> [], up to a constant.
        key: a PRNG key.
        x: [E, W, d], the start of E ensembles of W walkers, W even and at least 2 d.
        burn: steps that are dropped.
        steps: steps that are kept.
        stretch: a.

    Returns:
        `Chains` with E W walkers, those of an ensemble side by side.
    """
    groups, walkers, d = x.shape
    density = jax.vmap(jax.vmap(log_prob))

    def half(state, key):
        mine, others, value, others_value = state
        key_z, key_pick, key_accept = jax.random.split(key, 3)
        u = jax.random.uniform(key_z, value.shape, x.dtype)
        z = ((stretch - 1) * u + 1) ** 2 / stretch
        pick = jax.random.randint(key_pick, value.shape, 0, walkers // 2)
        other = jnp.take_along_axis(others, pick[..., None], 1)
        proposal = other + z[..., None] * (mine - other)
        new = density(proposal)
        odds = (d - 1) * jnp.log(z) + new - value
        accept = jnp.log(jax.random.uniform(key_accept, value.shape, x.dtype)) < odds
        mine = jnp.where(accept[..., None], proposal, mine)
        value = jnp.where(accept, new, value)
        return (others, mine, others_value, value), (mine, accept)

    first, second = x[:, : walkers // 2], x[:, walkers // 2 :]
    values = density(x)
    start = (first, second, values[:, : walkers // 2], values[:, walkers // 2 :])
    keys = jax.random.split(key, 2 * (burn + steps))  # the halves take turns
    _, (path, accepted) = jax.lax.scan(half, start, keys)
    path = path[2 * burn :].reshape(steps, 2, groups, walkers // 2, d)
    path = jnp.moveaxis(path, 1, 2).reshape(steps, groups * walkers, d)
    return Chains(path, jnp.mean(accepted[2 * burn :].astype(x.dtype)))


def r_hat(x: np.ndarray) -> np.ndarray:
    """The split potential scale reduction of x [N, C, d]: [d], one where chains agree.

    Source: Gelman et al., Bayesian Data Analysis (2013), section 11.4.
    """
    n = len(x) // 2
    split = np.concatenate([x[:n], x[n : 2 * n]], 1)
    within = split.var(0, ddof=1).mean(0)
    between = split.mean(0).var(0, ddof=1)
    return np.sqrt((n - 1) / n + between / within)


def effective_size(x: np.ndarray, groups: int) -> np.ndarray:
    """The number of independent draws that the mean over x [N, C, d] is worth: [d].

    Walkers of one ensemble depend on each other, so the series is the ensemble's mean; its
    autocorrelation time, averaged over ensembles, is cut at the first lag above five times itself
    (Sokal's window), and the variance of that series is weighed against that of single states.

    Args:
        x: the walkers of `groups` independent ensembles, as `ensembles` orders them.
        groups: E.
    """
    n, walkers, d = x.shape
    series = x.reshape(n, groups, walkers // groups, d).mean(2)
    series = series - series.mean((0, 1))
    spectrum = np.abs(np.fft.rfft(series, 2 * n, axis=0)) ** 2
    covariance = np.fft.irfft(spectrum, axis=0)[:n].mean(1) / n
    time = 2 * np.cumsum(covariance / covariance[0], 0) - 1
    window = np.argmax(np.arange(n)[:, None] >= 5 * time, 0)
    tau = time[window, np.arange(d)]
    variance = covariance[0] * tau / (n * groups)  # of the mean over everything
    return x.reshape(-1, d).var(0) / variance


def posterior(
    key: Key, x: Array, groups: int, walkers: int, burn: int, steps: int, starts: int = 64
) -> list[Chains]:
    """Draws of y given each of the data sets x [D, n], by `ensembles`, in float64.

    A walker starts among the best `starts`-th of its ensemble's own draws of the prior. Half-way
    through the burn-in it moves to the place of one of its ensemble, drawn by density, which
    frees those stuck in the tails: at large g the law hardly depends on it.
    """

    def run(key, draws, data):
        values = jax.vmap(jax.vmap(lambda y: log_posterior(y, data)))
        pick = lambda x, i: jnp.take_along_axis(x, i[..., None], 1)
        go = partial(ensembles, lambda y: log_posterior(y, data), burn=burn // 2)
        key_first, key_pick, key_last = jax.random.split(key, 3)
        x = pick(draws, jnp.argsort(-values(draws), 1)[:, :walkers])
        x = go(key_first, x, steps=1).x[-1].reshape(x.shape)
        index = jax.random.categorical(key_pick, values(x), shape=(walkers, groups)).T
        return go(key_last, pick(x, index), steps=steps)

    with jax.enable_x64(True):
        data = jnp.asarray(np.asarray(x), jnp.float64)
        key_start, key_run = jax.random.split(key)
        shape = (len(data), groups, starts * walkers, 4)
        draws = jax.random.normal(key_start, shape, jnp.float64)
        out = jax.jit(jax.vmap(run))(jax.random.split(key_run, len(data)), draws, data)
        states, acceptance = jax.tree.map(np.asarray, out)
    return [Chains(*each) for each in zip(states, acceptance, strict=True)]
