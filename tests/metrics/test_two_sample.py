import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance
from sklearn.datasets import load_digits

from gmjax.metrics import two_sample as ts

SCIPY = {"euclidean": lambda x, y: cdist(x, y), "hamming": lambda x, y: cdist(x, y, "hamming")}


@pytest.fixture
def integers():
    rng = np.random.default_rng(0)
    return rng.integers(0, 3, (23, 4)), rng.integers(0, 3, (17, 4))


def brute_accuracy(x, y, distance):
    pool = np.concatenate([x, y])
    side = [0] * len(x) + [1] * len(y)
    scores = []
    for i in range(len(pool)):
        rest = [j for j in range(len(pool)) if j != i]
        d = {j: round(float(distance(pool[i : i + 1], pool[j : j + 1])[0, 0]), 9) for j in rest}
        tied = [j for j in rest if d[j] == min(d.values())]
        scores.append(sum(side[j] == side[i] for j in tied) / len(tied))
    return np.mean(scores)


@pytest.mark.parametrize("metric", ts.DISTANCES)
def test_distances_against_scipy(metric, integers):
    x, y = integers
    scale = 4 if metric == "hamming" else 1  # ours counts coordinates, theirs takes the mean
    np.testing.assert_allclose(ts.DISTANCES[metric](x, y), scale * SCIPY[metric](x, y), atol=1e-12)


def test_equal_large_integers_are_at_distance_exactly_zero():
    x = np.random.default_rng(1).integers(0, 256, (5, 784))
    assert np.all(np.diag(ts.DISTANCES["euclidean"](x, x)) == 0.0)


@pytest.mark.parametrize("metric", ts.DISTANCES)
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_nearest_against_the_full_table(metric, chunk, integers):
    x, y = integers
    table = SCIPY[metric](x, y)
    distance, index = ts.nearest(x, y, metric, chunk)
    scale = 4 if metric == "hamming" else 1
    np.testing.assert_allclose(distance, scale * table.min(1), atol=1e-12)
    np.testing.assert_array_equal(index, table.round(9).argmin(1))


@pytest.mark.parametrize("metric", ts.DISTANCES)
@pytest.mark.parametrize("chunk", [3, 1000])
def test_accuracy_against_brute_force(metric, chunk, integers):
    x, y = integers[0][:17], integers[1]
    expected = brute_accuracy(x, y, SCIPY[metric])
    assert ts.nn_accuracy(x, y, metric, chunk=chunk) == pytest.approx(expected)


def test_accuracy_splits_ties_by_hand():
    # Both points of x: 1/2 (the twin, or y's 0). y's 0: 0. y's 1: one of three at distance 1.
    x, y = np.array([[0], [0]]), np.array([[0], [1]])
    assert ts.nn_accuracy(x, y) == pytest.approx((0.5 + 0.5 + 0.0 + 1 / 3) / 4)


def test_accuracy_of_each_side():
    # By hand as above: 1/2 on x; 0 and 1/3 on y.
    x, y = np.array([[0], [0]]), np.array([[0], [1]])
    assert ts.nn_accuracies(x, y) == pytest.approx((0.5, 1 / 6))
    assert ts.nn_accuracies(y, x) == pytest.approx((1 / 6, 0.5))


def test_noisy_copies_show_only_in_the_two_sides():
    # Points on a line in 200 dimensions, and the same points pushed off it: squared distances
    # are 2 +- .2 to the line and 4 +- .4 among the noisy, so all nearest ones are on the line.
    rng = np.random.default_rng(10)
    line = np.linspace(0, 1, 100)[:, None] * np.ones(200)
    noisy = line + 0.1 * rng.normal(size=line.shape)
    of_noise, of_line = ts.nn_accuracies(noisy, line)
    assert of_noise < 0.1
    assert of_line > 0.9
    assert 0.4 < ts.nn_accuracy(noisy, line) < 0.6


def test_accuracy_knows_no_order_and_no_favourite(integers):
    x, y = integers[0][:17], integers[1]
    order = np.random.default_rng(2).permutation(17)
    value = ts.nn_accuracy(x, y)
    assert ts.nn_accuracy(x[order], y) == pytest.approx(value)
    assert ts.nn_accuracy(y, x) == pytest.approx(value)


def test_accuracy_of_separate_collapsed_and_copied_sets():
    rng = np.random.default_rng(3)
    y = rng.normal(size=(50, 3))
    assert ts.nn_accuracy(y + 100.0, y) == 1.0
    assert ts.nn_accuracy(np.repeat(y[:1], 50, 0), y) > 0.7
    assert ts.nn_accuracy(y.copy(), y) == 0.0


def test_accuracy_under_the_null():
    # 60 independent draws; each mean is (n - 1) / (2n - 1) exactly. 4 standard errors: p < 1e-4.
    rng = np.random.default_rng(4)
    draws = [ts.nn_accuracy(*rng.normal(size=(2, 40, 3))) for _ in range(60)]
    error = np.std(draws, ddof=1) / np.sqrt(60)
    assert abs(np.mean(draws) - 39 / 79) < 4 * error
    assert error < 0.02


def test_accuracy_uses_all_of_the_larger_set():
    rng = np.random.default_rng(5)
    y = rng.normal(size=(20, 2))
    x = np.concatenate([y + 1e-6, rng.normal(size=(20, 2)) + 50.0])
    halves = [ts._loo_accuracies(x[b], y, "euclidean", 100) for b in ts.blocks(40, 20, 4)]
    assert len(halves) == 2
    assert ts.nn_accuracy(x, y) == pytest.approx(np.mean(halves))


def test_blocks_cover_everything_without_repeating_inside():
    found = ts.blocks(10, 4, 8)
    assert len(found) == 3
    assert all(len(set(b.tolist())) == 4 for b in found)
    assert set(np.concatenate(found).tolist()) == set(range(10))
    assert len(ts.blocks(10, 4, 2)) == 2
    np.testing.assert_array_equal(np.sort(ts.blocks(5, 5, 8)[0]), np.arange(5))


def test_a_copy_is_one_in_another_precision_and_with_another_sign_of_zero():
    x = np.random.default_rng(0).normal(size=(4, 3))
    x[0, 0] = 0.0
    y = x.astype(np.float32)
    y[0, 0] = -0.0
    assert ts.memorised_share(x, y) == ts.memorised_share(y, x) == 1.0
    assert ts.memorised_share(y + np.float32(1), x) == 0.0


def test_memorised_share_counts_exact_copies_across_dtypes():
    train = np.array([[0, 1], [2, 3], [4, 4]], np.uint8)
    samples = np.array([[2, 3], [3, 2], [0, 1], [0, 1]], np.int32)
    assert ts.memorised_share(samples, train) == 0.75
    assert ts.memorised_share(samples.reshape(4, 2, 1), train.reshape(3, 2, 1)) == 0.75


def test_ratio_by_hand():
    train, test = np.array([[0], [10]]), np.array([[4], [10]])
    samples = np.array([[1], [9]])
    assert ts.nn_ratio(samples, train, test) == pytest.approx((1 + 1) / (3 + 1))
    assert ts.nn_ratio(train, train, train) == 1.0


def test_ratio_of_equal_sizes_is_inverted_by_exchange():
    samples, train, test = np.random.default_rng(6).normal(size=(3, 30, 4))
    forth, back = ts.nn_ratio(samples, train, test), ts.nn_ratio(samples, test, train)
    assert forth * back == pytest.approx(1.0)


def test_ratio_is_one_for_new_data_whatever_the_sizes_and_falls_with_copies():
    # Unequal sizes both ways. Ten random splits of the digits: the mean of nearly unbiased
    # ratios within 3 standard errors (and .02) of 1; splits overlap, so the error is indicative.
    x = load_digits().data.astype(int)
    for m, k in ((1000, 300), (300, 1000)):
        new, copied = [], []
        for seed in range(10):
            order = np.random.default_rng(seed).permutation(len(x))
            train, test, fresh = np.split(x[order[: m + k + 400]], [m, m + k])
            new.append(ts.nn_ratio(fresh, train, test))
            copied.append(ts.nn_ratio(train[:300], train, test))
        error = np.std(new, ddof=1) / np.sqrt(len(new))
        assert abs(np.mean(new) - 1.0) < min(3 * error, 0.02)
        assert max(copied) < 0.85


def test_mmd_against_its_double_sum():
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(4, 2)) + 1.0
    pool = np.concatenate([x, y])
    width = np.median([np.linalg.norm(pool[i] - pool[j]) for i in range(10) for j in range(i)])
    k = lambda a, b: np.exp(-np.sum((a - b) ** 2) / (2 * width**2))
    off = lambda z: np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])
    expected = off(x) + off(y) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert ts.mmd(x, y) == pytest.approx(expected)


def test_mmd_is_unbiased():
    # 200 independent draws under the null; 4 standard errors.
    rng = np.random.default_rng(8)
    draws = [ts.mmd(*rng.normal(size=(2, 12, 2))) for _ in range(200)]
    assert abs(np.mean(draws)) < 4 * np.std(draws, ddof=1) / np.sqrt(200)


def test_sliced_wasserstein_on_a_line():
    # In one dimension every projection is +-x: the exact W2, for unequal sizes too.
    x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [3.0], [6.0]])
    # Couplings by quantile: [0,1/3): 0-0, [1/3,1/2): 0-3, [1/2,2/3): 1-3, [2/3,1): 1-6.
    expected = np.sqrt(9 / 6 + 4 / 6 + 25 / 3)
    assert ts.sliced_wasserstein(x, y) == pytest.approx(expected)
    # W1 of scipy bounds W2 from below.
    assert wasserstein_distance(x[:, 0], y[:, 0]) <= expected


def test_sliced_wasserstein_of_a_shift():
    # E (u . v)^2 = |v|^2 / D for a uniform direction u; 4000 lines: 5 standard errors are
    # 5 |v|^2 / D sqrt(2 / 4000) at most in the square.
    x = np.random.default_rng(9).normal(size=(50, 5))
    shift = np.arange(5.0)
    square = ts.sliced_wasserstein(x, x + shift, projections=4000) ** 2
    mean = shift @ shift / 5
    assert abs(square - mean) < 5 * mean * np.sqrt(2 / 4000)
    assert ts.sliced_wasserstein(x, x[::-1]) == pytest.approx(0.0, abs=1e-12)
