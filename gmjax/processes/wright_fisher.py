"""Wright-Fisher noising of the probability simplex, whose law tends to Dirichlet(alpha).

In the time tau = B(t), with A(x) = diag(x) - x x^T and theta = |alpha|,

    L f = 1/2 sum_ij A_ij d_ij f + 1/2 sum_i (alpha_i - theta x_i) d_i f.

Along the simplex div A = 1 - D x, so with the score s = grad log p

    L* f        = div( (1 - D x) f + A grad f - (alpha - theta x) f ) / 2
    reversal    drift 1 - D x + A s - (alpha - theta x) / 2, the same noise
    flow        velocity (alpha - theta x - (1 - D x) - A s) / 2

and the flux of Dirichlet(alpha) vanishes. The noise is the D fields sqrt(x_k) (e_k - x).

The kernel is drawn exactly: M lineages of the coalescent, their ancestors N ~ Multinomial(M, x0)
and Dirichlet(alpha + N); see `coalescent` for the law of M at small times and
`wright_fisher_kernel` for the density and the score.

A step of Euler's is not a normal variable, which would leave the simplex, but the Dirichlet
variable of the same mean m = x + b dt and the covariance (1 - e^-v) A(m), v = beta dt. Its third
moments are O(dt^2), so it is of weak order one, and it cannot leave. Where m itself is
outside, because dt is too long for the drift, it is projected.

Near x_i = 0 the score is (alpha_i - 1) / x_i plus what is finite, and s^T A s is the length that
counts. So a network's output becomes the score

    s = (alpha - 1) / x + out / (std(t) sqrt(x)),      std(t)^2 = 1 - e^-tau,

projected: exact at the boundary, and an error of the output costs |error|^2 / std^2 however
close to the boundary x is, whatever alpha. (Predicting x s costs |error|^2 / x_i, which has no mean
when alpha_i <= 1.) The simple loss is std^2 (s* - s)^T A (s* - s).

Source: Benton et al. (2022), section 5.3; Jenkins and Spano (2017), algorithms 2 and 4.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gmjax import generators
from gmjax.processes import coalescent, wright_fisher_kernel
from gmjax.processes.diffusions import diffusion_process
from gmjax.processes.schedules import Schedule
from gmjax.spaces import calculus
from gmjax.spaces.simplex import dirichlet, draw_dirichlet, project, simplex
from gmjax.types import Array, Distribution, Generator, Key, Process, Space, UserError

Field = Callable[[Array, Array], Array]  # (x [D], t []) -> [D]
LEAST_TIME = 1e-6  # of the kernel, whose counts are then exact in float32


def wright_fisher(
    schedule: Schedule, shape: tuple[int, ...], alpha: float | Sequence[float] = 1.0
) -> Process:
    """The Wright-Fisher diffusion with mutation towards Dirichlet(alpha).

    Args:
        schedule: the clock tau = B(t).
        shape: (D,), D >= 2.
        alpha: of the limit, one number or D of them.

    Raises:
        UserError: another shape, or alpha out of range.
    """
    size, a = _checked(shape, alpha)
    space, limit = simplex(size), dirichlet(a)
    # As the kernel, or their ratio at the boundary would not be one.
    base = Distribution(limit.sample, lambda x: limit.log_prob(positive(x)))
    ancestry = coalescent.lineages(a.sum(), float(schedule.clock(jnp.ones(()))))
    time = lambda t: jnp.maximum(schedule.clock(t), LEAST_TIME)
    std = lambda t: jnp.sqrt(-jnp.expm1(-time(t)))
    pull = lambda x: 0.5 * (jnp.asarray(a, x.dtype) - a.sum() * x)
    drift = lambda x, t: schedule.rate(t) * pull(x)

    def sample(key: Key, x0: Array, t: Array) -> Array:
        key_m, key_n, key_x = jax.random.split(key, 3)
        many = ancestry.sample(key_m, time(t).astype(x0.dtype))
        ancestors = multinomial(key_n, many, x0)
        return draw_dirichlet(key_x, jnp.asarray(a, x0.dtype) + ancestors)

    def log_prob(x: Array, x0: Array, t: Array) -> Array:
        log_psi = wright_fisher_kernel.log_psi(
            a, ancestry, *affinity(x, x0), time(t).astype(x.dtype)
        )
        return jnp.sum((jnp.asarray(a, x.dtype) - 1) * jnp.log(positive(x))) + log_psi

    def target(x0: Array, x: Array, t: Array) -> Array:
        count = wright_fisher_kernel.ancestors(
            a, ancestry, *affinity(x, x0), time(t).astype(x.dtype)
        )
        return space.tangent(x, (jnp.asarray(a, x.dtype) - 1 + count) / positive(x))

    def square(x: Array, gap: Array) -> Array:
        """gap^T A gap."""
        return jnp.sum(x * (gap - jnp.sum(x * gap)) ** 2)

    def read(out: Array, x: Array, t: Array) -> Array:
        y = positive(x)
        score = (jnp.asarray(a, x.dtype) - 1) / y + out / (std(t) * jnp.sqrt(y))
        return space.tangent(x, score)

    def velocity(score: Field) -> Field:
        return lambda x, t: drift(x, t) - 0.5 * schedule.rate(t) * spread(x, score(x, t))

    process = diffusion_process(
        space, drift, lambda x, t: noise(schedule, x, t), std, sample, target, base, log_prob
    )
    return process._replace(
        generator=generator(space, schedule, drift),
        reverse=lambda score: generator(space, schedule, reversed_drift(schedule, drift, score)),
        phi=lambda x, t, target, score: 0.5 * schedule.rate(t) * square(x, target - score),
        simple=lambda x, t, target, score: std(t) ** 2 * square(x, target - score) / space.dim,
        read=read,
        velocity=velocity,
    )


def generator(space: Space, schedule: Schedule, drift: Field) -> Generator:
    """dX = b dt + sqrt(beta A(X)) dB on the simplex, whose steps never leave it.

    Args:
        space: the simplex.
        schedule: beta(t) is its rate.
        drift: (x, t) -> b [D], tangent.
    """

    def adjoint(f, x, t):
        def flux(y):
            grows = (1 - y.size * y) * f(y) + covariance(y, calculus.gradient(space, f, y))
            return 0.5 * schedule.rate(t) * grows - drift(y, t) * f(y)

        return calculus.divergence(space, flux, x)

    def step(key, x, t, dt):
        return moments_step(key, x + dt * drift(x, t), schedule.rate(t) * dt)

    def reverse(log_beta):
        score = lambda x, t: calculus.gradient(space, lambda y: log_beta(y, t), x)
        return generator(space, schedule, reversed_drift(schedule, drift, score))

    forward = generators.diffusion(space, drift, lambda x, t: noise(schedule, x, t))
    return Generator(forward.apply, adjoint, step, reverse)


def reversed_drift(schedule: Schedule, drift: Field, score: Field) -> Field:
    """(x, t) -> beta (1 - D x + A score) - b."""
    return lambda x, t: schedule.rate(t) * spread(x, score(x, t)) - drift(x, t)


def spread(x: Array, score: Array) -> Array:
    """div A + A score: [D]."""
    return 1 - x.size * x + covariance(x, score)


def covariance(x: Array, v: Array) -> Array:
    """A(x) v, with the limit of x v where v has a pole at zero: [D]."""
    xv = positive(x) * v
    return xv - x * jnp.sum(xv)


def noise(schedule: Schedule, x: Array, t: Array) -> Array:
    """The fields sqrt(beta x_k) (e_k - x): [D, D]."""
    size = jnp.sqrt(schedule.rate(t) * positive(x))
    return size[:, None] * (jnp.eye(x.size, dtype=x.dtype) - x)


def moments_step(key: Key, mean: Array, v: Array) -> Array:
    """A Dirichlet variable of a mean, projected, and the covariance (1 - e^-v) A(mean)."""
    precision = 1 / jnp.expm1(jnp.maximum(v, 1e-10))
    return draw_dirichlet(key, precision * project(mean))


def multinomial(key: Key, total: Array, share: Array) -> Array:
    """N ~ Multinomial(total, share), one binomial a component: [D] floats."""

    def draw(left, inputs):
        key, chance = inputs
        n = jax.random.binomial(key, left, chance, dtype=share.dtype)
        return left - n, n

    rest = jnp.cumsum(share[::-1])[::-1]  # of this component and those after it
    some = rest > 0
    chance = jnp.where(some, jnp.clip(share / jnp.where(some, rest, 1), 0, 1), 0)
    keys = jax.random.split(key, share.size - 1)
    last, n = jax.lax.scan(draw, total, (keys, chance[:-1]))
    return jnp.append(n, last)


def affinity(x: Array, y: Array) -> tuple[Array, Array]:
    """sqrt(x y) [D], and one less its sum [] without the cancellation."""
    least = jnp.finfo(x.dtype).eps ** 3  # a root of zero has no slope
    root_x, root_y = (jnp.sqrt(jnp.maximum(v, least)) for v in (x, y))
    return root_x * root_y, jnp.sum(((x - y) / (root_x + root_y)) ** 2) / 2


def positive(x: Array) -> Array:
    """x, or what rounding cannot tell from zero where it is less."""
    return jnp.maximum(x, 8 * jnp.finfo(x.dtype).eps)


def _checked(shape: tuple[int, ...], alpha: float | Sequence[float]) -> tuple[int, np.ndarray]:
    if len(shape) != 1 or shape[0] < 2:
        raise UserError(f"config.data has states of shape {shape}; valid: (D,), D >= 2")
    a = np.asarray(alpha, np.float64)
    if a.shape not in ((), (1,), tuple(shape)):
        raise UserError(f"config.process.alpha={alpha} must be one number or {shape[0]}")
    a = np.broadcast_to(a, shape)
    if not (np.all((a > 0) & (a <= 16)) and a.sum() <= 100):
        raise UserError(
            f"config.process.alpha={alpha} must lie in (0, 16], with a sum of at most 100"
        )
    return shape[0], a
