"""What the loop remembers of the metrics: means since the last row, and is the loss diverging?

With step losses l_1, l_2, ... the running level m and spread s follow, at rate r_k = max(1/k, r),

    m <- m + r_k (l - m),    s <- s + r_k (|l - m| - s).

A loss is *high* when l > m + FACTOR max(s, m_0 - m, |m| / 1000), where m_0 is the level after
the first WARM steps: far outside the noise, and far above where training began in units of the
whole descent since. High losses do not move m and s, so a jump stays high, while a slow rise
carries the spread along. `patience` high losses in a row are divergence; one spike is not.

All of it is a handful of floats, saved with every checkpoint so that a resumed run writes the
same rows and stops at the same step.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

FACTOR = 10.0
RATE = 0.01
WARM = 20


class TrainingError(RuntimeError):
    """Training cannot go on: one line with what happened, and at which step."""


class Monitor(NamedTuple):
    """A summary of the losses so far and the sums of the metrics since the last row."""

    totals: dict[str, float]  # sums since the last row
    rows: int = 0  # steps in `totals`
    seen: int = 0  # steps in `level`
    level: float = 0.0
    spread: float = 0.0
    first: float = 0.0  # the level after WARM steps
    high: int = 0  # high losses in a row


def start() -> Monitor:
    """A monitor that has seen nothing."""
    return Monitor({})


def observe(monitor: Monitor, step: int, metrics: Mapping[str, float], patience: int) -> Monitor:
    """The monitor after one more step.

    Args:
        monitor: the monitor before.
        step: its number, for the message.
        metrics: `{name: value}` with a key `loss`.
        patience: high losses in a row that are divergence; 0: none are.

    Raises:
        TrainingError: the loss is not finite, or diverges.
    """
    loss = metrics["loss"]
    if not math.isfinite(loss):
        raise TrainingError(f"loss={loss} at step {step}: training has diverged")
    totals = {name: monitor.totals.get(name, 0.0) + value for name, value in metrics.items()}
    monitor = monitor._replace(totals=totals, rows=monitor.rows + 1)
    scale = max(monitor.spread, monitor.first - monitor.level, abs(monitor.level) / 1000)
    if monitor.seen < WARM or loss <= monitor.level + FACTOR * scale:
        return _calm(monitor, loss)
    monitor = monitor._replace(high=monitor.high + 1)
    if 0 < patience <= monitor.high:
        raise TrainingError(
            f"loss={loss:.4g} at step {step} is far above its level {monitor.level:.4g} since"
            f" {monitor.high} steps: training has diverged"
        )
    return monitor


def _calm(monitor: Monitor, loss: float) -> Monitor:
    seen = monitor.seen + 1
    rate = max(1 / seen, RATE)
    level = monitor.level + rate * (loss - monitor.level)
    return monitor._replace(
        seen=seen,
        level=level,
        spread=monitor.spread + rate * (abs(loss - level) - monitor.spread),
        first=level if seen <= WARM else monitor.first,
        high=0,
    )


def means(monitor: Monitor) -> dict[str, float]:
    """The mean of every metric since the last row."""
    return {name: total / monitor.rows for name, total in monitor.totals.items()}


def emptied(monitor: Monitor) -> Monitor:
    """The monitor once its row is written."""
    return monitor._replace(totals={}, rows=0)


def to_json(monitor: Monitor) -> dict[str, Any]:
    """The monitor as JSON, exactly (Python prints floats so that they read back the same)."""
    return monitor._asdict()


def from_json(fields: Mapping[str, Any]) -> Monitor:
    """The monitor that `to_json` wrote."""
    return Monitor(**fields)
