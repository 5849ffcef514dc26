"""Probabilistic principal components: x = W z + m + e, z ~ N(0, I_q), e ~ N(0, sigma^2 I_D).

The maximum of the likelihood is known (Tipping and Bishop, J. R. Stat. Soc. B 61, 1999): m the
mean, sigma^2 the mean of the discarded eigenvalues of the covariance S, and
W = U (Lambda - sigma^2 I)^{1/2} R with any rotation R. It is also the limit of their EM steps,
which need products of the data with [D, q] only: with M = W^T W + sigma^2 I,

    W' = S W (sigma^2 I + M^{-1} W^T S W)^{-1},
    sigma'^2 = (tr S - tr(S W M^{-1} W'^T)) / D,
    -2 / N log p(X) = D log 2 pi + log|W W^T + sigma^2 I| + (tr S - tr(M^{-1} W^T S W)) / sigma^2.

Parameters are those of `pca`, with W W^T + sigma^2 I = C.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmjax.classical import pca
from gmjax.classical.moments import rank, sweep
from gmjax.types import Array, Key

Params = pca.Params
log_likelihood = pca.log_likelihood
from_moments = pca.from_moments


class Fit(NamedTuple):
    """What EM found."""

    params: Params
    log_likelihood: Array  # [], mean over the examples, nats
    iterations: Array  # [] int32
    converged: Array  # [] bool


@partial(jax.jit, static_argnames=("components", "solver", "ddof"))
def fit(
    x: Array, components: int, solver: str = "eigh", key: Key | None = None, ddof: int = 0
) -> Params:
    """The maximum of the likelihood in closed form.

    Args:
        x: [N, D] floats.
        components: q, in 1 .. min(N, D - 1).
        solver, key, ddof: see `pca.fit`.

    Raises:
        UserError: q or the solver is not valid.
    """
    rank(components, min(x.shape[0], x.shape[1] - 1), "components")
    return pca.fit(x, components, solver, key, ddof)


@partial(jax.jit, static_argnames=("components",))
def fit_em(
    key: Key, x: Array, components: int, iterations: int = 1000, tolerance: float = 1e-6
) -> Fit:
    """The same by EM, from a random W.

    Args:
        key: of the start.
        x: [N, D] floats.
        components: q, in 1 .. min(N, D - 1).
        iterations: at most so many steps, each one pass over the data.
        tolerance: ends when a step gains fewer nats an example.

    Raises:
        UserError: q is not valid.
    """
    n, d = x.shape
    q = rank(components, min(n, d - 1), "components")
    mean = x.mean(0)
    total = sweep(lambda rows, fresh: (jnp.sum(fresh * ((rows - mean) ** 2).sum(1)), None), x)[0]
    total = total / n
    floor = jnp.finfo(x.dtype).eps * total / d
    eye = jnp.eye(q, dtype=x.dtype)

    def step(w, noise):
        """(W', sigma'^2, mean log-likelihood of W and sigma^2)."""

        def block(rows, fresh):
            centred = (rows - mean) * fresh[:, None]
            return centred.T @ (centred @ w), None

        sw = sweep(block, x)[0] / n
        wsw = w.T @ sw
        factor = jax.scipy.linalg.cho_factor(w.T @ w + noise * eye)
        inner = jax.scipy.linalg.cho_solve(factor, wsw)
        logdet = (d - q) * jnp.log(noise) + 2 * jnp.log(jnp.diagonal(factor[0])).sum()
        loglik = -0.5 * (d * jnp.log(2 * jnp.pi) + logdet + (total - jnp.trace(inner)) / noise)
        new = jnp.linalg.solve((noise * eye + inner).T, sw.T).T
        kept = jnp.trace(jax.scipy.linalg.cho_solve(factor, new.T @ sw))
        return new, jnp.maximum((total - kept) / d, floor), loglik

    def body(carry):
        w, noise, _, last, i = carry
        w, noise, loglik = step(w, noise)
        return w, noise, last, loglik, i + 1

    def going(carry):
        *_, before, last, i = carry
        return (i < iterations) & ~(last - before < tolerance)

    w = jax.random.normal(key, (d, q), x.dtype) * jnp.sqrt(total / d)
    low = jnp.asarray(-jnp.inf, x.dtype)  # -inf - -inf is nan: the loop starts
    start = (w, total / d, low, low, jnp.int32(0))
    w, noise, before, last, i = lax.while_loop(going, body, start)
    u, s, _ = jnp.linalg.svd(w, full_matrices=False)
    params = Params(mean, pca._signed(u.T), s**2 + noise, noise)
    return Fit(params, step(w, noise)[2], i, last - before < tolerance)


def loadings(params: Params) -> Array:
    """W = U (Lambda - sigma^2 I)^{1/2}: [D, q]."""
    return params.components.T * jnp.sqrt(jnp.maximum(params.variances - params.noise, 0.0))


@partial(jax.jit, static_argnames=("n",))
def sample(key: Key, params: Params, n: int) -> Array:
    """n draws of W z + m + e: [n, D]."""
    key_code, key_noise = jax.random.split(key)
    dtype = params.mean.dtype
    z = jax.random.normal(key_code, (n, len(params.variances)), dtype)
    e = jax.random.normal(key_noise, (n, len(params.mean)), dtype)
    return params.mean + z @ loadings(params).T + jnp.sqrt(params.noise) * e
