from typing import NamedTuple

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gmjax.metrics.features import fit_classifier


class Digits(NamedTuple):
    train: np.ndarray
    test: np.ndarray
    train_label: np.ndarray
    test_label: np.ndarray


@pytest.fixture(scope="session")
def digits():
    data = load_digits()
    x, label = data.images.astype(np.int32)[..., None], data.target
    order = np.random.default_rng(1).permutation(len(x))
    train, test = order[:1437], order[1437:]
    return Digits(x[train], x[test], label[train], label[test])


@pytest.fixture(scope="session")
def classifier(digits):
    return fit_classifier(digits.train, digits.train_label, 17)
