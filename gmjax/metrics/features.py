"""A small classifier of the labelled data, for features, predicted labels and confidence.

An MLP with hidden layers 128 and 32; the features are the 32 rectified activations of the last
hidden layer. Trained with a fixed seed it is part of the yardstick: the same data gives the same
network, so figures of different runs can be compared.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MAX_EXAMPLES = 10_000


class Classifier(NamedTuple):
    """What the yardstick network says of images."""

    features: Callable[[np.ndarray], np.ndarray]  # x [n, *S] -> [n, 32] float64
    classify: Callable[
        [np.ndarray], tuple[np.ndarray, np.ndarray]
    ]  # x [n, *S] -> label [n], confidence [n] in (0, 1]


def encode(x: np.ndarray, num_values: int, ordinal: bool) -> np.ndarray:
    """Numbers for the network: x / (S - 1) for ordinal values, else one-hot; [n, D] or [n, D S]."""
    flat = np.asarray(x).reshape(len(x), -1)
    if ordinal:
        return flat / (num_values - 1)
    return (flat[..., None] == np.arange(num_values)).reshape(len(flat), -1).astype(np.float64)


def fit_classifier(
    x: np.ndarray, label: np.ndarray, num_values: int, ordinal: bool = True, seed: int = 0
) -> Classifier:
    """Fit the yardstick network on labelled training data (at most 10000 of them).

    Args:
        x: [n, *S] integers in 0 .. num_values - 1.
        label: [n] integers, at least two distinct.
        num_values: S.
        ordinal: scale the values; otherwise encode them one-hot.
        seed: of the weights, of the order of the data and of the subset.

    Returns:
        A `Classifier`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    chosen = np.random.default_rng(seed).permutation(len(x))[:MAX_EXAMPLES]
    network = MLPClassifier((128, 32), learning_rate_init=3e-3, max_iter=100, random_state=seed)
    # One thread: the matrices are small, and threads that wait for each other on busy cores
    # have made this forty times slower. It also keeps the network the same on every machine.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(encode(np.asarray(x)[chosen], num_values, ordinal), np.asarray(label)[chosen])
    layers = list(zip(network.coefs_, network.intercepts_, strict=True))[:-1]

    def features(y: np.ndarray) -> np.ndarray:
        hidden = encode(y, num_values, ordinal)
        for weight, bias in layers:
            hidden = np.maximum(hidden @ weight + bias, 0.0)
        return hidden

    def classify(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probability = network.predict_proba(encode(y, num_values, ordinal))
        return network.classes_[probability.argmax(1)], probability.max(1)

    return Classifier(features, classify)
