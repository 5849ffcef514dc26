"""Homogeneous Markov chains on a finite set, one site, in their own clock.

A chain with rate matrix R (R[x, y] is the rate from x to y) has the kernel
q_b = exp(b R) after clock time b. Everything a diffusion model asks of it is one of

    push(p, b)   = p q_b            the law at b of a chain started from the law p
    column(x, b) = q_b(x | .)       the likelihood of x, as a function of the start
    rates_in(x)  = R[., x]          the rates into x, which time reversal turns around

With alpha = exp(-b), the two chains that large vocabularies need are closed-form:

    uniform,   R = 1 1^T / S - I:    q_b(y | x) = alpha [x = y] + (1 - alpha) / S
    absorbing, R = 1 e_m^T - I:      q_b(y | x) = alpha [x = y] + (1 - alpha) [y = m]

and no S x S matrix is ever built. Any other chain is uniformised: with c the largest rate out of
a state, P = I + R / c is a stochastic matrix, and for the time b = n h + r, 0 <= r < h = 16 / c,

    q_b = (sum_j e^(-c r) (c r)^j / j! P^j) prod_l exp(d_l B^l h R),    n = sum_l d_l B^l,

with the powers of P and the exponentials of every digit d_l tabulated once in float64. All entries
are sums of products of numbers that are not negative, so that small ones are as accurate, relative
to themselves, as large ones. Ratios and posteriors need that, and eigenvectors do not give it: they
leave an error of 4e-8 whatever the entry. A time costs one sum of 64 matrices and a product or two
of S x S matrices.

All functions act on arrays of sites x: [...] with one clock time b: []; vmap for batches.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from gmjax import draws
from gmjax.types import Array, UserError

_EXACT = jax.lax.Precision.HIGHEST  # kernels must not drop to TF32 on a GPU
_SPAN = 16.0  # c h, jumps of P in the time that the sum covers
_TABLE = 2**22  # numbers in a table of digits, 64 matrices at least
_MIXED = 60.0  # beyond this clock nothing is left of the start
RARE = 1e-10  # what is less likely is not drawn: uniform numbers are 2^-23 apart


class Chain(NamedTuple):
    """A homogeneous chain on K states, V of which (the first) are values of the data."""

    num_states: int  # K
    num_values: int  # V <= K
    rates_out: Callable[[Array], Array]  # x [...] -> R[x, .] [..., K], zero at x
    rates_in: Callable[[Array], Array]  # x [...] -> R[., x] [..., K], zero at x
    exit_rate: Callable[[Array], Array]  # x [...] -> sum of rates_out [...]
    push: Callable[[Array, Array], Array]  # p [..., V or K], b [] -> p q_b [..., K]
    log_push: Callable[[Array, Array], Array]  # the same for log p -> log law
    # law [..., K], b [] -> p [..., K] with push(p) = law, as far as b can be undone
    pull: Callable[[Array, Array], Array]
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
            jnp.exp(log_p - b) + jnp.maximum(-jnp.expm1(-b) / s, tiny(log_p))
        ),
        pull=lambda law, b: push(law, -jnp.minimum(b, _MIXED)),
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
        masked = jnp.log(jnp.maximum(-jnp.expm1(-b), tiny(log_p)))
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
        pull=lambda law, b: push(law, -jnp.minimum(b, _MIXED)),
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
    factors = _factors(r)
    off = r - np.diag(np.diag(r))

    def kernel(b):
        return functools.reduce(_times, factors(b))

    # One S x S kernel costs less than several products where the sites are many.
    def push(p, b):
        few = p[..., 0].size < s
        return functools.reduce(_times, factors(b), p) if few else _times(p, kernel(b))

    def row(x, b, transpose=False):
        turned = lambda matrix: matrix.T if transpose else matrix
        if x.size >= s:
            return turned(kernel(b))[x]
        first, *rest = map(turned, factors(b))  # they commute
        return functools.reduce(_times, rest, first[x])

    def sample(key, x, b):
        law = row(x, b)
        u = jax.random.uniform(key, x.shape)
        return draws.categorical(u, jnp.where(law < RARE, 0, law)).astype(x.dtype)

    # Beyond this clock the kernel cannot be inverted in float32, and the inverse stops there.
    farthest = float(np.log(1e5) / np.abs(np.linalg.eigvals(r)).max())

    def pull(law, b):
        return jnp.linalg.solve(kernel(jnp.minimum(b, farthest)).T, law[..., None])[..., 0]

    return Chain(
        num_states=s,
        num_values=s,
        rates_out=lambda x: jnp.asarray(off, float)[x],
        rates_in=lambda x: jnp.asarray(off.T, float)[x],
        exit_rate=lambda x: jnp.asarray(off.sum(1), float)[x],
        push=push,
        log_push=lambda log_p, b: jnp.log(jnp.maximum(push(jnp.exp(log_p), b), tiny(log_p))),
        pull=pull,
        row=row,
        column=lambda x, b: row(x, b, transpose=True),
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


def _factors(r: np.ndarray) -> Callable[[Array], list[Array]]:
    """b [] -> matrices [S, S] whose product is exp(b R), in the type of b; see the module."""
    s, c = len(r), float(-np.diag(r).min())
    stochastic = np.maximum(r / c + np.eye(s), 0)
    powers = [np.eye(s)]
    while len(powers) < 4 * _SPAN:  # a Poisson number of mean 16 is larger with chance 1e-19
        powers.append(_normal(powers[-1] @ stochastic))
    # Past 40 relaxation times the law has its limit; never more than float32 tells apart.
    slowest = np.sort(np.abs(np.linalg.eigvals(r).real))[1]
    number = int(min(np.ceil(40 * c / (slowest * _SPAN)), 2**20))
    place, base = next(
        (place, base)
        for place in range(1, 21)
        if place * (base := math.ceil((number + 1) ** (1 / place))) <= max(64, _TABLE // s**2)
    )
    weights = np.cumprod(np.concatenate([[math.exp(-_SPAN)], _SPAN / np.arange(1, len(powers))]))
    step = _normal(np.tensordot(weights, powers, 1))
    digits = []
    for _ in range(place):
        row = [np.eye(s)]
        for _ in range(base):
            row.append(_normal(row[-1] @ step))
        digits.append(np.stack(row[:base]))
        step = row[base]

    def factors(b: Array) -> list[Array]:
        tau = jnp.minimum(c * jnp.asarray(b, jnp.result_type(b, jnp.float32)), number * _SPAN)
        n = jnp.floor(tau / _SPAN)
        left = tau - _SPAN * n
        # Poisson's law of mean `left` from that of mean 16: the logarithms are small.
        share = jnp.log(jnp.maximum(left / _SPAN, tiny(left)))
        change = jnp.exp(jnp.arange(len(powers)) * share + (_SPAN - left))
        chance = jnp.asarray(weights, tau.dtype) * change
        table = jnp.asarray(np.stack(powers), tau.dtype)
        found = [jnp.tensordot(chance, table, 1, precision=_EXACT)]
        rest = n.astype(jnp.int32)
        for row in digits:
            found.append(jnp.asarray(row, tau.dtype)[rest % base])
            rest = rest // base
        return found

    return factors


def _normal(matrix: np.ndarray) -> np.ndarray:
    """Rows that sum to one, which rounding must not lose over many products."""
    return matrix / matrix.sum(1, keepdims=True)


def tiny(like: Array) -> float:
    """The least number of the type of an array, nearly; less may count as zero."""
    return 8 * float(jnp.finfo(like.dtype).tiny)


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
