"""Gaussian paths x_t = alpha_t x0 + sigma_t eps, from data (t = 0) to noise (t = 1).

A path is its two coefficients. The signal-to-noise ratio SNR = alpha^2 / sigma^2 falls in t, and
all that a solver needs of the time is log_snr = 2 log(alpha / sigma) and its inverse. With
primes for d/dt, the linear diffusion that has these marginals is

    dX = f X dt + g dB,  f = alpha' / alpha,  g^2 = (sigma^2)' - 2 f sigma^2 = -sigma^2 log_snr',

so every path is a noising process (`process`), and the probability flow of x0-posterior mean D and
noise-posterior mean E is v = alpha' D + sigma' E, which is finite where alpha is zero.

    variance_preserving   alpha = e^{-B/2},         sigma^2 = 1 - e^{-B}, B a schedule's clock
    variance_exploding    alpha = 1,                sigma = low (high / low)^t
    karras                alpha = 1,                sigma^{1/r} from low^{1/r} to high^{1/r}
    linear                alpha = 1 - t,            sigma = t
    trigonometric         alpha = cos(pi t / 2),    sigma = sin(pi t / 2)
    log_snr_linear        alpha^2 = sigmoid(l),     l from high to low, linear in t
    ddpm                  alpha^2 = prod_{j <= T t} (1 - beta_j), beta_1 .. beta_T linear

Source: Song et al. (2021); Karras et al. (2022); Kingma et al. (2021), section 3; Lipman et al.
(2023); Albergo and Vanden-Eijnden (2023); Ho et al. (2020).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.processes import gaussian
from gmjax.processes.schedules import SCHEDULES, Schedule
from gmjax.types import Array, Distribution, Process, UserError, lookup

# Beyond this log-SNR, of either sign, the lesser of data and noise has an amplitude below e^-7,
# about 1e-3: pure data and pure noise count as it where times are spaced or drawn by the log-SNR.
EXTREME = 14.0


class GaussianPath(NamedTuple):
    """alpha and sigma as functions of t in [0, 1], [] -> [], elementwise on arrays."""

    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
    inverse: Callable[[Array], Array]  # log-SNR -> t


def log_snr(path: GaussianPath, t: Array) -> Array:
    """log(alpha_t^2 / sigma_t^2): +inf at t = 0 and -inf at t = 1 where the path reaches them."""
    return 2 * (jnp.log(path.alpha(t)) - jnp.log(path.sigma(t)))


def slopes(path: GaussianPath, t: Array) -> tuple[Array, Array, Array, Array]:
    """(alpha, sigma, alpha', sigma') at t: [...] each."""
    one = jnp.ones_like(t)
    alpha, dalpha = jax.jvp(path.alpha, (t,), (one,))
    sigma, dsigma = jax.jvp(path.sigma, (t,), (one,))
    return alpha, sigma, dalpha, dsigma


def variance_preserving(schedule: Schedule) -> GaussianPath:
    """alpha = e^{-B(t)/2}, sigma^2 = 1 - alpha^2 (Song et al. 2021, VP).

    Args:
        schedule: beta and its clock B.
    """
    return GaussianPath(
        lambda t: jnp.exp(-0.5 * schedule.clock(t)),
        lambda t: jnp.sqrt(gaussian.positive(-jnp.expm1(-schedule.clock(t)))),
        lambda snr: schedule.inverse(jax.nn.softplus(-snr)),
    )


def variance_exploding(low: float = 0.01, high: float = 50.0) -> GaussianPath:
    """alpha = 1, sigma = low (high / low)^t (Song et al. 2021, VE).

    Args:
        low, high: sigma at t = 0 and t = 1.
    """
    _increasing(low, high, ("low", "high"))
    ratio = math.log(high / low)
    return GaussianPath(
        jnp.ones_like,
        lambda t: low * jnp.exp(ratio * t),
        lambda snr: (-0.5 * snr - math.log(low)) / ratio,
    )


def karras(low: float = 0.002, high: float = 80.0, power: float = 7.0) -> GaussianPath:
    """alpha = 1, sigma^{1/power} linear in t (Karras et al. 2022, equation 5).

    Args:
        low, high: sigma at t = 0 and t = 1.
        power: rho.
    """
    _increasing(low, high, ("low", "high"))
    _above("power", power, 0.0)
    a, b = low ** (1 / power), high ** (1 / power)
    return GaussianPath(
        jnp.ones_like,
        lambda t: (a + t * (b - a)) ** power,
        lambda snr: (jnp.exp(-0.5 * snr / power) - a) / (b - a),
    )


def linear() -> GaussianPath:
    """alpha = 1 - t, sigma = t: straight lines to noise (Lipman et al. 2023; Liu et al. 2023)."""
    return GaussianPath(lambda t: 1 - t, lambda t: t, lambda snr: jax.nn.sigmoid(-0.5 * snr))


def trigonometric() -> GaussianPath:
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Albergo and Vanden-Eijnden 2023)."""
    angle = math.pi / 2
    return GaussianPath(
        lambda t: jnp.sin(angle * (1 - t)),  # zero at t = 1, which cos(pi / 2) is not
        lambda t: jnp.sin(angle * t),
        lambda snr: jnp.arctan(jnp.exp(-0.5 * snr)) / angle,
    )


def log_snr_linear(high: float = 13.3, low: float = -5.0) -> GaussianPath:
    """alpha^2 = sigmoid(l), sigma^2 = sigmoid(-l), l = high + (low - high) t (Kingma et al. 2021).

    Args:
        high, low: log-SNR at t = 0 and t = 1.
    """
    _increasing(low, high, ("low", "high"), positive=False)
    return from_log_snr(lambda t: high + (low - high) * t, lambda snr: (high - snr) / (high - low))


def from_log_snr(snr: Callable[[Array], Array], inverse: Callable[[Array], Array]) -> GaussianPath:
    """The variance-preserving path of a falling log-SNR, a learned one too.

    Args:
        snr: t -> log-SNR.
        inverse: log-SNR -> t.
    """
    return GaussianPath(
        lambda t: jnp.exp(-0.5 * jax.nn.softplus(-snr(t))),
        lambda t: jnp.exp(-0.5 * jax.nn.softplus(snr(t))),
        inverse,
    )


def ddpm(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> GaussianPath:
    """The discrete schedule of Ho et al. (2020): alpha^2 = prod_{j <= T t} (1 - beta_j).

    Exact at t = i / T, i = 0 .. T; between them log alpha^2 is linear.

    Args:
        steps: T.
        start, end: beta_1 and beta_T, linear between.
    """
    if steps < 1:
        raise UserError(f"config.path.steps={steps} must be at least 1")
    for name, value in (("start", start), ("end", end)):
        if not 0 < value < 1:
            raise UserError(f"config.path.{name}={value} must lie in (0, 1)")
    return from_betas(np.linspace(start, end, steps))


def from_betas(betas: np.ndarray) -> GaussianPath:
    """The path of a discrete variance schedule beta_1 .. beta_T, each in (0, 1)."""
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or not ((betas > 0) & (betas < 1)).all():
        raise UserError("config.path.betas must be a sequence of numbers in (0, 1)")
    logs = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])  # log alpha^2 at i / T
    grid = np.linspace(0, 1, len(logs))

    def log_alpha(t):
        return 0.5 * jnp.interp(t, jnp.asarray(grid, t.dtype), jnp.asarray(logs, t.dtype))

    return GaussianPath(
        lambda t: jnp.exp(log_alpha(t)),
        lambda t: jnp.sqrt(gaussian.positive(-jnp.expm1(2 * log_alpha(t)))),
        lambda snr: jnp.interp(
            jax.nn.softplus(-snr), jnp.asarray(-logs, snr.dtype), jnp.asarray(grid, snr.dtype)
        ),
    )


def process(path: GaussianPath, shape: tuple[int, ...], data_std: float = 1.0) -> Process:
    """The linear diffusion with the marginals of a path, as a noising process.

    Its reference law is N(0, alpha_1^2 data_std^2 + sigma_1^2), the exact one of Gaussian data.
    From pure noise (alpha_1 = 0) it has no `velocity`: alpha' E[x0] is no function of the score
    there (`likelihoods.flow.on_path` takes both means).

    Args:
        path: of the marginals; alpha must not vanish before t = 1.
        shape: [*S], one state.
        data_std: standard deviation of an entry of the data.
    """
    standard = gaussian.normal(shape)
    base = Distribution(
        lambda key: base_std(path, data_std) * standard.sample(key),
        lambda x: (
            standard.log_prob(x / base_std(path, data_std))
            - math.prod(shape) * jnp.log(base_std(path, data_std))
        ),
    )

    def drift(x, t):
        alpha, _, dalpha, _ = slopes(path, t)
        return dalpha / jnp.maximum(alpha, _TINY) * x

    def noise(x, t):
        alpha, sigma, dalpha, dsigma = slopes(path, t)
        square = 2 * sigma * (dsigma - sigma * dalpha / jnp.maximum(alpha, _TINY))
        return jnp.sqrt(gaussian.positive(square))

    whole = gaussian.linear(shape, drift, noise, path.alpha, path.sigma)._replace(base=base)
    with jax.ensure_compile_time_eval():
        left = path.alpha(jnp.ones(()))
    # A path that is being learned cannot be looked at, and keeps some of the data.
    pure = not isinstance(left, jax.core.Tracer) and float(left) < _TINY
    return whole._replace(velocity=None) if pure else whole


def base_std(path: GaussianPath, data_std: float = 1.0) -> Array:
    """Standard deviation at t = 1 of an entry whose data have `data_std`: []."""
    one = jnp.ones(())
    return jnp.sqrt((path.alpha(one) * data_std) ** 2 + path.sigma(one) ** 2)


# A path that ends in pure noise has an infinite drift there; nothing is evaluated at t = 1 but x.
_TINY = 1e-6


def build(config: dict[str, Any]) -> GaussianPath:
    """The path of `config.path`: a name in `PATHS` with its keys; the keys of others are ignored.

    Raises:
        UserError: an unknown name, or a value that is not valid.
    """
    form = lookup(PATHS, config["name"], "config.path.name")
    return form(**{k: v for k, v in config.items() if k in KEYS[config["name"]] and v is not None})


def _scheduled(schedule: str = "linear", **own: float) -> GaussianPath:
    form = lookup(SCHEDULES, schedule, "config.path.schedule")
    try:
        return variance_preserving(form(**own))
    except UserError as error:  # the schedule is the path's own here
        raise UserError(str(error).replace("config.process.schedule", "config.path")) from None


PATHS: dict[str, Callable[..., GaussianPath]] = {
    "vp_linear": lambda start=0.1, end=20.0: _scheduled("linear", start=start, end=end),
    "vp_cosine": lambda alpha_min=1e-4: _scheduled("cosine", alpha_min=alpha_min),
    "variance_exploding": variance_exploding,
    "karras": karras,
    "linear": linear,
    "trigonometric": trigonometric,
    "log_snr_linear": log_snr_linear,
    "ddpm": ddpm,
}
# The keys of each path, with their defaults.
KEYS: dict[str, dict[str, Any]] = {
    "vp_linear": {"start": 0.1, "end": 20.0},
    "vp_cosine": {"alpha_min": 1e-4},
    "variance_exploding": {"low": 0.01, "high": 50.0},
    "karras": {"low": 0.002, "high": 80.0, "power": 7.0},
    "linear": {},
    "trigonometric": {},
    "log_snr_linear": {"low": -5.0, "high": 13.3},
    "ddpm": {"steps": 1000, "start": 1e-4, "end": 0.02},
}


def _increasing(low, high, names, positive=True):
    if positive:
        _above(names[0], low, 0.0)
    if not low < high:
        raise UserError(f"config.path.{names[1]}={high} must exceed config.path.{names[0]}={low}")


def _above(name, value, bound):
    if not value > bound:
        raise UserError(f"config.path.{name}={value} must exceed {bound:g}")
