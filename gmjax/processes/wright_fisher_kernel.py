"""The transition density of the Wright-Fisher diffusion, and its score.

Given the ancestors N of a population at the earlier time, it is Dirichlet(alpha + N). With
p_i = x_i y_i for a start y and theta = |alpha|, summing over N with |N| = m ~ q_m(tau) gives

    p(x | y) = prod_i x_i^(alpha_i - 1) Psi(p),
    Psi(p) = sum_m q_m m! Gamma(theta + m) [z^m] prod_i F_i(p_i z),
    F_i(v) = sum_k v^k / (k! Gamma(alpha_i + k)),

where [z^m], the coefficient of z^m, is a convolution of D sequences. All terms are positive.
The score follows from the posterior mean of the ancestors: its i-th entry is
(alpha_i - 1 + E[N_i | x, y]) / x_i, E[N_i | x, y] = d log Psi / d log p_i.

Above the switch of `coalescent` the sum is taken as it stands. Any z gives the same answer; about
the saddle point, z = (kappa / 2)^2 with the kappa below, the terms that count are near one.

Below it, it has too many terms. F_i is a modified Bessel function, the average of e^(lambda u),
lambda^2 / 4 = v, over the first coordinate u of a unit vector in dimension 2 alpha_i. So the
diffusion is the squared norms of the blocks of a Brownian motion on the sphere of dimension
2 theta - 1 and radius 2, continued to real alpha_i, and

    Psi(p) = 2 pi^theta / prod_i Gamma(alpha_i) E_u K(sum_i sqrt(p_i) u_i),

K the sphere's heat kernel. With c = cos r, s = tau / 4 and k = theta - 1 it is known at small s:

    log K = -(theta - 1 / 2) log(2 pi s) - r^2 / 2s + k log(r / sin r)
            + s (k^2 / 2 - k (k - 1) (1 - r cot r) / (2 r^2))
            - s^2 (2 k + 1) k (k - 1) / 180 + O(s^2 r^2).

c varies by order tau only, about its mean c0 under the tilt e^(kappa c), kappa = K'/K at c0:

    log E_u K = log K(c0) - kappa c0 + sum_i log E e^(kappa sqrt(p_i) u_i)
                + (log K)''(c0) Var(c) / 2 + O(tau^2),

and c0, Var(c) and the third term are those of Bessel functions, which hold up to the boundary,
where the Gaussian form of the kernel fails. At the switch the error of log p is 1e-4 and less.

Source: Griffiths (1979); Griffiths and Spano (2010) for the sum; the small-time form is derived
here.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln

from gmjax.processes.coalescent import Lineages
from gmjax.types import Array

SERIES = 64  # terms of F; past lambda = SERIES its asymptotic form takes over
HANKEL = 12  # terms of that


def log_psi(alpha: np.ndarray, ancestry: Lineages, root: Array, gap: Array, tau: Array) -> Array:
    """log Psi: [].

    Args:
        alpha: [D] of the stationary law.
        ancestry: the number of lineages at theta = |alpha|.
        root: [D], sqrt(x_i y_i).
        gap: [], 1 - sum(root), to be given with its own precision.
        tau: [], the time.
    """
    switch = jnp.asarray(ancestry.switch, root.dtype)
    small = tau < switch
    early = _small_time(alpha, root, gap, jnp.where(small, tau, switch))
    late = _sum(alpha, ancestry, root, gap, jnp.where(small, switch, tau))
    return jnp.where(small, early, late)


def ancestors(alpha: np.ndarray, ancestry: Lineages, root: Array, gap: Array, tau: Array) -> Array:
    """E[N | x, y]: [D]; arguments as in `log_psi`."""

    def along(d):  # p_i -> p_i e^(d_i), with no root to differentiate at zero
        change = root * jnp.expm1(d / 2)
        return log_psi(alpha, ancestry, root + change, gap - jnp.sum(change), tau)

    return jax.grad(along)(jnp.zeros_like(root))


def _sum(alpha, ancestry, root, gap, tau):
    m = np.arange(ancestry.terms)
    kappa = jax.lax.stop_gradient(4 * _angle(gap)[1] / tau)
    weight = ancestry.log_pmf(tau) - _terms(alpha.sum(), m, kappa)
    top = jax.lax.stop_gradient(jnp.max(weight))
    parts = jnp.exp(_terms(alpha[:, None], m, kappa * root[:, None]))
    length = 2 * m.size  # what wraps around lands beyond the weights, but for the impossible
    spectrum = jnp.prod(jnp.fft.rfft(parts, length), 0)
    law = jnp.fft.irfft(spectrum, length)[: m.size]
    total = jnp.maximum(jnp.exp(weight - top) @ law, jnp.finfo(root.dtype).tiny)
    return top + jnp.log(total) - kappa * gap


def _terms(alpha: np.ndarray | float, k: np.ndarray, x: Array) -> Array:
    """log of (x / 2)^2k e^-x / (k! Gamma(alpha + k)), which is largest near k = x / 2."""
    some = np.maximum(k, 1)
    rest = gammaln(k + 1) + gammaln(alpha + k) + 2 * k * (1 - np.log(some))
    count, rest = jnp.asarray(k, x.dtype), jnp.asarray(rest, x.dtype)
    ratio = jnp.maximum(x / 2, jnp.finfo(x.dtype).eps ** 2) / some.astype(x.dtype)
    return 2 * count * jnp.log(ratio) + 2 * (count - x / 2) - rest


def _small_time(alpha, root, gap, tau):
    s, theta = tau / 4, alpha.sum()
    k = theta - 1
    w = jax.lax.stop_gradient(gap)
    for _ in range(2):  # each gains a factor of order tau
        kappa = _tilt(k, w, s)
        log_f, shift, spread = _bessels(alpha, kappa * root)
        w = gap + jnp.sum(shift) / kappa
    half, first, second, third = _angle(w)
    log_k = k * jnp.log(first) - (theta - 0.5) * jnp.log(2 * jnp.pi * s) - half / s
    log_k += s * (k**2 - k * (k - 1) * second / first**2) / 2
    log_k -= s**2 * (2 * k + 1) * k * (k - 1) / 180
    bend = k * (third / first - (second / first) ** 2) - second / s
    constant = np.log(2) + theta * np.log(np.pi)
    tilted = jnp.sum(log_f) + kappa * (w - gap)
    return constant + log_k + tilted + bend * jnp.sum(spread) / (2 * kappa**2)


def _tilt(k: float, w: Array, s: Array) -> Array:
    """d log K / d cos r at cos r = 1 - w, but for terms of order s: []."""
    _, first, second, _ = _angle(w)
    return first / s - k * second / first


def _angle(w: Array) -> list[Array]:
    """r^2 / 2 at cos r = 1 - w and its three derivatives in w, the first r / sin r.

    r^2 / 2 = sum_n (2 w)^n / (n^2 binom(2 n, n)), which knows no singularity at w = 0.
    """
    n = np.arange(1, 40)
    series = np.exp(n * np.log(2) - 2 * np.log(n) - gammaln(2 * n + 1) + 2 * gammaln(n + 1))
    powers = np.zeros((40, 4))
    for j in range(4):
        powers[: 40 - j, j] = np.polynomial.polynomial.polyder([0, *series], j)
    return list(jnp.polyval(jnp.asarray(powers[::-1], w.dtype), w, unroll=1))


def _bessels(alpha: np.ndarray, x: Array) -> tuple[Array, Array, Array]:
    """f = log(F(x^2 / 4) e^-x), -x f' and x^2 f'': [D] each, all of order one but f."""
    near = x < SERIES
    parts = zip(
        _series(alpha, jnp.where(near, x, 1)),
        _hankel(alpha, jnp.where(near, SERIES, x)),
        strict=True,
    )
    f, shift, spread = (jnp.where(near, a, b) for a, b in parts)
    return f, shift, spread


def _series(alpha, x):
    k = np.arange(SERIES)
    terms = _terms(alpha[:, None], k, x[:, None])
    share = jax.nn.softmax(terms, -1)
    mean = share @ jnp.asarray(k, x.dtype)
    variance = jnp.sum(share * (k.astype(x.dtype) - mean[:, None]) ** 2, -1)
    return jax.nn.logsumexp(terms, -1), x - 2 * mean, 4 * variance - 2 * mean


def _hankel(alpha, x):
    nu, j = alpha - 1, np.arange(1, HANKEL + 1)
    steps = ((2 * j - 1) ** 2 - 4 * nu[:, None] ** 2) / (8 * j)
    series = np.concatenate([np.ones((alpha.size, 1)), np.cumprod(steps, 1)], 1)
    e = 1 / x
    p, p1, p2 = (
        jax.vmap(jnp.polyval)(jnp.asarray(c[:, ::-1], x.dtype), e)
        for c in (np.polynomial.polynomial.polyder(series, j, axis=1) for j in range(3))
    )
    q, nu = p1 / p, jnp.asarray(nu, x.dtype)
    f = jnp.log(p) - nu * jnp.log(x / 2) - jnp.log(2 * jnp.pi * x) / 2
    shift = nu + 0.5 + e * q
    return f, shift, shift + e * (q + e * (p2 / p - q**2))
