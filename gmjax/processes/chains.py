"""Homogeneous Markov chains on a finite set, one site, in their own clock.

A chain with rate matrix R (R[x, y] is the rate from x to y) has the kernel
q_b = exp(b R) after clock time b. Everything a diffusion model asks of it is one of

    push(p, b)   = p q_b            the law at b of a chain started from the law p
    column(x, b) = q_b(x | .)       the likelihood of x, as a function of the start
    rates_in(x)  = R[., x]          the rates into x, which time reversal turns around

With alpha = exp(-b), the two chains that large vocabularies need are closed-form:

    uniform,   R = 1 1^T / S - I:    q_b(y | x) = alpha [x = y] + (1 - alpha) / S
    absorbing, R = 1 e_m^T - I:      q_b(y | x) = alpha [x = y] + (1 - alpha) [y = m]

and no S x S matrix is ever built. Any other reversible chain is diagonalised once, in
float64: with D = diag(stationary), D^1/2 R D^-1/2 is symmetric, so q_b = U exp(b Lambda) W
with U W = I. A chain that is not reversible gets the exponentials exp(2^j h R), taken once in
float64; those of the binary digits of b / h multiply up to q_b, and a short series covers what
is left below h. Both act on laws by products with constant S x S matrices, so a batch with a
time an example needs no matrix an example.

All functions act on arrays of sites x: [...] with one clock time b: []; vmap for batches.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from gmjax import draws
from gmjax.types import Array, UserError

_EXACT = jax.lax.Precision.HIGHEST  # kernels must not drop to TF32 on a GPU
_TINY = 1e-30
_DIGITS = 24  # of b / h: as many as float32 holds


class Chain(NamedTuple):
    """A homogeneous chain on K states, V of which (the first) are values of the data."""

    num_states: int  # K
    num_values: int  # V <= K
    rates_out: Callable[[Array], Array]  # x [...] -> R[x, .] [..., K], zero at x
    rates_in: Callable[[Array], Array]  # x [...] -> R[., x] [..., K], zero at x
    exit_rate: Callable[[Array], Array]  # x [...] -> sum of rates_out [...]
    push: Callable[[Array, Array], Array]  # p [..., V or K], b [] -> p q_b [..., K]
    log_push: Callable[[Array, Array], Array]  # the same for log p -> log law
    pull: Callable[[Array, Array], Array]  # law [..., K], b [] -> p [..., K] with push(p) = law
    row: Callable[[Array, Array], Array]  # x [...], b [] -> q_b(. | x) [..., K]
    column: Callable[[Array, Array], Array]  # x [...], b [] -> q_b(x | .) [..., K]
    sample: Callable[..., Array]  # key, x [...], b [] -> X_b given X_0 = x
    stationary: np.ndarray  # [K], the limit law
    flat: bool = False  # are all pairs y != x alike, in rates and in kernel?


def uniform(num_values: int) -> Chain:
    """R = 1 1^T / S - I: with rate one a site is redrawn from all S values.

    Args:
        num_values: S, the number of values. The matrix 1 1^T - S I of Campbell et al.
            (2022) is this one run S times faster.
    """
    _at_least("num_values", num_values, 2)
    s = num_values

    def sample(key, x, b):
        stay, value = jax.random.split(key)
        redrawn = jax.random.uniform(stay, x.shape) < -jnp.expm1(-b)
        return jnp.where(redrawn, jax.random.randint(value, x.shape, 0, s, x.dtype), x)

    def push(p, b):
        return jnp.exp(-b) * p - jnp.expm1(-b) / s * jnp.sum(p, -1, keepdims=True)

    def row(x, b):
        return jnp.exp(-b) * jax.nn.one_hot(x, s) - jnp.expm1(-b) / s

    def rates(x):
        return (1 - jax.nn.one_hot(x, s)) / s

    return Chain(
        num_states=s,
        num_values=s,
        rates_out=rates,
        rates_in=rates,
        exit_rate=lambda x: jnp.full(x.shape, 1 - 1 / s),
        push=push,
        # log p is a normalised law here, so its sum is one.
        log_push=lambda log_p, b: jnp.log(
            jnp.exp(log_p - b) + jnp.maximum(-jnp.expm1(-b) / s, _TINY)
        ),
        pull=lambda law, b: push(law, -b),
        row=row,
        column=row,  # the chain is symmetric
        sample=sample,
        stationary=np.full(s, 1 / s),
        flat=True,
    )


def absorbing(num_values: int) -> Chain:
    """R = 1 e_m^T - I: with rate one a site falls into the mask state m = V.

    Args:
        num_values: V, the values of the data; the chain has K = V + 1 states.
    """
    _at_least("num_values", num_values, 1)
    mask, k = num_values, num_values + 1

    def sample(key, x, b):
        masked = jax.random.uniform(key, x.shape) < -jnp.expm1(-b)
        return jnp.where(masked, jnp.asarray(mask, x.dtype), x)

    def push(p, b):
        values = p[..., :mask]
        total = jnp.sum(p, -1, keepdims=True)
        stays = jnp.exp(-b) * values
        return jnp.concatenate([stays, total - jnp.sum(stays, -1, keepdims=True)], -1)

    def log_push(log_p, b):
        masked = jnp.log(jnp.maximum(-jnp.expm1(-b), _TINY))
        return jnp.concatenate(
            [log_p[..., :mask] - b, jnp.broadcast_to(masked, (*log_p.shape[:-1], 1))], -1
        )

    def column(x, b):
        at_mask = jnp.where(jnp.arange(k) == mask, 1.0, -jnp.expm1(-b))
        elsewhere = jnp.exp(-b) * jax.nn.one_hot(x, k)
        return jnp.where((x == mask)[..., None], at_mask, elsewhere)

    def rates_in(x):
        into = (x == mask)[..., None] & (jnp.arange(k) != mask)
        return into.astype(jnp.float32)

    return Chain(
        num_states=k,
        num_values=num_values,
        rates_out=lambda x: (x != mask)[..., None] * (jnp.arange(k) == mask).astype(jnp.float32),
        rates_in=rates_in,
        exit_rate=lambda x: (x != mask).astype(jnp.float32),
        push=push,
        log_push=log_push,
        pull=lambda law, b: push(law, -b),
        row=lambda x, b: push(jax.nn.one_hot(x, k), b),
        column=column,
        sample=sample,
        stationary=np.eye(k)[mask],
    )


def birth_death(num_values: int) -> Chain:
    """R[x, x +- 1] = 1: a reflected walk on 0 .. S-1 (Campbell et al. 2022, appendix)."""
    _at_least("num_values", num_values, 2)
    off = np.eye(num_values, k=1) + np.eye(num_values, k=-1)
    return rates(off - np.diag(off.sum(1)))


def gaussian(num_values: int, sigma0: float, sigma_rate: float) -> Chain:
    """A reversible chain on ordered values whose limit is a discretised Gaussian.

    The limit is p(x) ~ exp(-(x - mu)^2 / (2 sigma0^2)) with mu central. A value moves
    towards the centre with rate 1 to its nearest neighbour and exp(-i^2 / sigma_rate^2) to
    the value i further on, and outwards with the rates of detailed balance.

    Args:
        num_values: S.
        sigma0: width of the limit law, in levels.
        sigma_rate: reach of the jumps, in levels.

    Source: Campbell et al. (2022), appendix on the discretised Gaussian rate.
    """
    _at_least("num_values", num_values, 2)
    for name, value in (("sigma0", sigma0), ("sigma_rate", sigma_rate)):
        if not value > 0:
            raise UserError(f"config.process.{name}={value} must be positive")
    x = np.arange(num_values)
    log_p = -((x - (num_values - 1) / 2) ** 2) / (2 * sigma0**2)
    uphill = np.exp(-((np.abs(x[:, None] - x) - 1) ** 2) / sigma_rate**2)
    gain = log_p[None, :] - log_p[:, None]
    off = uphill * np.exp(np.minimum(gain, 0))
    np.fill_diagonal(off, 0)
    return rates(off - np.diag(off.sum(1)))


def rates(matrix: np.ndarray) -> Chain:
    """The chain of any rate matrix, reversible or not.

    Args:
        matrix: [S, S], non-negative off the diagonal, rows summing to zero.

    Raises:
        UserError: `matrix` is not a rate matrix, or has no unique stationary law.
    """
    r = check_rates(matrix)
    s = len(r)
    pi = stationary_law(r)
    flow = pi[:, None] * r
    reversible = bool(np.all(pi > 1e-12)) and np.allclose(flow, flow.T, rtol=1e-8, atol=1e-12)
    make = _spectral if reversible else _binary
    forward, backward = make(r, pi), make(r, pi, transpose=True)
    off = r - np.diag(np.diag(r))
    out, into, leave = (jnp.asarray(m, jnp.float32) for m in (off, off.T, off.sum(1)))

    def push(p, b):
        small = p[..., 0].size < s  # else one S x S kernel costs less than two products
        law = forward(p, b) if small else _times(p, forward(jnp.eye(s), b))
        return jnp.maximum(law, 0)

    def rows(apply, x, b):
        small = x.size < s
        law = apply(jax.nn.one_hot(x, s), b) if small else apply(jnp.eye(s), b)[x]
        # Below this an entry is rounding, of either sign, and counts as impossible.
        return jnp.where(law < 1e-8, 0, law)

    def sample(key, x, b):
        u = jax.random.uniform(key, x.shape)
        return draws.categorical(u, rows(forward, x, b)).astype(x.dtype)

    # Beyond this clock the kernel cannot be inverted in float32, and the inverse stops there.
    farthest = float(np.log(1e5) / np.abs(np.linalg.eigvals(r)).max())

    def pull(law, b):
        kernel = forward(jnp.eye(s), jnp.minimum(b, farthest))
        return jnp.linalg.solve(kernel.T, law[..., None])[..., 0]

    return Chain(
        num_states=s,
        num_values=s,
        rates_out=lambda x: out[x],
        rates_in=lambda x: into[x],
        exit_rate=lambda x: leave[x],
        push=push,
        log_push=lambda log_p, b: jnp.log(jnp.maximum(push(jnp.exp(log_p), b), _TINY)),
        pull=pull,
        row=lambda x, b: rows(forward, x, b),
        column=lambda x, b: rows(backward, x, b),
        sample=sample,
        stationary=pi,
    )


def check_rates(matrix: np.ndarray) -> np.ndarray:
    """`matrix` as float64, after checking that it is a rate matrix."""
    r = np.asarray(matrix, np.float64)
    key = "config.process.matrix"
    if r.ndim != 2 or r.shape[0] != r.shape[1] or len(r) < 2:
        raise UserError(f"{key} has shape {r.shape}; it must be square, [S, S] with S >= 2")
    if not np.all(np.isfinite(r)):
        raise UserError(f"{key} has entries that are not finite")
    off = r - np.diag(np.diag(r))
    if off.min() < 0:
        x, y = np.unravel_index(off.argmin(), r.shape)
        raise UserError(f"{key}[{x}][{y}]={r[x, y]:g}: rates off the diagonal must be >= 0")
    sums = r.sum(1)
    if np.any(np.abs(sums) > 1e-5 * max(1.0, np.abs(r).max())):
        x = np.abs(sums).argmax()
        raise UserError(f"{key} row {x} sums to {sums[x]:g}; every row must sum to 0")
    return r


def stationary_law(r: np.ndarray) -> np.ndarray:
    """The law pi with pi R = 0, float64 [S]."""
    null = scipy.linalg.null_space(r.T, rcond=1e-12 * len(r))
    if null.shape[1] != 1:
        raise UserError(
            f"config.process.matrix has {null.shape[1]} stationary laws; it must have one"
        )
    pi = null[:, 0] / null[:, 0].sum()
    return np.maximum(pi, 0) / np.maximum(pi, 0).sum()


def _spectral(r: np.ndarray, pi: np.ndarray, transpose: bool = False) -> Callable:
    """(p, b) -> p exp(b R) of a reversible chain, from one symmetric eigendecomposition."""
    root = np.sqrt(pi)
    values, vectors = np.linalg.eigh(root[:, None] * r / root)
    left, right = vectors / root[:, None], vectors.T * root
    u, w = (right.T, left.T) if transpose else (left, right)
    u, w = jnp.asarray(u, jnp.float32), jnp.asarray(w, jnp.float32)
    decay = jnp.asarray(np.minimum(values, 0), jnp.float32)
    return lambda p, b: _times(_times(p, u) * jnp.exp(b * decay), w)


def _binary(r: np.ndarray, pi: np.ndarray, transpose: bool = False) -> Callable:
    """(p, b) -> p exp(b R) of any chain, from the binary digits of b."""
    del pi
    # |h R| <= 1/8 in the maximum norm: five terms of the series leave 4e-8.
    h = 1 / (16 * np.abs(np.diag(r)).max())
    matrix = r.T if transpose else r
    exponentials = [scipy.linalg.expm(h * matrix)]
    for _ in range(_DIGITS - 1):
        exponentials.append(exponentials[-1] @ exponentials[-1])
    powers = jnp.asarray(np.stack(exponentials), jnp.float32)
    step = jnp.asarray(h * matrix, jnp.float32)

    def apply(p, b):
        n = jnp.minimum(jnp.floor(b / h), 2**_DIGITS - 1)
        left = jnp.minimum(b / h - n, 1)
        term = p
        for order in range(1, 6):
            term = _times(term, step) * (left / order)
            p = p + term
        digits = (n.astype(jnp.int32) >> jnp.arange(_DIGITS)) & 1

        def multiply(p, digit_power):
            digit, power = digit_power
            return jnp.where(digit == 1, _times(p, power), p), None

        return jax.lax.scan(multiply, p, (digits, powers))[0]

    return apply


def _times(p: Array, kernel: Array) -> Array:
    return jnp.matmul(p, kernel, precision=_EXACT)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"config.process.{name}={value} must be at least {least}")


CHAINS: dict[str, Callable[..., Chain]] = {
    "uniform": uniform,
    "absorbing": absorbing,
    "birth_death": birth_death,
    "gaussian": gaussian,
    "rates": rates,
}
