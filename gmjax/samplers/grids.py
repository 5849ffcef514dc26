"""Time grids of the reverse process: [N + 1] decreasing times from 1 to t_min."""

from collections.abc import Callable

import jax.numpy as jnp

from gmjax.processes.schedules import Schedule
from gmjax.types import Array


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
