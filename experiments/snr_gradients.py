r"""Mean and deviation of the gradients of VR-IWAE bounds in the linear-Gaussian model.

By differentiation through `gmjax.losses.variational.bound`, over vmapped replicates; and by a
reduction to two numbers a particle, at any d: with e_j = s_j delta / h + (its part across) and
coefficients c_j that depend on (s_j, r2_j) alone (see `experiments.linear_gaussian`), every
gradient of one point is

    g = p sum_j c_j + k sum_j c_j e_j,

    theta      p = m - theta    k = sqrt(V)                   c = v
    phi, rep   p = -2 delta     k = -2 sqrt(V)                c = v
    phi, drep  p = -2 delta     k = -(2 V - 1) / sqrt(V)      c = alpha v + (1 - alpha) v^2

for b, and x times it for a. Given (s, r2) the parts across are uniform in direction, so with
G = -2 h sum c_j + k sum c_j s_j the mean and the variance of coordinate i are, u = delta / h,

    u_i E G,     u_i^2 Var G + (1 - u_i^2) / (d - 1) k^2 E sum_j c_j^2 r2_j,

for phi. The mean of rep is that of drep, which has far less noise. What is left to simulate is
(s, r2). Coordinates are not independent: with W = k^2 E sum_j c_j^2 r2_j and f = (x, 1) the factors
of a and b, those of a point have the covariance

    f f^T o (Var G u u^T + W / (d - 1) (I - u u^T)).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import linear_gaussian as lg
from experiments.replicates import Moments, collect, moments
from gmjax.losses import variational
from gmjax.types import Array, Key, PyTree

V = lg.LINEAR.proposal
DREP = -(2 * V - 1) / math.sqrt(V)
CURVES = ("theta", "rep", "drep")

# -- the reduction ------------------------------------------------------------------------------


class Reduced(NamedTuple):
    """Of one model: A orders, S sizes, T points, P = 2 d coordinates of (a, b)."""

    mean: Array  # [3, A, S, 2 d] of a gradient averaged over the points; for theta the last d count
    std: Array  # the same
    gap: Array  # [A, S] bound - log p(x), nats
    h2: Array  # [T]


class Parts(NamedTuple):
    """Of every point: three curves, A orders, S sizes, T points."""

    mean: Array  # [3, A, S, T] E G; for theta sqrt(V) E sum_j c_j s_j
    along: Array  # [3, A, S, T] Var G, unbiased
    across: Array  # [3, A, S, T] W = k^2 E sum_j c_j^2 r2_j
    gap: Array  # [A, S] bound - log p(x), mean over the points, nats


def parts(
    key: Key,
    dims: int,
    h: Array,
    alphas: Sequence[float],
    sizes: Sequence[int],
    repeats: int,
    share: int = 16,
) -> Parts:
    """What `reduced` is made of, for points at distances h [T]; arguments as there."""
    orders = jnp.asarray(alphas, jnp.float32)

    def one(log_w, s, r2, alpha):
        v = variational.weights(log_w, alpha)
        c = alpha * v + (1 - alpha) * v**2
        s1 = jnp.sum(v * s, 0)
        g = -2 * h * jnp.sum(c, 0) + DREP * jnp.sum(c * s, 0)
        across = jnp.sum(v**2 * r2, 0), DREP**2 * jnp.sum(c**2 * r2, 0)
        return s1, s1**2, g, g**2, *across, variational.bound(log_w, alpha)

    def body(total, key):
        drawn = lg.radial(key, max(sizes), dims, h, share=share)
        found = [
            jax.vmap(lambda alpha, n=n: jnp.stack(one(*(a[:n] for a in drawn), alpha)))(orders)
            for n in sizes
        ]
        return total + jnp.stack(found, 2) / repeats, None  # [A, 7, S, T]

    zero = jnp.zeros((len(alphas), 7, len(sizes), len(h)))
    total, _ = jax.lax.scan(body, zero, jax.random.split(key, repeats))
    s1, s1_sq, g, g_sq, across, across_drep, bound = jnp.moveaxis(total, 1, 0)
    unbiased = repeats / (repeats - 1)
    var_s1 = unbiased * (s1_sq - s1**2)
    return Parts(
        jnp.stack([math.sqrt(V) * s1, g, g]),
        jnp.stack([V * var_s1, 4 * V * var_s1, unbiased * (g_sq - g**2)]),
        jnp.stack([V * across, 4 * V * across, across_drep]),
        jnp.mean(bound, -1),
    )


def reduced(
    key: Key,
    x: Array,
    w: lg.Parameters,
    alphas: Sequence[float],
    sizes: Sequence[int],
    repeats: int,
    share: int = 16,
) -> Reduced:
    """Means and deviations of the three gradients for M = 1.

    Args:
        x: [T, d], d 2 or more.
        alphas: A orders in [0, 1).
        sizes: S numbers of particles, which use the same draws.
        repeats: of the simulation of (s, r2), for each point; 2 or more.
        share: see `linear_gaussian.radial`.
    """
    t, d = x.shape
    delta = lg.offset(w, x)
    h = jnp.linalg.norm(delta, axis=1)
    u = delta / h[:, None]
    found = parts(key, d, h, alphas, sizes, repeats, share)
    means, stds = [], []
    for i, (first, second, wide) in enumerate(zip(*found[:3], strict=True)):
        own = [jnp.ones_like(x) if i == 0 else x, jnp.ones_like(x)]
        base = jnp.mean(w.a * x + w.b - w.theta, 0) if i == 0 else 0.0
        mean = [first @ (f * u) / t + base for f in own]
        var = [second @ (f * u) ** 2 + wide @ (f**2 * (1 - u**2) / (d - 1)) for f in own]
        means.append(jnp.concatenate(mean, -1))
        stds.append(jnp.sqrt(jnp.concatenate(var, -1)) / t)
    return Reduced(jnp.stack(means), jnp.stack(stds), found.gap, h**2)


def covariance(x: np.ndarray, u: np.ndarray, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Of the coordinates (a, b) of a gradient of phi averaged over the points: [2 d, 2 d].

    Args:
        x: [T, d].
        u: [T, d] directions delta / h.
        along: [T] Var G.
        across: [T] W; zero for the covariance of mean G u alone.
    """
    t, d = x.shape
    wide = across / (d - 1)
    both = np.concatenate([x * u, u], 1)
    blocks = [np.diag(wide @ x**p) for p in (2, 1, 0)]
    return ((both.T * (along - wide)) @ both + np.block([blocks[:2], blocks[1:]])) / t**2


# -- the library's gradients --------------------------------------------------------------------


def gradient(
    key: Key, x: Array, w: lg.Parameters, n: int, alpha: float | Array, name: str, batch: int = 256
) -> Array:
    """One draw of d/d(theta, a, b) of the bound, averaged over the points x [T, d]: [3 d].

    Args:
        n: particles, drawn anew for every point.
        name: in `variational.GRADIENTS`.
        batch: points at a time.
    """

    def value(w, x, key):
        noise = jax.random.normal(key, (n, x.size))
        return variational.bound(lg.log_weights(w, x, noise, name, alpha), alpha)

    found = jax.lax.map(
        lambda row: jax.grad(value)(w, *row),
        (x, jax.random.split(key, len(x))),
        batch_size=min(batch, len(x)),
    )
    return jnp.concatenate([jnp.mean(leaf, 0) for leaf in found])


def simulated(
    key: Key,
    x: Array,
    w: lg.Parameters,
    n: int,
    alphas: Sequence[float],
    repeats: int,
    chunk: int,
    outer: Sequence[int] = (1,),
) -> Moments:
    """Moments over `repeats` replicates of M averaged draws of `gradient`, M in `outer`.

    Every leaf is {"rep", "drep"} -> [len(outer), A, 3 d]; all of a replicate's gradients see the
    same draws, and the larger M go on from the smaller.
    """
    one, most = _gradients(x, w, n, alphas), max(outer)

    def draw(key):
        found = jax.lax.map(one, jax.random.split(key, most))
        mean = lambda leaf: jnp.stack([jnp.mean(leaf[:m], 0) for m in outer])
        return jax.tree.map(mean, found)

    return moments(draw, key, repeats, chunk, f"d {x.shape[1]}, N {n}, M {most}")


def drawn(
    key: Key,
    x: Array,
    w: lg.Parameters,
    n: int,
    alphas: Sequence[float],
    repeats: int,
    chunk: int,
) -> PyTree:
    """{"rep", "drep"} -> `repeats` draws of `gradient`: [repeats, A, 3 d]."""
    label = f"d {x.shape[1]}, N {n}"
    return collect(_gradients(x, w, n, alphas), key, repeats, chunk, label)


def _gradients(x, w, n, alphas):
    """key -> one draw of each gradient at every order; all see the same particles."""
    orders = jnp.asarray(alphas, x.dtype)

    def one(key):
        own = lambda name: jax.vmap(lambda alpha: gradient(key, x, w, n, alpha, name))(orders)
        return {name: own(name) for name in variational.GRADIENTS}

    return one
