"""The law of alpha X0 + beta X1 + gamma Z for two independent targets, where it is closed.

Z is standard normal. Two mixtures of Gaussians give the mixture over pairs of components: with
V = alpha^2 C0 + beta^2 C1 + gamma^2 I, the gap g = x - alpha m0 - beta m1 and w = V^{-1} g, a pair
has the posterior means

    E[X0 | x] = m0 + alpha C0 w,    E[X1 | x] = m1 + beta C1 w,    E[Z | x] = gamma w,

and products of one-dimensional mixtures give the same in every coordinate. Any target and an
isotropic Gaussian N(m, s^2 I) give that target under noise of variance beta^2 s^2 + gamma^2, of
which X1 and Z take their shares. The velocity of the flow is alpha' E[X0 | x] + beta' E[X1 | x] +
gamma' E[Z | x] (Albergo and Vanden-Eijnden 2023).

The covariance of W = alpha X0 + beta X1 given x = W + gamma Z is gamma^2 S V^{-1} within a pair,
S = V - gamma^2 I, and that of the pairs' means between them. It is gamma^2 Cov(Z | x), the norm
of which bounds how fast a flow may stretch.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.targets.laws import Covariance, Target, diagonal, resolved
from gmjax.targets.mixtures import Components
from gmjax.targets.products import Columns
from gmjax.types import Array, UserError

Means = tuple[Array, Array, Array]
_EXACT = jax.lax.Precision.HIGHEST


class Interpolant(NamedTuple):
    """The law of alpha X0 + beta X1 + gamma Z; for one state x [d]."""

    dim: int
    log_prob: Callable[..., Array]  # (x, alpha, beta, gamma) -> [] nats
    score: Callable[..., Array]  # (x, alpha, beta, gamma) -> [d]
    means: Callable[..., Means]  # (x, alpha, beta, gamma) -> E[X0 | x], E[X1 | x], E[Z | x]
    posterior: Callable[..., Covariance]  # (x, alpha, beta, gamma) -> Cov(alpha X0 + beta X1 | x)
    sample: Callable[..., Array]  # (key, alpha, beta, gamma) -> x [d]


def interpolant(start: Target, end: Target) -> Interpolant:
    """The interpolant of two independent targets.

    Args:
        start: the law of X0.
        end: that of X1.

    Raises:
        UserError: other dimensions, or a pair without a closed form.
    """
    if start.dim != end.dim:
        raise UserError(f"config.target.dim={start.dim} and {end.dim} must be equal")
    pair = start.parts, end.parts
    draw = _sampler(start, end)
    if all(isinstance(p, Components) for p in pair):
        return _components(draw, *pair)
    columns = tuple(_columns(p) for p in pair)
    if all(p is not None for p in columns):
        return _products(draw, *columns)
    for own, other, swap in ((start, end, False), (end, start, True)):
        variance = _isotropic(other.parts)
        if variance is not None:
            return _noised(draw, own, other.mean, variance, swap)
    raise UserError(
        "config.target: no closed form for these two; valid: two mixtures of Gaussians, two"
        " products of one-dimensional mixtures, or any target and an isotropic Gaussian"
    )


def velocity(
    law: Interpolant, coefficients: Callable[[Array], Means]
) -> Callable[[Array, Array], Array]:
    """The flow of an interpolant: (x [d], t []) -> [d].

    Args:
        law: of the two ends.
        coefficients: t -> (alpha, beta, gamma), [] each.
    """

    def at(x: Array, t: Array) -> Array:
        here, rates = jax.jvp(coefficients, (t,), (jnp.ones_like(t),))
        return sum(rate * mean for rate, mean in zip(rates, law.means(x, *here), strict=True))

    return at


def _sampler(start, end):
    def sample(key, a, b, g):
        key_start, key_end, key_noise = jax.random.split(key, 3)
        x0, x1 = start.sample(key_start), end.sample(key_end)
        return a * x0 + b * x1 + g * jax.random.normal(key_noise, x0.shape, x0.dtype)

    return sample


def _isotropic(parts):
    """The variance of an isotropic Gaussian, None for others."""
    if not isinstance(parts, Components) or len(parts.weights) > 1:
        return None
    full = parts.values.shape[1] == parts.means.shape[1]
    return float(parts.values[0, 0]) if full and np.ptp(parts.values) == 0 else None


def _columns(parts):
    """A law of independent coordinates as `Columns`, None for others."""
    if isinstance(parts, Components) and len(parts.weights) == 1 and parts.vectors is None:
        return Columns(np.ones((parts.means.shape[1], 1)), parts.means.T, parts.values.T**0.5)
    return parts if isinstance(parts, Columns) else None


def _noised(draw, own, mean, variance, swap):
    def split(x, a, b, g):
        a, b = (b, a) if swap else (a, b)
        rest = resolved(jnp.sqrt(b**2 * variance + g**2))
        return x - b * jnp.asarray(mean, x.dtype), a, b, rest

    def means(x, a, b, g):
        y, a, b, rest = split(x, a, b, g)
        score, data = own.score(y, a, rest), own.denoiser(y, a, rest)
        other = jnp.asarray(mean, x.dtype) - b * variance * score
        return (other, data, -g * score) if swap else (data, other, -g * score)

    def posterior(x, a, b, g):
        y, a, b, rest = split(x, a, b, g)
        # Z is g / rest of the whole noise and a part that x says nothing of.
        own_part = own.posterior(y, a, rest)
        square = (a * g**2 / rest**2) ** 2
        spread = square * own_part.diagonal + (g * b / rest) ** 2 * variance
        return Covariance(spread, own_part.factor, square * own_part.weights)

    def apply(f):
        def at(x, a, b, g):
            y, a, _, rest = split(x, a, b, g)
            return f(y, a, rest)

        return at

    return Interpolant(own.dim, apply(own.log_prob), apply(own.score), means, posterior, draw)


def _components(draw, p0, p1):
    """Mixtures of Gaussians: over pairs of components, whole states."""
    dim = p0.means.shape[1]
    flat = p0.vectors is None and p1.vectors is None

    def matrices(p, dtype):
        """Covariances: [J, d], or [J, d, d] where one of the two laws needs them."""
        if flat:
            return jnp.asarray(p.values, dtype)
        u = (
            np.broadcast_to(np.eye(dim), (len(p.means), dim, dim))
            if p.vectors is None
            else p.vectors
        )
        return jnp.asarray(np.einsum("jik,jk,jlk->jil", u, p.values, u), dtype)

    def apply(c, w, axis):
        """C_j w for w [J0, J1, d], j along `axis`."""
        if flat:
            return jnp.expand_dims(c, 1 - axis) * w
        return jnp.einsum(("jab,jkb->jka", "kab,jkb->jka")[axis], c, w, precision=_EXACT)

    def terms(x, a, b, g):
        m0, m1 = (jnp.asarray(p.means, x.dtype) for p in (p0, p1))
        c0, c1 = (matrices(p, x.dtype) for p in (p0, p1))
        gap = x - a * m0[:, None] - b * m1[None]
        noise = resolved(g) ** 2
        v = a**2 * c0[:, None] + b**2 * c1[None]
        if flat:
            w, logs = gap / (v + noise), jnp.sum(jnp.log(v + noise), -1)
        else:
            root = jnp.linalg.cholesky(v + noise * jnp.eye(dim, dtype=x.dtype))
            w = jax.scipy.linalg.cho_solve((root, True), gap[..., None])[..., 0]
            logs = 2 * jnp.sum(jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)), -1)
        weights = jnp.asarray(np.log(np.outer(p0.weights, p1.weights)), x.dtype)
        likely = weights - 0.5 * (jnp.sum(gap * w, -1) + logs + dim * math.log(2 * math.pi))
        share = jax.nn.softmax(likely.ravel()).reshape(likely.shape)
        return m0, m1, c0, c1, w, likely, share

    def mean(share, values):
        return jnp.einsum("jk,jka->a", share, values, precision=_EXACT)

    def score(x, a, b, g):
        *_, w, _, share = terms(x, a, b, g)
        return -mean(share, w)

    def means(x, a, b, g):
        m0, m1, c0, c1, w, _, share = terms(x, a, b, g)
        first = m0[:, None] + a * apply(c0, w, 0)
        second = m1[None] + b * apply(c1, w, 1)
        return mean(share, first), mean(share, second), g * mean(share, w)

    def posterior(x, a, b, g):
        *_, c0, c1, w, _, share = terms(x, a, b, g)
        noise = resolved(g) ** 2
        s = a**2 * c0[:, None] + b**2 * c1[None]
        centres = (x - noise * w).reshape(-1, dim)  # E[W | x] of each pair
        between = (centres - share.ravel() @ centres).T
        if flat:
            within = noise * jnp.einsum("jk,jka->a", share, s / (s + noise), precision=_EXACT)
            return Covariance(within, between, share.ravel())
        gain = jnp.linalg.solve(s + noise * jnp.eye(dim, dtype=x.dtype), s)
        values, vectors = jnp.linalg.eigh(noise * jnp.einsum("jk,jkab->ab", share, gain))
        factor = jnp.concatenate([vectors, between], 1)
        weights = jnp.concatenate([values, share.ravel()])
        return Covariance(jnp.zeros_like(x), factor, weights)

    def log_prob(x, a, b, g):
        return jax.nn.logsumexp(terms(x, a, b, g)[5])

    return Interpolant(dim, log_prob, score, means, posterior, draw)


def _products(draw, p0, p1):
    """Independent coordinates: over pairs of components in each."""

    def terms(x, a, b, g):
        (w0, m0, s0), (w1, m1, s1) = ((jnp.asarray(q, x.dtype) for q in p) for p in (p0, p1))
        w0, m0, s0 = (q[:, :, None] for q in (w0, m0, s0))
        w1, m1, s1 = (q[:, None, :] for q in (w1, m1, s1))
        v = (a * s0) ** 2 + (b * s1) ** 2 + resolved(g) ** 2
        gap = x[:, None, None] - a * m0 - b * m1
        likely = jnp.log(w0 * w1) - 0.5 * (gap**2 / v + jnp.log(2 * math.pi * v))
        share = jax.nn.softmax(likely, (1, 2))
        return m0, m1, s0, s1, gap / v, likely, share

    def score(x, a, b, g):
        *_, w, _, share = terms(x, a, b, g)
        return -jnp.sum(share * w, (1, 2))

    def means(x, a, b, g):
        m0, m1, s0, s1, w, _, share = terms(x, a, b, g)
        over = lambda values: jnp.sum(share * values, (1, 2))
        return over(m0 + a * s0**2 * w), over(m1 + b * s1**2 * w), g * over(w)

    def posterior(x, a, b, g):
        _, _, s0, s1, w, _, share = terms(x, a, b, g)
        noise, s = resolved(g) ** 2, (a * s0) ** 2 + (b * s1) ** 2
        centres = x[:, None, None] - noise * w  # E[W | x] of each pair
        gap = centres - jnp.sum(share * centres, (1, 2), keepdims=True)
        return diagonal(jnp.sum(share * (noise * s / (s + noise) + gap**2), (1, 2)))

    def log_prob(x, a, b, g):
        return jnp.sum(jax.nn.logsumexp(terms(x, a, b, g)[5], (1, 2)))

    return Interpolant(len(p0.means), log_prob, score, means, posterior, draw)
