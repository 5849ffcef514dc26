"""Noising diffusions of R^d whose kernels are Gaussian.

For dX = -a(t) X dt + g(t) dB from x0, d E X / dt = -a E X and d Var X / dt = -2 a Var X + g^2.
With the clock B = int beta,

                  a            g^2                   mean            variance
    VP            beta / 2     beta                  e^{-B/2} x0     1 - e^{-B}
    VE            0            beta                  x0              B
    sub-VP        beta / 2     beta (1 - e^{-2 B})   e^{-B/2} x0     (1 - e^{-B})^2
    multi-speed   beta M / 2   beta M                e^{-B M/2} x0   1 - e^{-B M}

where M is symmetric and positive definite: in its eigenvectors, VP at the speeds of its
eigenvalues. All but VE keep N(0, I). The kernel's score is (mean - x) / variance.
Source: Song et al. (2021), section 3.4 and appendix B.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.processes.diffusions import diffusion_process
from gmjax.processes.schedules import Schedule
from gmjax.spaces.euclidean import euclidean
from gmjax.types import Array, Distribution, Process, UserError

# Variances are kept above this: at t = 0 the score of x = x0 is zero, and never 0 / 0.
TINY = 1e-20

_EXACT = jax.lax.Precision.HIGHEST


def vp(schedule: Schedule, shape: tuple[int, ...]) -> Process:
    """The variance-preserving (Ornstein-Uhlenbeck) process, dX = -beta/2 X dt + sqrt(beta) dB.

    Args:
        schedule: beta and its clock.
        shape: [*S], one state.
    """
    return linear(
        shape,
        drift=lambda x, t: -0.5 * schedule.rate(t) * x,
        noise=lambda x, t: jnp.sqrt(schedule.rate(t)),
        mean=lambda t: jnp.exp(-0.5 * schedule.clock(t)),
        std=lambda t: jnp.sqrt(positive(-jnp.expm1(-schedule.clock(t)))),
    )


def ve(schedule: Schedule, shape: tuple[int, ...], data_variance: float = 1.0) -> Process:
    """The variance-exploding process (Brownian motion), dX = sqrt(beta) dB.

    Args:
        schedule: beta and its clock.
        shape: [*S], one state.
        data_variance: of a coordinate of the data, which the reference law
            N(0, B(1) + data_variance) adds to the noise.

    Raises:
        UserError: `data_variance` is negative.
    """
    if not data_variance >= 0:
        raise UserError(f"config.process.data_variance={data_variance} must not be negative")
    total = float(schedule.clock(jnp.ones(()))) + data_variance
    return linear(
        shape,
        drift=None,
        noise=lambda x, t: jnp.sqrt(schedule.rate(t)),
        mean=jnp.ones_like,
        std=lambda t: jnp.sqrt(positive(schedule.clock(t))),
        base_std=total**0.5,
    )


def sub_vp(schedule: Schedule, shape: tuple[int, ...]) -> Process:
    """The sub-VP process, dX = -beta/2 X dt + sqrt(beta (1 - e^{-2 B})) dB.

    Args:
        schedule: beta and its clock.
        shape: [*S], one state.
    """
    return linear(
        shape,
        drift=lambda x, t: -0.5 * schedule.rate(t) * x,
        noise=lambda x, t: jnp.sqrt(
            positive(-schedule.rate(t) * jnp.expm1(-2 * schedule.clock(t)))
        ),
        mean=lambda t: jnp.exp(-0.5 * schedule.clock(t)),
        std=lambda t: jnp.maximum(-jnp.expm1(-schedule.clock(t)), TINY**0.5),
    )


def multi_speed(schedule: Schedule, shape: tuple[int, ...], speeds: Any = 1.0) -> Process:
    """VP at many speeds, dX = -beta/2 M X dt + sqrt(beta) M^{1/2} dB.

    Args:
        schedule: beta and its clock.
        shape: [*S], one state of d numbers.
        speeds: M, broadcastable to [*S] (its diagonal), or [d, d] symmetric.

    Raises:
        UserError: `speeds` has another shape, or is not positive definite.
    """
    values, vectors = _eigen(np.asarray(speeds, np.float64), shape)

    def through(f, x):
        """f(M) x, for a function f of a speed."""
        weights = f(jnp.asarray(values, x.dtype))
        if vectors is None:
            return weights * x
        u = jnp.asarray(vectors, x.dtype)
        parts = jnp.dot(u.T, x.reshape(-1), precision=_EXACT)
        return jnp.dot(u, weights.reshape(-1) * parts, precision=_EXACT).reshape(shape)

    def width(t):
        return lambda w: jnp.sqrt(positive(-jnp.expm1(-w * schedule.clock(t))))

    def mean(x0, t):
        return through(lambda w: jnp.exp(-0.5 * w * schedule.clock(t)), x0)

    def whiten(x, t):
        return through(lambda w: 1 / width(t)(w), x)

    def log_prob(x, x0, t):
        logs = jnp.sum(jnp.log(width(t)(jnp.asarray(values, x.dtype))))
        return standard.log_prob(whiten(x - mean(x0, t), t)) - logs

    def sample(key, x0, t):
        return mean(x0, t) + through(width(t), jax.random.normal(key, shape, x0.dtype))

    def simple(x, t, target, score):
        return jnp.mean(through(width(t), target - score) ** 2)

    standard = normal(shape)
    root = lambda t, v: jnp.sqrt(schedule.rate(t)) * through(jnp.sqrt, v)
    process = rooted(
        shape,
        drift=lambda x, t: -0.5 * schedule.rate(t) * through(lambda w: w, x),
        root=root,
        sample=sample,
        target=lambda x0, x, t: -whiten(whiten(x - mean(x0, t), t), t),
        base=standard,
        log_prob=log_prob,
    )
    return process._replace(simple=simple, read=lambda out, x, t: whiten(out, t))


def rooted(
    shape: tuple[int, ...],
    drift: Callable[[Array, Array], Array],
    root: Callable[[Array, Array], Array],
    sample: Callable[..., Array],
    target: Callable[[Array, Array, Array], Array],
    base: Distribution,
    log_prob: Callable[[Array, Array, Array], Array],
) -> Process:
    """dX = b dt + sigma(t) dB in R^S for a symmetric sigma, applied as a linear map.

    The columns of sigma define the generator; steps, losses and velocities never build them.

    Args:
        shape: [*S], one state.
        drift: (x, t) -> b [*S].
        root: (t, v [*S]) -> sigma v.
        sample, target, base, log_prob: as for `diffusion_process`, whose `read` and `simple`
            are here for a kernel of width one; replace them.
    """
    space = euclidean(shape)

    def noise(x, t):
        return jax.vmap(lambda e: root(t, e))(space.frame(x))

    def spread(x, t, score):
        return root(t, root(t, score(x, t)))

    def stepping(generator, b):
        def step(key, x, t, dt):
            return x + dt * b(x, t) + jnp.sqrt(dt) * root(t, space.noise(key, x))

        return generator._replace(step=step)

    def reverse(score):
        back = lambda x, t: spread(x, t, score) - drift(x, t)
        return stepping(process.reverse(score), back)

    process = diffusion_process(space, drift, noise, jnp.ones_like, sample, target, base, log_prob)
    return process._replace(
        generator=stepping(process.generator, drift),
        reverse=reverse,
        phi=lambda x, t, target, score: 0.5 * jnp.sum(root(t, target - score) ** 2),
        velocity=lambda score: lambda x, t: drift(x, t) - 0.5 * spread(x, t, score),
    )


def normal(shape: tuple[int, ...], std: float | np.ndarray = 1.0) -> Distribution:
    """N(0, std^2) on [*S], std broadcastable to it."""
    logs = float(np.sum(np.log(np.broadcast_to(std, shape)))) + _constant(shape)
    return Distribution(
        lambda key: jnp.asarray(std, float) * jax.random.normal(key, shape),
        lambda x: -0.5 * jnp.sum((x / jnp.asarray(std, x.dtype)) ** 2) - logs,
    )


def positive(variance: Array) -> Array:
    """A variance kept off zero, so that its root and its inverse have finite derivatives."""
    return jnp.maximum(variance, TINY)


def linear(shape, drift, noise, mean, std, base_std=1.0) -> Process:
    """dX = b dt + g(t) dB with the kernel N(mean(t) x0, std(t)^2 I).

    Args:
        shape: [*S], one state.
        drift, noise: b (x, t) -> [*S], None for zero, and g (x, t) -> [].
        mean, std: t -> [].
        base_std: of the reference law.
    """
    space = euclidean(shape)

    def log_prob(x, x0, t):
        z = (x - mean(t) * x0) / std(t)
        return -0.5 * jnp.sum(z**2) - space.dim * jnp.log(std(t)) - _constant(shape)

    return diffusion_process(
        space,
        drift,
        noise,
        std,
        sample=lambda key, x0, t: mean(t) * x0 + std(t) * space.noise(key, x0),
        target=lambda x0, x, t: (mean(t) * x0 - x) / std(t) ** 2,
        base=normal(shape, base_std),
        log_prob=log_prob,
    )


def _constant(shape: tuple[int, ...]) -> float:
    """The logarithm of the standard normal's normalisation."""
    return 0.5 * math.prod(shape) * math.log(2 * math.pi)


def _eigen(m: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """Speeds [*S] and the eigenvectors [d, d] they belong to, None for the coordinates."""
    d = math.prod(shape)
    try:
        values, vectors = np.broadcast_to(m, shape), None
    except ValueError:
        if m.shape != (d, d) or not np.allclose(m, m.T):
            raise UserError(
                f"config.process.speeds has shape {m.shape}; valid: one that broadcasts to"
                f" {tuple(shape)}, or a symmetric matrix {(d, d)}"
            ) from None
        values, vectors = np.linalg.eigh(m)
    if not values.min() > 0:
        raise UserError(f"config.process.speeds={m.tolist()} must be positive (definite)")
    return values.reshape(shape), vectors
