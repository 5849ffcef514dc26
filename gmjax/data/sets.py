"""The named data sets that come as arrays: digits, MNIST, binarised MNIST.

The held-out part is always the published test set, where there is one; a validation set
stays unused unless ``config.data.held_out`` is "valid", which holds it out in the test
set's stead, to choose settings by.
"""

import numpy as np

from gmjax.data.files import Config, locate, read_npz
from gmjax.data.sources import build, held_out_name, hold_out
from gmjax.data.user import idx
from gmjax.types import Dataset

DIGITS_TEST = 360


def digits(config: Config) -> Dataset:
    """scikit-learn's 1797 handwritten digits, 8x8 with 17 grey levels.

    1437 train and 360 test, a fixed random split stratified by class, which no setting changes.

    Args:
        config: no keys.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    columns = {
        "x": bunch.images.astype(np.uint8)[..., None],
        "label": bunch.target.astype(np.uint8),
    }
    sides = hold_out(len(bunch.target), DIGITS_TEST, bunch.target)
    train, test = ({k: v[rows] for k, v in columns.items()} for rows in sides)
    return build(train, test, num_values=17, num_classes=10, kind="image", ordinal=True)


def mnist(config: Config) -> Dataset:
    """MNIST at its 256 grey levels: 60000 train, 10000 test, 28x28x1, 10 classes.

    Args:
        config: `dir` (or GMJAX_DATA_DIR), which holds the four idx files in mnist/.
    """
    fixed = {
        "train_file": "mnist/train-images-idx3-ubyte",
        "train_label_file": "mnist/train-labels-idx1-ubyte",
        "test_file": "mnist/t10k-images-idx3-ubyte",
        "test_label_file": "mnist/t10k-labels-idx1-ubyte",
        "num_values": 256,
        "num_classes": 10,
        "kind": "image",
        "degrees": False,
        "ordinal": True,
    }
    return idx({**config, **fixed})


def binarized_mnist(config: Config) -> Dataset:
    """MNIST with one fixed Bernoulli draw a pixel: 28x28x1, 2 values, no labels.

    50000 train; 10000 test (or 10000 validation).

    Args:
        config: `dir` (or GMJAX_DATA_DIR), which holds binarized_mnist/binarized_mnist.npz with
            rows of 784 packed bits; `held_out` ("test").
    """
    held_out = held_out_name(config)
    path = locate(config, "binarized_mnist/binarized_mnist.npz")
    packed = read_npz(path, "train", held_out)
    train, test = (
        {"x": np.unpackbits(packed[side], axis=1, count=784).reshape(-1, 28, 28, 1)}
        for side in ("train", held_out)
    )
    return build(train, test, num_values=2, kind="image")
