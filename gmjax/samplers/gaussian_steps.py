"""What the solvers of a Gaussian path share: the numbers of a step, and the reader of a network.

A step goes from t to t' < t, from x = alpha x0 + sigma eps to alpha', sigma'. With lambda =
log(alpha / sigma), half the log-SNR, all that a solver needs are the coefficients at both ends and

    h = lambda' - lambda > 0,      e^{-h} = alpha sigma' / (alpha' sigma).

h is infinite where the path starts in pure noise (alpha = 0) or ends in data (sigma' = 0); e^{-h}
is then zero, and a solver that expands in h takes its first-order step, which is exact in that
limit for a constant x0.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmjax.paths.gaussian import GaussianPath
from gmjax.paths.heads import HEADS, coefficients, spread
from gmjax.types import Array, Cond, Key, Predict, UserError, lookup

# (predict, x [B, *S], t [B], cond) -> E[x0 | x] [B, *S], or a pair of it and the fraction [B, *S]
# of the log-variance of a learned ancestral step
Read = Callable[[Predict, Array, Array, Cond], Array | tuple[Array, Array]]

# Below these a coefficient is zero: rounding in one, the floor under a variance in the other.
_NO_DATA, _NO_NOISE = 1e-7, 1e-9


class Step(NamedTuple):
    """The numbers of one step, [] each."""

    alpha: Array
    sigma: Array
    alpha_next: Array
    sigma_next: Array
    decay: Array  # e^{-h}
    h: Array  # half the rise of the log-SNR, inf at an end of the path

    @property
    def finite(self) -> Array:
        """Neither pure noise nor data, nor no step at all."""
        return jnp.isfinite(self.h) & (self.h > 0)


def ends(path: GaussianPath, t: Array) -> tuple[Array, Array]:
    """(alpha, sigma) at t, exactly zero where the path means zero."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    return (
        jnp.where(alpha > _NO_DATA, alpha, jnp.zeros_like(alpha)),
        jnp.where(sigma > _NO_NOISE, sigma, jnp.zeros_like(sigma)),
    )


def half_log_snr(path: GaussianPath, t: Array) -> Array:
    """lambda = log(alpha / sigma) at t: [...], infinite at the ends."""
    alpha, sigma = ends(path, t)
    return jnp.log(alpha) - jnp.log(sigma)


def between(path: GaussianPath, t: Array, t_next: Array, dtype=None) -> Step:
    """The numbers of the step from t to t_next, [] or [B] of equal entries."""
    t, t_next = (jnp.ravel(time)[0] for time in (t, t_next))
    if dtype is not None:
        t, t_next = t.astype(dtype), t_next.astype(dtype)
    (a, s), (a_next, s_next) = ends(path, t), ends(path, t_next)
    decay = a * s_next / (a_next * s)
    # The logarithm of each ratio is exact to rounding where alpha or sigma hardly moves.
    h = jnp.log(a_next) - jnp.log(a) + jnp.log(s) - jnp.log(s_next)
    return Step(a, s, a_next, s_next, decay, h)


def at(path: GaussianPath, half: Array, like: Array) -> Array:
    """The time [B] at which lambda is `half` []."""
    return jnp.full(like.shape, path.inverse(2 * half), like.dtype)


def transfer(c: Step, x: Array, data: Array) -> Array:
    """alpha' x0 + sigma' eps for the eps that x and x0 imply: the flow of a constant x0."""
    ratio = c.sigma_next / c.sigma
    return ratio * x + (c.alpha_next - c.alpha * ratio) * data


def noise_of(alpha: Array, sigma: Array, x: Array, data: Array) -> Array:
    """E[eps | x] = (x - alpha E[x0 | x]) / sigma; zero where there is no noise."""
    safe = jnp.where(sigma > 0, sigma, 1.0)
    return jnp.where(sigma > 0, (x - alpha * data) / safe, 0.0)


def normal(key: Key, x: Array) -> Array:
    """Standard normal noise like x."""
    return jax.random.normal(key, x.shape, x.dtype)


def reader(path: GaussianPath, head: str, data_std: float = 1.0, clip: float | None = None) -> Read:
    """How a network's output is read as E[x0 | x].

    Where a head says nothing of x0 (eps at alpha = 0) it is taken as zero, and as x / alpha at
    sigma = 0.

    Args:
        path: the path.
        head: in `paths.heads.HEADS`.
        data_std: of the head "edm".
        clip: x0 is clipped to [-clip, clip]; None: not.

    Raises:
        UserError: an unknown head, or `clip` is not positive.
    """
    if clip is not None and not clip > 0:
        raise UserError(f"config.sample.clip={clip} must be positive")
    lookup(HEADS, head, "config.loss.head")

    def clean(out, x, t):
        inside = jnp.where(ends(path, t)[1] > 0, t, 0.5)  # heads have no values at sigma = 0
        p, q = coefficients(head, path, inside, data_std)
        (a, s), (_, noise) = ends(path, inside), ends(path, t)
        c = s * p - a * q
        known = (noise > 0) & (jnp.abs(c) > _NO_DATA)
        c = jnp.where(known, c, 1.0)
        x0 = spread(s / c, x) * out - spread(q / c, x) * x
        a = ends(path, t)[0]
        edge = spread(jnp.where(a > 0, 1 / jnp.where(a > 0, a, 1.0), 0.0), x) * x
        x0 = jnp.where(spread(known, x), x0, edge)
        return x0 if clip is None else jnp.clip(x0, -clip, clip)

    def read(predict, x, t, cond):
        return clean(predict(x, t, cond), x, t)

    return read


def data(read: Read) -> Callable[[Predict, Array, Array, Cond], Array]:
    """The first of what `read` returns."""

    def first(predict, x, t, cond):
        out = read(predict, x, t, cond)
        return out[0] if isinstance(out, tuple) else out

    return first


def denoise(read: Read) -> Callable[..., Array]:
    """The driver's `finish`: E[x0 | x] at the last time; one evaluation."""
    first = data(read)
    return lambda predict, key, x, t, cond: first(predict, x, t, cond)


def require(condition: bool, key: str, value: object, valid: str) -> None:
    """A `UserError` about config.sample.KEY unless the condition holds."""
    if not condition:
        raise UserError(f"config.sample.{key}={value!r} must {valid}")
