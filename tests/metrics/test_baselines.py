import itertools

import numpy as np
import pytest
from scipy.stats import chisquare

from gmjax.metrics.baselines import independent, mixture


@pytest.fixture
def labelled():
    x = np.array([[0, 2], [0, 1], [1, 2], [2, 2], [2, 0]])
    return x, np.array([3, 3, 3, 7, 7])


def every_state():
    return np.array(list(itertools.product(range(3), repeat=2)))


def test_independent_by_hand(labelled):
    x, _ = labelled
    model = independent(x, 3, smoothing=1.0)
    # Columns: counts (2, 1, 2) and (1, 1, 3), each + 1, over 5 + 3.
    expected = np.log(np.array([3 / 8 * 4 / 8, 2 / 8 * 2 / 8]))
    np.testing.assert_allclose(model.log_prob(np.array([[0, 2], [1, 1]])), expected)


def test_mixture_by_hand(labelled):
    model = mixture(*labelled, 3, smoothing=0.5)
    # Class 3 (3 of 5): (2.5, 1.5, .5) / 4.5 and (.5, 1.5, 2.5) / 4.5.
    # Class 7 (2 of 5): (.5, .5, 2.5) / 3.5 and (1.5, .5, 1.5) / 3.5.
    p = 3 / 5 * (2.5 / 4.5) * (2.5 / 4.5) + 2 / 5 * (0.5 / 3.5) * (1.5 / 3.5)
    np.testing.assert_allclose(model.log_prob(np.array([[0, 2]])), np.log(p))


@pytest.mark.parametrize("labels", [False, True])
def test_probabilities_sum_to_one(labelled, labels):
    x, label = labelled
    model = mixture(x, label, 3) if labels else independent(x, 3)
    assert np.exp(model.log_prob(every_state())).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("labels", [False, True])
def test_sampler_follows_the_likelihood(labelled, labels):
    # Chi-square over all nine states, 20000 draws, significance 1e-3.
    x, label = labelled
    model = mixture(x, label, 3) if labels else independent(x, 3)
    draws = model.sample(np.random.default_rng(0), 20_000)
    observed = np.bincount(draws @ [3, 1], minlength=9)
    expected = 20_000 * np.exp(model.log_prob(every_state()))
    assert chisquare(observed, expected).pvalue > 1e-3


def test_shape_and_range_of_samples():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 5, (20, 3, 4, 1))
    draws = independent(x, 5).sample(rng, 7)
    assert draws.shape == (7, 3, 4, 1)
    assert draws.min() >= 0
    assert draws.max() <= 4
    assert independent(x, 5).log_prob(draws).shape == (7,)
