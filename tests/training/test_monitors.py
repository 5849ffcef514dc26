"""Losses that training must stop at, and losses that it must not."""

import json
import math

import numpy as np
import pytest

from gmjax.training import monitors


def watch(losses, patience=50):
    """The step at which a sequence of losses is stopped, or None."""
    monitor = monitors.start()
    for step, loss in enumerate(losses, 1):
        try:
            monitor = monitors.observe(monitor, step, {"loss": float(loss)}, patience)
        except monitors.TrainingError as error:
            assert f"step {step}" in str(error) and "\n" not in str(error)
            return step
    return None


rng = np.random.default_rng(0)
noise = rng.normal(size=2000)
steps = np.arange(2000)
decay = 5 * np.exp(-steps / 200)

SOUND = {
    "noisy decay": decay + 0.1 * noise,
    "negative": -decay[::-1] + 0.1 * noise,
    "constant": np.full(2000, 3.0) * (1 + 1e-7 * noise),
    "a constant that moves": np.where(steps < 700, 3.0, 3.01),
    "zero": np.zeros(2000),
    "bursts": decay + np.where(steps % 100 < 40, 1e3, 0) * (steps > 100),
    "rounding at zero": decay**4 * 1e-9 + np.where(steps > 1000, 1e-7, 0),
    "slow rise": 0.7 + 5 * steps / 2000 + 0.1 * noise,
    "heavy tails": 1 + 0.1 * rng.standard_cauchy(2000) ** 2,
    "a bad start": np.where(steps < 5, 1e6, decay),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_training_goes_on(name):
    assert watch(SOUND[name]) is None


@pytest.mark.parametrize(
    ("losses", "stop"),
    [
        (np.where(steps < 700, decay + 0.1 * noise, 1e3), 750),
        (np.where(steps < 700, decay + 0.1 * noise, 1e3 * 1.1 ** np.maximum(steps - 700, 0)), 750),
        (np.where(steps < 700, -1e3 + noise, 0), 750),
        (np.where(steps == 700, np.nan, decay), 701),
        (np.where(steps == 0, np.inf, decay), 1),
        (np.where(steps == 3, -np.inf, decay), 4),
    ],
)
def test_divergence_stops_when_patience_ends(losses, stop):
    assert watch(losses) == stop


def test_no_patience_waits_for_ever_but_not_for_nan():
    losses = np.where(steps < 700, decay, 1e9)
    assert watch(losses, patience=0) is None
    assert watch(np.append(losses, math.nan), patience=0) == 2001


def test_json_is_exact_and_a_monitor_continues_from_it():
    losses = decay + 0.1 * noise
    whole = half = monitors.start()
    for step in range(300):
        metrics = {"loss": losses[step], "norm": noise[step]}
        whole = monitors.observe(whole, step, metrics, 50)
        half = monitors.observe(half, step, metrics, 50)
        if step == 150:
            half = monitors.from_json(json.loads(json.dumps(monitors.to_json(half))))
    assert half == whole


def test_means_are_of_the_steps_since_the_last_row():
    monitor = monitors.start()
    for value in (9.0, 1.0, 3.0):
        if value == 1.0:
            monitor = monitors.emptied(monitor)
        monitor = monitors.observe(monitor, 1, {"loss": value, "norm": 2 * value}, 0)
    assert monitors.means(monitor) == {"loss": 2.0, "norm": 4.0}
