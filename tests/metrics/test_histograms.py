import math
from collections import Counter

import numpy as np
import pytest

from gmjax.metrics import histograms as h


def test_distances_by_hand():
    p, q = np.array([2, 2, 0]), np.array([0, 1, 3])
    assert h.total_variation(p, q) == pytest.approx(0.75)
    # 1 - Bhattacharyya coefficient = 1 - sqrt(1/2 * 1/4)
    assert h.hellinger(p, q) == pytest.approx(math.sqrt(1 - math.sqrt(0.125)))


@pytest.mark.parametrize("distance", [h.total_variation, h.hellinger])
def test_distances_lie_between_equal_and_disjoint(distance):
    p = np.array([3, 1, 0, 0])
    assert distance(p, 5 * p) == pytest.approx(0.0, abs=1e-12)
    assert distance(p, p[::-1]) == pytest.approx(1.0)


def test_ngrams_are_read_in_order():
    x = np.array([[0, 1, 2, 1]])
    np.testing.assert_array_equal(h.ngrams(x, 1, 3), x)
    np.testing.assert_array_equal(h.ngrams(x, 2, 3), [[1, 5, 7]])
    np.testing.assert_array_equal(h.ngrams(x, 4, 3), [[27 * 0 + 9 * 1 + 3 * 2 + 1]])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_ngram_hellinger_against_counting_tuples(n):
    rng = np.random.default_rng(n)
    a, b = rng.integers(0, 4, (7, 9)), rng.integers(0, 4, (5, 11))
    grams = lambda x: Counter(
        tuple(row[i : i + n]) for row in x.tolist() for i in range(len(row) - n + 1)
    )
    first, second = grams(a), grams(b)
    support = sorted(first | second)
    expected = h.hellinger([first[g] for g in support], [second[g] for g in support])
    assert h.ngram_hellinger(a, b, n, 4) == pytest.approx(expected)
    share = sum(c for g, c in first.items() if g not in second) / first.total()
    assert h.outlier_share(a, b, n, 4) == pytest.approx(share)


def test_paired_keeps_the_pairs():
    a, b = np.array([[0, 0], [1, 1]]), np.array([[0, 0], [1, 0]])
    assert h.paired(h.outlier_share, a, b, 1, 2) == 0.0
    assert h.paired(h.outlier_share, b, a, 1, 2) == pytest.approx(0.25)
    assert h.outlier_share(b, a, 1, 2) == 0.0  # pooled: nothing is new
    expected = 0.5 * (0.0 + math.sqrt(1 - math.sqrt(0.5)))
    assert h.paired(h.ngram_hellinger, a, b, 1, 2) == pytest.approx(expected)


def test_joint_hellinger_sees_dependence():
    equal, opposite = np.array([[0, 0], [1, 1]]), np.array([[0, 1], [1, 0]])
    assert h.joint_hellinger(equal, opposite, 2) == pytest.approx(1.0)
    assert h.joint_hellinger(equal, equal[::-1], 2) == pytest.approx(0.0, abs=1e-12)


def test_states_beyond_64_bits_are_told_apart():
    """256 ** 9 states: a number in base 256 wraps."""
    low, high = (np.random.default_rng(0).integers(a, a + 128, (40, 9)) for a in (0, 128))
    assert h.joint_hellinger(low, high, 256) == pytest.approx(1.0)
    assert h.joint_hellinger(low, low[::-1], 256) == pytest.approx(0.0, abs=1e-12)
    words = np.random.default_rng(0).integers(0, 2**31 - 1, (5, 12))
    assert h.ngram_hellinger(words, words[::-1], 3, 2**31 - 1) == pytest.approx(0.0, abs=1e-12)
    assert h.outlier_share(words, words + 1, 3, 2**31) == 1.0
