"""The digits, split as the published figures of this kind split them; several blocks a pass."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from gmjax.classical import moments


@pytest.fixture(scope="session")
def digits():
    """(train [1437, 64], test [360, 64]) float64 in [0, 1], a random split of seed 0."""
    x = load_digits().data / 16
    order = np.random.default_rng(0).permutation(len(x))
    return x[order[:1437]], x[order[1437:]]


@pytest.fixture(scope="session")
def flat(digits):
    """Six linear functions of the digits, off the origin, and as many held out."""
    turn = np.random.default_rng(1).normal(size=(64, 6))
    return tuple(x @ turn / 8 + 3.0 for x in digits)


@pytest.fixture(autouse=True)
def double():
    """float64, but for tests that ask for less."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def blocks():
    """A pass over the digits takes twelve blocks, the last of which overlaps."""
    before, moments.ENTRIES = moments.ENTRIES, 128 * 64
    jax.clear_caches()
    yield
    moments.ENTRIES = before
    jax.clear_caches()
