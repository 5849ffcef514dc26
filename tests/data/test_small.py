"""The small real sets: their sizes, their spaces and their scales."""

import numpy as np

from gmjax import data


def both(name, directory=""):
    dataset = data.load({"name": name, "dir": directory})
    return dataset.spec, *(s.take(np.arange(s.size)) for s in (dataset.train, dataset.test))


def test_banknotes_are_standardised_on_the_training_rows(real):
    spec, train, test = both("banknote", real)
    assert spec.shape == (4,) and spec.kind == "euclidean" and spec.num_classes == 2
    assert len(train["x"]) + len(test["x"]) == 1372 - 137 and len(test["x"]) == 137
    np.testing.assert_allclose(train["x"].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train["x"].std(0), 1, rtol=1e-5)
    assert train["x"].dtype == np.float32


def test_weights_are_positive_with_mean_one(real):
    spec, train, test = both("abalone_weights", real)
    assert spec.shape == (4,) and spec.kind == "half_line"
    assert train["x"].min() > 0 and test["x"].min() > 0
    np.testing.assert_allclose(train["x"].mean(0), 1, rtol=1e-4)
    # The whole weighs more than the meat: the columns are the right ones, in their order.
    mean_grams = np.array([0.829, 0.359, 0.181, 0.239])
    assert np.argmax(mean_grams) == 0
    assert np.mean(train["x"][:, 0] * mean_grams[0] > train["x"][:, 1] * mean_grams[1]) > 0.99


def test_digits_are_counts():
    spec, train, test = both("digit_counts")
    assert spec.shape == (64,) and spec.kind == "counts" and spec.num_values == 0
    assert (len(train["x"]), len(test["x"])) == (1437, 360)
    assert train["x"].dtype == np.int32 and train["x"].min() == 0 and train["x"].max() == 16
