import numpy as np
import pytest

from gmjax.metrics.features import encode, fit_classifier


def test_accuracy_confidence_and_shapes(digits, classifier):
    label, confidence = classifier.classify(digits.test)
    assert np.mean(label == digits.test_label) > 0.96
    assert 0.9 < np.mean(confidence > 0.9) < 1.0
    assert confidence.max() <= 1.0
    features = classifier.features(digits.test)
    assert features.shape == (len(digits.test), 32)
    assert features.min() == 0.0


def test_features_carry_the_prediction(digits, classifier):
    # Class means in feature space recognise held-out digits: the right layer, not noise.
    train, test = classifier.features(digits.train), classifier.features(digits.test)
    means = np.stack([train[digits.train_label == c].mean(0) for c in range(10)])
    guess = np.square(test[:, None] - means).sum(-1).argmin(1)
    assert np.mean(guess == classifier.classify(digits.test)[0]) > 0.9


def test_the_same_data_give_the_same_network(digits, classifier):
    again = fit_classifier(digits.train, digits.train_label, 17)
    np.testing.assert_array_equal(again.features(digits.test), classifier.features(digits.test))


def test_encode_scales_or_expands():
    x = np.array([[[0], [2]]])
    np.testing.assert_allclose(encode(x, 3, ordinal=True), [[0.0, 1.0]])
    np.testing.assert_array_equal(encode(x, 3, ordinal=False), [[1, 0, 0, 0, 0, 1]])


@pytest.mark.parametrize("ordinal", [True, False])
def test_labels_keep_their_names(ordinal):
    rng = np.random.default_rng(0)
    label = rng.choice([4, 9], 80)
    x = np.where(label[:, None] == 4, 0, 2) + rng.integers(0, 2, (80, 6))
    guess, _ = fit_classifier(x, label, 4, ordinal).classify(x)
    np.testing.assert_array_equal(guess, label)
