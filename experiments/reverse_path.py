"""How far the sampler's path is from the true reverse path, which bounds how far its law is.

KL of the true reverse path against that of `reverse_kl`'s exponential integrator is what the proof
of Benton et al. bounds; by the data processing inequality it bounds KL(q_delta || p_N). By Girsanov
it is KL(q_T || N(0, I)) + sum_k int E |s_t(X_t) - s_{t_k}(X_{t_k})|^2 dt over the steps. Since
the score at t_k is e^g E[s_t(X_t) | X_{t_k}], g = t_k - t, only A(t) = E |s_t|^2 remains:

    sum_k int A(t) + (1 - 2 e^{-(t_k - t)}) A(t_k) dt
        = int_delta^T A(t) dt + sum_k A(t_k) (g_k - 2 (1 - e^-g_k)).

An error e of the score adds sum_k g_k E |e_k|^2 + 2 sum_k (g_k - (1 - e^-g_k)) E[s_k . e_k]. The
same path by Monte Carlo takes any law whose score is known.

Source: Benton, De Bortoli, Doucet and Deligiannidis (2024), sections 2 and 3; Girsanov's theorem.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import gammaln

from experiments.reverse_kl import columns, gaussian_at, key, nodes, process, spectrum, unkey
from gmjax.targets import bessel
from gmjax.targets.laws import Target, noised, square_trace, trace
from gmjax.targets.mixtures import Components
from gmjax.targets.products import Columns
from gmjax.types import Key


class Curves(NamedTuple):
    """Means under q_t of a target, by closed form or quadrature; t [K] on the host."""

    fisher: Callable[[np.ndarray], np.ndarray]  # E |score|^2: [K]
    start: Callable[[float], float]  # KL(q_T || N(0, I)), nats


CELLS = 512


def curves(target: Target) -> Curves | None:
    """Of a Gaussian, of a product law, of a sphere; None for other laws."""
    parts = target.parts
    if isinstance(parts, Columns):
        return _product_curves(target)
    if isinstance(parts, Components):
        return _gaussian_curves(target) if len(parts.weights) == 1 else None
    return _sphere_curves(target.dim, math.sqrt(float(np.sum(target.covariance.diagonal))))


def _gaussian_curves(target):
    values, means = spectrum(target)
    counted, counts = np.unique(values, return_counts=True)

    def fisher(t):
        t = np.asarray(t)[:, None]
        return np.sum(counts / (np.exp(-2 * t) * counted - np.expm1(-2 * t)), -1)

    def start(t):
        v, centre = gaussian_at(values, means, t)
        return float(0.5 * np.sum(v - 1 - np.log(v) + centre**2))

    return Curves(fisher, start)


def _read(run: Callable, t: np.ndarray, where: np.ndarray, chunk: int = 250):
    """(log density, score) [K, CELLS] each of run(t, where), a fixed number of rows at a time."""
    size = len(t)
    t, where = (np.concatenate([q, np.repeat(q[-1:], -size % chunk, 0)]) for q in (t, where))
    with jax.enable_x64(True):
        parts = [
            run(jnp.asarray(t[i : i + chunk]), jnp.asarray(where[i : i + chunk]))
            for i in range(0, len(t), chunk)
        ]
        return tuple(np.concatenate([np.asarray(p[j]) for p in parts])[:size] for j in range(2))


@partial(jax.jit, static_argnums=0)
def _column(named, t, y):
    """log density and score of one coordinate at t [K], y [K, CELLS]."""
    law = unkey(named)

    def at(t, y):
        alpha, sigma = jnp.exp(-t), jnp.sqrt(-jnp.expm1(-2 * t))
        return law.log_prob(y[None], alpha, sigma), law.score(y[None], alpha, sigma)[0]

    return jax.vmap(jax.vmap(at, (None, 0)))(t, y)


@partial(jax.jit, static_argnums=(0, 1))
def _sphere(dim, radius, t, r):
    """log density and radial score at t [K], r [K, CELLS]."""
    order = 0.5 * dim - 1

    def at(t, r):
        alpha, sigma = jnp.exp(-t), jnp.sqrt(-jnp.expm1(-2 * t))
        k = alpha * radius / sigma**2
        shell = -0.5 * ((r - alpha * radius) / sigma) ** 2
        logs = shell - 0.5 * dim * jnp.log(2 * math.pi * sigma**2)
        logs = logs + bessel.log_mean_exp(order, k * r)
        pull = bessel.scaled_ratio(order, (k * r) ** 2)
        return logs, r * (alpha * radius * k * pull - 1) / sigma**2

    return jax.vmap(jax.vmap(at, (None, 0)))(t, r)


def _product_curves(target):
    each = columns(target)

    def total(t, value):
        t, out = np.asarray(t, np.float64), 0.0
        for count, column in each:
            y, h = nodes(column, t, CELLS)
            logs, score = _read(partial(_column, key(column)), t, y)
            out = out + count * h * np.sum(np.exp(logs) * value(y, logs, score), -1)
        return out

    def relative(y, logs, score):
        return logs + 0.5 * y**2 + 0.5 * math.log(2 * math.pi)

    return Curves(
        lambda t: total(t, lambda y, logs, score: score**2),
        lambda t: float(total([t], relative)[0]),
    )


def _sphere_curves(dim, radius):
    """By the law of r = |x|, on which the density of x and the score depend alone."""
    z, w = np.polynomial.legendre.leggauss(CELLS)
    area = math.log(2) + 0.5 * dim * math.log(math.pi) - float(gammaln(0.5 * dim))

    def total(t, value):
        t = np.asarray(t, np.float64)
        alpha, std = np.exp(-t), np.sqrt(-np.expm1(-2 * t))
        # r is concentrated about the root of its mean square.
        centre = np.sqrt((alpha * radius) ** 2 + dim * std**2)
        low, high = np.maximum(centre - 12 * std, 0), centre + 12 * std
        half = 0.5 * (high - low)[:, None]
        r = low[:, None] + half * (1 + z)
        logs, score = _read(partial(_sphere, dim, radius), t, r)
        weight = np.exp(logs + area + (dim - 1) * np.log(r))
        return np.sum(half * w * weight * value(r, logs, score), -1)

    def relative(r, logs, score):
        return logs + 0.5 * r**2 + 0.5 * dim * math.log(2 * math.pi)

    return Curves(
        lambda t: total(t, lambda r, logs, score: score**2),
        lambda t: float(total([t], relative)[0]),
    )


def integral(fisher: Callable[[np.ndarray], np.ndarray], delta: float, end: float) -> float:
    """int_delta^end A(t) dt, by Gauss-Legendre in log t."""
    z, w = np.polynomial.legendre.leggauss(12)
    edges = np.linspace(math.log(delta), math.log(end), 41)
    half = 0.5 * np.diff(edges)[:, None]
    t = np.exp(0.5 * (edges[:-1] + edges[1:])[:, None] + half * z)
    return float(np.sum(half * w * t * fisher(t.ravel()).reshape(t.shape)))


def path_kl(known: Curves, grid: np.ndarray) -> float:
    """The path's KL with an exact score, nats."""
    g = -np.diff(grid)
    cost = np.sum(known.fisher(grid[:-1]) * (g + 2 * np.expm1(-g)))
    return known.start(grid[0]) + integral(known.fisher, grid[-1], grid[0]) + float(cost)


def by_girsanov(target: Target, grid: np.ndarray, draws: Key, count: int) -> tuple[float, float]:
    """The discretisation's part of the path's KL by Monte Carlo: its mean and standard error, nats.

    Every replicate draws X0 and the whole path, at the grid and at one time inside every step.

    Args:
        target: any law.
        grid: [N + 1] times.
        draws: the key.
        count: replicates.
    """
    with jax.enable_x64(True):
        ladder = jnp.asarray(grid[::-1].copy())

        def move(key, x, gap):
            z = jax.random.normal(key, x.shape, x.dtype)
            return jnp.exp(-gap) * x + jnp.sqrt(-jnp.expm1(-2 * gap)) * z

        def score(x, t):
            return target.score(x, jnp.exp(-t), jnp.sqrt(-jnp.expm1(-2 * t)))

        @jax.jit
        @jax.vmap
        def cost(key):
            key_data, key_start, key_path = jax.random.split(key, 3)
            x = move(key_start, target.sample(key_data), ladder[0])

            def body(x, now):
                key, low, high = now
                key_time, key_in, key_up = jax.random.split(key, 3)
                t = low + (high - low) * jax.random.uniform(key_time, dtype=x.dtype)
                inside = move(key_in, x, t - low)
                x = move(key_up, inside, high - t)
                gap = score(inside, t) - score(x, high)
                return x, (high - low) * jnp.sum(gap**2)

            keys = jax.random.split(key_path, len(ladder) - 1)
            return jnp.sum(jax.lax.scan(body, x, (keys, ladder[:-1], ladder[1:]))[1])

        found = np.asarray(cost(jax.random.split(draws, count)))
    return float(found.mean()), float(found.std(ddof=1) / math.sqrt(count))


def localisation(target: Target, times: Sequence[float], draws: Key, count: int) -> np.ndarray:
    """Both sides of sigma^3 / (2 sigma') d/dt E tr Cov = E tr Cov^2, and the error of their gap.

    The rate is taken along the draws x_t = alpha x0 + sigma z, so both are means over the same.

    Returns:
        [len(times), 3].
    """
    path = process(1.0)
    with jax.enable_x64(True):

        @jax.jit
        def sides(t, keys):
            def one(key):
                def along(t):
                    x = noised(target, path)(key, t)
                    covariance = target.posterior(x, path.alpha(t), path.sigma(t))
                    return trace(covariance), square_trace(covariance)

                (_, square), (rate, _) = jax.jvp(along, (t,), (jnp.ones_like(t),))
                sigma, slope = jax.jvp(path.sigma, (t,), (jnp.ones_like(t),))
                return sigma**3 / (2 * slope) * rate, square

            return jax.lax.map(one, keys, batch_size=50)

        keys = jax.random.split(draws, count)
        left, right = np.array([sides(jnp.asarray(t), keys) for t in times]).transpose(1, 0, 2)
    error = (left - right).std(1, ddof=1) / math.sqrt(count)
    return np.stack([left.mean(1), right.mean(1), error], 1)


def smooth(known: Curves, delta: float, end: float, knots: int = 1000) -> Curves:
    """The same with A read off a cubic spline in log-log, for grids of very many steps."""
    t = np.geomspace(delta * 0.999, end * 1.001, knots)
    spline = CubicSpline(np.log(t), np.log(known.fisher(t)))
    return Curves(lambda t: np.exp(spline(np.log(t))), known.start)
