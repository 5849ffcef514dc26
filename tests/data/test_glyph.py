import numpy as np
from scipy import stats

from gmjax import data


def test_pmf():
    pmf = data.glyph_pmf()
    assert pmf.shape == (32, 32)
    assert pmf.dtype == np.float64
    assert abs(pmf.sum() - 1) < 1e-12
    assert pmf.min() == 0
    assert 0.2 < (pmf > 0).mean() < 0.6
    assert pmf[15:17, 5:7].min() > 50 * pmf[10:14, 12:20].max(), "ink on the left, none inside"
    # Neither symmetric nor a product: transposed and swapped axes would be noticed.
    for other in (pmf.T, pmf[::-1], pmf[:, ::-1], np.outer(pmf.sum(1), pmf.sum(0))):
        assert np.abs(pmf - other).sum() / 2 > 0.1


def test_points_follow_the_pmf():
    """Chi-square goodness of fit over the cells, each split at significance 1e-4."""
    dataset = data.load({"name": "glyph"})
    assert (dataset.train.size, dataset.test.size) == (1_000_000, 100_000)
    pmf = data.glyph_pmf()
    for source in (dataset.train, dataset.test):
        x = source.take(np.arange(source.size))["x"]
        counts = np.zeros((32, 32))
        np.add.at(counts, (x[:, 0], x[:, 1]), 1)
        assert counts[pmf == 0].sum() == 0
        common = pmf * source.size >= 5
        rare = ~common & (pmf > 0)
        observed = np.append(counts[common], counts[rare].sum())
        expected = np.append(pmf[common], pmf[rare].sum()) * source.size
        if not rare.any():
            observed, expected = observed[:-1], expected[:-1]
        assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_points_are_always_the_same_and_the_splits_differ():
    a, b = (data.load({"name": "glyph"}) for _ in range(2))
    rows = np.arange(1000)
    np.testing.assert_array_equal(a.train.take(rows)["x"], b.train.take(rows)["x"])
    assert (a.train.take(rows)["x"] == a.test.take(rows)["x"]).all(1).mean() < 0.1
