"""Noising on the half-line: the Cox-Ingersoll-Ross process and the squared Bessel process.

Every component follows dX = (delta - a X) dt + sigma sqrt(X) dB. With the clock tau and
h = (1 - e^{-a tau}) / a (tau where a = 0), c = 2 / (sigma^2 h), nu = 2 delta / sigma^2 - 1,
u = c x0 e^{-a tau} and v = c x, its kernel is a scaled non-central chi-square,

    N ~ Poisson(u),  c X ~ Gamma(nu + 1 + N)
    q(x | x0) = c e^{-u-v} (v/u)^{nu/2} I_nu(2 sqrt(u v)) = c v^nu e^{-u-v} F(u v) / Gamma(nu + 1)

with F(w) = 0F1(; nu + 1; w) = sum_k w^k / (k! (nu + 1)_k), which is smooth at w = 0. Its score is

    x grad log q = nu - v + u v r(u v),   r = (log F)' = F_{nu+1} / ((nu + 1) F_nu).

nu >= 0 keeps the process off zero. Then the reversal has the drift a X - delta + sigma^2
(1 + X s), where X s, which the network predicts, stays of order one: near zero it tends to nu,
and the reverse drift to delta. For a > 0 the limit is Gamma(nu + 1) with mean delta / a. The
squared Bessel process (a = 0) has none; its base is its law at t = 1 started at zero.

Simulation is by Milstein's rule, (sqrt(x) + sigma sqrt(dt) z / 2)^2 + (b - sigma^2 / 4) dt, cut
off at zero. It has the mean x + b dt and, up to dt^2, the variance sigma^2 x dt, so it is of weak
order one; the exact drift is above sigma^2 / 4 near zero, where nothing is cut off.

Source: Feller (1951); Cox, Ingersoll and Ross (1985); DLMF 10.25.2, 10.39.9 and 10.41.3.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gmjax import draws, generators
from gmjax.processes.diffusions import diffusion_process
from gmjax.processes.schedules import Schedule
from gmjax.spaces import calculus
from gmjax.spaces.euclidean import euclidean
from gmjax.types import Array, Distribution, Process, Space, UserError

_FLOOR = 1e-12  # where x is cut off: its inverse and that one's square are finite in float32
_SOON = 1e-8  # the least time of the kernel
_MANY = 1e6  # ancestors, from which on their number is normal
_FAR = 30.0  # Debye's expansion of I_nu(z) serves from this z on, the series below


def cox_ingersoll_ross(
    schedule: Schedule,
    shape: tuple[int, ...],
    speed: float = 1.0,
    mean: float = 1.0,
    sigma: float = 1.0,
) -> Process:
    """dX = beta a (b - X) dt + sigma sqrt(beta X) dB in every component.

    Args:
        schedule: beta, and the clock.
        shape: of one state.
        speed: a.
        mean: b, of the Gamma law in the limit.
        sigma: the noise; 2 a b >= sigma^2.

    Raises:
        UserError: an argument is not positive, or zero could be reached.
    """
    for name, value in (("speed", speed), ("mean", mean), ("sigma", sigma)):
        if not value > 0:
            raise UserError(f"config.process.{name}={value} is out of range; valid: > 0")
    if 2 * speed * mean < sigma**2:
        limit = (2 * speed * mean) ** 0.5
        raise UserError(f"config.process.sigma={sigma} reaches zero; valid: at most {limit:g}")
    return _feller(schedule, tuple(shape), speed * mean, speed, sigma)


def squared_bessel(schedule: Schedule, shape: tuple[int, ...], dimension: float = 2.0) -> Process:
    """dX = beta delta dt + 2 sqrt(beta X) dB, the square of a Bessel process of dimension delta.

    Args:
        schedule: beta, and the clock.
        shape: of one state.
        dimension: delta >= 2.

    Raises:
        UserError: zero could be reached.
    """
    if not dimension >= 2:
        raise UserError(f"config.process.dimension={dimension} is out of range; valid: >= 2")
    return _feller(schedule, tuple(shape), dimension, 0.0, 2.0)


def half_line(shape: tuple[int, ...]) -> Space:
    """(0, inf)^S with its flat metric and Lebesgue measure."""
    return euclidean(
        shape,
        project=lambda x: jnp.maximum(x, _FLOOR),
        embed=lambda x: jnp.concatenate([jnp.log1p(x).ravel(), (x / (1 + x)).ravel()]),
        check=lambda x: "" if (x > 0).all() else f"states reach {x.min():g}; valid: > 0",
    )


def _poisson(key: Array, u: Array, x: Array) -> Array:
    """Poisson(u) numbers of the shape and dtype of x, beyond a million by the normal law.

    There the two differ by a distance of order u^-1/2, and integers would overflow. Up to there by
    the inverse distribution function: rejection in float32 is off from a mean of 1e5 on.
    """
    uniform = jax.random.uniform(key, x.shape, u.dtype)
    few = draws.poisson(uniform, jnp.minimum(u, _MANY)).astype(x.dtype)
    many = jnp.round(u + jnp.sqrt(u) * jax.random.normal(key, x.shape, x.dtype))
    return jnp.where(u > _MANY, many, few)


def _feller(
    schedule: Schedule, shape: tuple[int, ...], inflow: float, decay: float, sigma: float
) -> Process:
    """dX = beta (inflow - decay X) dt + sigma sqrt(beta X) dB."""
    space, nu = half_line(shape), 2 * inflow / sigma**2 - 1
    kernel = _log_scaled(nu)

    def coefficients(x0, t):
        """c and u."""
        tau = jnp.maximum(schedule.clock(t), _SOON)
        spread = -jnp.expm1(-decay * tau) / decay if decay else tau
        c = 2 / (sigma**2 * spread)
        return c, c * x0 * jnp.exp(-decay * tau)

    def sample(key, x0, t):
        key_n, key_x = jax.random.split(key)
        c, u = coefficients(x0, t)
        n = _poisson(key_n, u, x0)
        return space.project(jax.random.gamma(key_x, nu + 1 + n, dtype=x0.dtype) / c)

    def log_prob(x, x0, t):
        c, u = coefficients(x0, t)
        v = c * x
        power = nu * jnp.log(jnp.maximum(v, _FLOOR**2)) - math.lgamma(nu + 1)
        return jnp.sum(jnp.log(c) + power + kernel(u, v))

    def target(x0, x, t):
        c, u = coefficients(x0, t)
        return (nu + c * x * jax.grad(lambda v: jnp.sum(kernel(u, v)))(c * x)) / x

    def drift(x, t):
        return schedule.rate(t) * (inflow - decay * x)

    def turn(score):
        """div A + A s."""
        return lambda x, t: schedule.rate(t) * sigma**2 * (1 + x * score(x, t))

    def back(drift, score):
        return lambda x, t: turn(score)(x, t) - drift(x, t)

    def noise(x, t):
        roots = jnp.sqrt(schedule.rate(t) * x) * sigma
        return jnp.diag(roots.ravel()).reshape(roots.size, *x.shape)

    def moving(drift):
        def step(key, x, t, dt):
            s = sigma * jnp.sqrt(schedule.rate(t) * dt)
            z = jax.random.normal(key, x.shape, x.dtype)
            return space.project((jnp.sqrt(x) + s * z / 2) ** 2 + drift(x, t) * dt - s**2 / 4)

        def reverse(log_beta):
            slope = lambda x, t: calculus.gradient(space, lambda y: log_beta(y, t), x)
            return moving(back(drift, slope))

        return generators.diffusion(space, drift, noise)._replace(step=step, reverse=reverse)

    def velocity(score):
        return lambda x, t: drift(x, t) - 0.5 * turn(score)(x, t)

    # Of x s: sqrt(v) while the kernel is narrow, one when it has mixed.
    size = lambda x, t: jnp.sqrt(1 + coefficients(x, t)[0] * x)
    return diffusion_process(
        space=space,
        drift=drift,
        noise=noise,
        std=lambda t: 1 / jnp.sqrt(coefficients(0.0, t)[0]),
        sample=sample,
        target=target,
        base=_gamma(shape, nu + 1, 2 * decay / sigma**2 if decay else coefficients(0.0, 1.0)[0]),
        log_prob=log_prob,
    )._replace(
        generator=moving(drift),
        reverse=lambda score: moving(back(drift, score)),
        velocity=velocity,
        read=lambda out, x, t: size(x, t) * out / x,
        simple=lambda x, t, target, score: jnp.mean((x * (target - score) / size(x, t)) ** 2),
        phi=lambda x, t, target, score: (
            0.5 * sigma**2 * schedule.rate(t) * jnp.sum(x * (target - score) ** 2)
        ),
    )


def _gamma(shape: tuple[int, ...], power: float, rate: Array | float) -> Distribution:
    """Gamma(power) / rate in every component."""

    def log_prob(x):
        v = rate * x
        each = (power - 1) * jnp.log(v) - v + jnp.log(rate) - math.lgamma(power)
        return jnp.sum(each)

    return Distribution(
        lambda key: jnp.maximum(jax.random.gamma(key, power, shape) / rate, _FLOOR), log_prob
    )


def _log_scaled(nu: float) -> Callable[[Array, Array], Array]:
    """(u, v) -> log F(u v) - u - v, elementwise, whose two large parts never meet."""

    @jax.custom_jvp
    def kernel(u, v):
        return _log_f(nu, u * v) - (jnp.sqrt(u) - jnp.sqrt(v)) ** 2

    @kernel.defjvp
    def _(primals, tangents):
        (u, v), (du, dv) = primals, tangents
        r = _ratio(nu)(u * v)
        return kernel(u, v), (v * r - 1) * du + (u * r - 1) * dv

    return kernel


def _ratio(nu: float) -> Callable[[Array], Array]:
    """w -> r = (log F_nu)'; r' = r (r_{nu+1} - r) gives every further derivative."""

    @jax.custom_jvp
    def ratio(w):
        z = 2 * jnp.sqrt(w)
        near, far = _near(z), jnp.maximum(z, _FAR)
        low, high = _series(nu, near), _series(nu + 1, near)
        shift = _debye(nu + 1, far) - _debye(nu, far)
        return jnp.where(z < _FAR, high / low / (nu + 1), jnp.exp(shift) * 2 / far)

    @ratio.defjvp
    def _(primals, tangents):
        r = ratio(*primals)
        return r, r * (_ratio(nu + 1)(*primals) - r) * tangents[0]

    return ratio


def _log_f(nu: float, w: Array) -> Array:
    """log F_nu(w) - 2 sqrt(w), elementwise."""
    z = 2 * jnp.sqrt(w)
    far = jnp.maximum(z, _FAR)
    power = math.lgamma(nu + 1) - nu * jnp.log(far / 2) - 0.5 * jnp.log(2 * jnp.pi * far)
    return jnp.where(z < _FAR, jnp.log(_series(nu, _near(z))) - z, power + _debye(nu, far))


def _near(z: Array) -> Array:
    """w = z^2 / 4 within the reach of the series."""
    return jnp.minimum(z, _FAR) ** 2 / 4


def _series(nu: float, w: Array) -> Array:
    """F_nu(w) for w <= _FAR^2 / 4; all terms are positive."""
    total = jnp.ones_like(w)
    for k in range(_TERMS, 0, -1):
        total = 1 + total * w / (k * (nu + k))
    return total


def _debye(nu: float, z: Array) -> Array:
    """log( I_nu(z) e^{-z} sqrt(2 pi z) ), of order nu^2 / z, for z >= _FAR."""
    p = nu / z
    root = jnp.sqrt(1 + p**2)
    r = z * root
    total = jnp.zeros_like(z)
    for row in reversed(_DEBYE):
        total = total / r + jnp.polyval(jnp.asarray(row[::-1], z.dtype), (p / root) ** 2)
    shift = nu * p / (1 + root) - nu * jnp.arcsinh(p)
    return shift - 0.5 * jnp.log(root) + jnp.log(total)


def _debye_rows(count: int) -> list[np.ndarray]:
    """w with U_k(s) = s^k sum_j w_kj s^{2j}: DLMF 10.41.9."""
    rows = [np.ones(1)]
    for k in range(count):
        power = k + 2 * np.arange(k + 1)
        row = np.zeros(k + 2)
        row[:-1] += rows[-1] * (power / 2 + 1 / (8 * (power + 1)))
        row[1:] -= rows[-1] * (power / 2 + 5 / (8 * (power + 3)))
        rows.append(row)
    return rows


_DEBYE = _debye_rows(7)  # leaves 1e-11
_TERMS = 46  # of the series, leave 1e-15
