"""Time grids of the reverse process: [N + 1] decreasing times from 1 to t_min.

`GRIDS` are those of a clock, for discrete chains and processes; `PATH_GRIDS` those of a Gaussian
path, spaced by its signal-to-noise ratio.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.paths.gaussian import EXTREME, GaussianPath
from gmjax.processes.schedules import Schedule
from gmjax.samplers.gaussian_steps import ends, half_log_snr
from gmjax.types import Array, UserError, lookup


def uniform(steps: int, t_min: float, schedule: Schedule | None = None) -> Array:
    """Equal steps in t."""
    del schedule
    return jnp.linspace(1.0, t_min, steps + 1)


def noise(steps: int, t_min: float, schedule: Schedule) -> Array:
    """Equal steps in 1 - alpha(t): the same number of sites is redrawn or unmasked in each."""
    low, high = -jnp.expm1(-schedule.clock(jnp.asarray([t_min, 1.0])))
    inside = schedule.inverse(-jnp.log1p(-jnp.linspace(high, low, steps + 1)))
    return jnp.clip(inside.at[0].set(1.0).at[-1].set(t_min), t_min, 1.0)


def clock(steps: int, t_min: float, schedule: Schedule) -> Array:
    """Equal steps in log B(t): small steps where the reverse rates grow like 1 / B."""
    low, high = jnp.log(schedule.clock(jnp.asarray([t_min, 1.0])))
    inside = schedule.inverse(jnp.exp(jnp.linspace(high, low, steps + 1)))
    return jnp.clip(inside.at[0].set(1.0).at[-1].set(t_min), t_min, 1.0)


def equidistribute(times: Array, density: Array, steps: int) -> Array:
    """The grid on which every step carries the same share of a density.

    Args:
        times: [M + 1], decreasing, the cells of a pilot run.
        density: [M], non-negative, for example how far the posterior moved per unit time.
        steps: N.

    Returns:
        [N + 1] decreasing times with the same ends.
    """
    # A tenth of the mean keeps the steps bounded where the pilot saw nothing.
    mass = -jnp.diff(times) * (density + 0.1 * jnp.mean(density) + 1e-12)
    total = jnp.concatenate([jnp.zeros(1), jnp.cumsum(mass)])
    grid = jnp.interp(jnp.linspace(0, 1, steps + 1), total / total[-1], times)
    return grid.at[0].set(times[0]).at[-1].set(times[-1])


GRIDS: dict[str, Callable[..., Array]] = {"uniform": uniform, "noise": noise, "clock": clock}


def build(name: str, steps: int, t_min: float, schedule: Schedule) -> Array:
    """The grid `config.sample.grid`, [steps + 1].

    Raises:
        UserError: an unknown name, or times that single precision cannot tell apart.
    """
    make = lookup(GRIDS, name, "config.sample.grid")
    with jax.ensure_compile_time_eval():
        times = make(steps, t_min, schedule)
        falls = bool(jnp.all(jnp.diff(times) < 0))
    if not falls:
        raise UserError(
            f"config.sample.grid={name!r}: {steps} steps on this schedule have times that are"
            " equal in single precision; valid: config.sample.grid=uniform, or fewer steps"
        )
    return times


# -- grids of a Gaussian path ---------------------------------------------------------------------


def path_uniform(steps: int, path: GaussianPath, t_min: float, t_max: float) -> Array:
    """Equal steps in t."""
    return jnp.linspace(t_max, t_min, steps + 1)


def path_quadratic(steps: int, path: GaussianPath, t_min: float, t_max: float) -> Array:
    """Equal steps in the root of t (Song et al. 2021, DDIM, appendix D)."""
    return jnp.linspace(t_max**0.5, t_min**0.5, steps + 1) ** 2


def path_log_snr(steps: int, path: GaussianPath, t_min: float, t_max: float) -> Array:
    """Equal steps in the log-SNR (Lu et al. 2022)."""
    high, low = _range(path, t_min, t_max)
    return path.inverse(jnp.linspace(low, high, steps + 1))


def path_karras(
    steps: int, path: GaussianPath, t_min: float, t_max: float, power: float = 7.0
) -> Array:
    """Equal steps in (sigma / alpha)^{1 / power} (Karras et al. 2022, equation 5)."""
    if not power > 0:
        raise UserError(f"config.sample.power={power} must be positive")
    high, low = _range(path, t_min, t_max)
    ends = jnp.exp(-0.5 * jnp.stack([low, high]) / power)
    return path.inverse(-2 * power * jnp.log(jnp.linspace(ends[0], ends[1], steps + 1)))


def path_exponential_decay(steps: int, path: GaussianPath, t_min: float, t_max: float) -> Array:
    """Half the steps equal, then ever shorter, in the time tau of an Ornstein-Uhlenbeck process.

    tau = log(1 + 1 / SNR) / 2 is the time at which dX = -X dtau + sqrt 2 dB has the path's SNR.
    With T and delta its values at the ends, tau falls from T to 1 in the first half of the steps
    and then as delta^{k / (N / 2)}, so that no step exceeds kappa min(1, tau), the least possible
    kappa being of order (T + log(1 / delta)) / N (Benton et al. 2023).
    """
    high, low = _range(path, t_min, t_max)
    last, first = (0.5 * jax.nn.softplus(-snr) for snr in (high, low))
    knee = jnp.minimum(first, 1.0)
    half = jnp.where(first > 1, steps // 2, 0)
    k = jnp.arange(steps + 1)
    linear = first - (first - knee) * k / jnp.maximum(half, 1)
    share = (k - half) / (steps - half)
    tau = jnp.where(k < half, linear, knee * jnp.exp(share * jnp.log(last / knee)))
    return path.inverse(-jnp.log(jnp.expm1(2 * tau)))


def path_discrete(
    steps: int,
    path: GaussianPath,
    t_min: float,
    t_max: float,
    total: int = 1000,
    spacing: str = "trailing",
) -> Array:
    """Times i / total of a discrete schedule, t_min < i / total <= t_max, and t_min at the end.

    Args:
        total: T, the number of noise levels.
        spacing: of n levels "trailing" goes from the last down in steps of n / N; "leading" from
            the first up in steps of n // N, which does not reach the last; "linspace" from the
            first to the last.

    Source: Lin et al. (2024), table 2.
    """
    first, last = math.floor(t_min * total + 1e-9) + 1, round(t_max * total)
    levels = last - first + 1
    if not steps <= levels:
        raise UserError(
            f"config.sample.steps={steps} must be at most {levels}, the levels there are"
        )
    if steps == 1 and spacing != "trailing":
        raise UserError(
            f"config.sample.steps=1: config.sample.spacing={spacing!r} would start at the first"
            " level, which has next to no noise; valid: trailing"
        )
    index = {
        "trailing": lambda: np.round(last - levels / steps * np.arange(steps)),
        "leading": lambda: first + (levels // steps) * np.arange(steps)[::-1],
        "linspace": lambda: np.round(np.linspace(first, last, steps))[::-1],
    }
    times = lookup(index, spacing, "config.sample.spacing")() / total
    return jnp.asarray(np.append(times, t_min), float)


PATH_GRIDS: dict[str, Callable[..., Array]] = {
    "uniform": path_uniform,
    "quadratic": path_quadratic,
    "log_snr": path_log_snr,
    "karras": path_karras,
    "exponential_decay": path_exponential_decay,
    "discrete": path_discrete,
}


def path_grid(
    name: str,
    steps: int,
    path: GaussianPath,
    t_min: float = 0.0,
    t_max: float = 1.0,
    *,
    key: str = "config.sample.grid",
    **own: Any,
) -> Array:
    """A grid of `PATH_GRIDS` with exact ends, checked: [steps + 1] decreasing times.

    Args:
        name: in `PATH_GRIDS`.
        steps: N.
        path: whose log-SNR spaces it.
        t_min, t_max: the ends; "discrete" with "leading" starts below t_max.
        key: of the configuration, for messages.
        own: the grid's own options.

    Raises:
        UserError: an unknown name, non-positive steps, ends outside 0 <= t_min < t_max <= 1, or
            times along which the SNR does not rise.
    """
    form = lookup(PATH_GRIDS, name, key)
    if not (isinstance(steps, int) and steps >= 1):
        raise UserError(f"config.sample.steps={steps} must be a positive integer")
    if not 0 <= t_min < t_max <= 1:
        raise UserError(
            f"config.sample.t_min={t_min} and config.sample.t_max={t_max} must satisfy"
            " 0 <= t_min < t_max <= 1"
        )
    with jax.ensure_compile_time_eval():
        times = form(steps, path, t_min, t_max, **own)
        if name != "discrete":
            times = times.at[0].set(t_max).at[-1].set(t_min)
        alpha, sigma = ends(path, times)
        rising = (alpha[1:] * sigma[:-1] > alpha[:-1] * sigma[1:]) & (times[1:] < times[:-1])
    # A path that is being learned cannot be looked at.
    if not isinstance(rising, jax.core.Tracer) and not np.asarray(rising).all():
        worst = float(np.asarray(times)[np.argmin(np.asarray(rising))])
        raise UserError(
            f"config.path: the signal-to-noise ratio must rise along the {steps} steps of"
            f" {key}={name!r} from t = {t_max} to {t_min}; it does not at {worst:.4g}"
        )
    return times


def _range(path, t_min, t_max):
    """The log-SNR at both ends, highest first, within what a grid can be spaced by."""
    at_ends = 2 * half_log_snr(path, jnp.asarray([t_min, t_max], float))
    return jnp.clip(at_ends, -EXTREME, EXTREME)
