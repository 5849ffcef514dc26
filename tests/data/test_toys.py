"""The toys are what their names say: moments, supports, and a source apart from the data."""

import numpy as np
import pytest

from gmjax import data
from gmjax.data import toys


@pytest.mark.parametrize("name", toys.LAWS)
def test_the_sets_are_centred_and_fixed(name):
    loaded = data.load({"name": name})
    assert (loaded.spec.shape, loaded.spec.kind) == ((2,), "euclidean")
    assert (loaded.train.size, loaded.test.size) == (toys.TRAIN, toys.TEST)
    x = loaded.train.take(np.arange(toys.TRAIN))["x"]
    assert x.dtype == np.float32 and abs(x.mean(0)).max() < 4.5 * x.std() / toys.TRAIN**0.5
    np.testing.assert_array_equal(x, data.load({"name": name}).train.take(np.arange(len(x)))["x"])


def test_the_supports():
    rng = np.random.default_rng(0)
    x = toys.checkerboard(rng, 1000)
    assert np.all(np.floor(x).sum(1) % 2 == 0) and abs(x).max() <= 2
    assert len({tuple(v) for v in np.floor(x)}) == 8
    r = np.linalg.norm(toys.eight_gaussians(rng, 1000), axis=1)
    assert abs(r.mean() - 1.5) < 0.02


def test_a_source_comes_with_the_data():
    batch = data.load({"name": "moons_from_gaussians"}).train.take(np.arange(1000))
    assert batch["source"].shape == batch["x"].shape and batch["source"].dtype == np.float32
    assert abs(np.linalg.norm(batch["source"], axis=1).mean() - 1.5) < 0.02
    assert abs(np.corrcoef(batch["x"][:, 0], batch["source"][:, 0])[0, 1]) < 4.5 / 1000**0.5
