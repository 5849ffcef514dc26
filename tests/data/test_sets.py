"""The named sets: their published numbers, where the real files are at hand."""

from pathlib import Path

import numpy as np
import pytest

from gmjax import data
from gmjax.types import DataSpec, UserError


def all_of(source):
    return source.take(np.arange(source.size))


def test_digits():
    dataset = data.load({"name": "digits"})
    assert dataset.spec == DataSpec((8, 8, 1), 17, "image", True, 10)
    train, test = all_of(dataset.train), all_of(dataset.test)
    assert (len(train["x"]), len(test["x"])) == (1437, 360)
    both = np.bincount(np.concatenate([train["label"], test["label"]]))
    np.testing.assert_array_equal(both, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    share = np.bincount(test["label"]) / both * 1797 / 360
    assert np.abs(share - 1).max() < 0.02, "stratified: each class to within one example"
    assert train["x"].max() == test["x"].max() == 16
    images = {x.tobytes() for x in train["x"]} & {x.tobytes() for x in test["x"]}
    assert not images
    other = data.load({"name": "digits", "dir": "/nowhere"})
    np.testing.assert_array_equal(all_of(other.test)["x"], test["x"])
    # The split itself: changing it would change every figure ever reported on it.
    weights = np.arange(1, 361)
    assert (test["x"].sum((1, 2, 3)) * weights).sum() == DIGITS_CHECKSUM


DIGITS_CHECKSUM = 20378737


def test_mnist(real):
    dataset = data.load({"name": "mnist", "dir": real})
    assert dataset.spec == DataSpec((28, 28, 1), 256, "image", True, 10)
    train, test = all_of(dataset.train), all_of(dataset.test)
    np.testing.assert_array_equal(
        np.bincount(train["label"]),
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    )
    np.testing.assert_array_equal(
        np.bincount(test["label"]), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )
    assert abs(train["x"].mean() / 255 - 0.1307) < 5e-5, "the mean everyone normalises by"
    assert train["label"][0] == 5
    assert train["x"].max() == 255


def test_binarized_mnist(real):
    config = {"name": "binarized_mnist", "dir": real}
    dataset = data.load(config)
    assert dataset.spec == DataSpec((28, 28, 1), 2, "image")
    valid = data.load({**config, "held_out": "valid"})
    sizes = [s.size for s in (dataset.train, valid.train, valid.test, dataset.test)]
    assert sizes == [50000, 50000, 10000, 10000]
    means = [all_of(s)["x"].mean() for s in (dataset.train, valid.test, dataset.test)]
    np.testing.assert_allclose(means, [0.1306, 0.1311, 0.1325], atol=5e-5)
    # An image is a digit, not noise: neighbouring pixels agree.
    x = dataset.train.take(np.arange(1000))["x"][..., 0]
    assert np.mean(x[:, 1:] == x[:, :-1]) > 0.9
    assert np.mean(x[:, :, 1:] == x[:, :, :-1]) > 0.9


@pytest.mark.parametrize("name", ["binarized_mnist", "chorales"])
def test_held_out(name, config_of):
    config = config_of(name)
    test, valid = (data.load({**config, "held_out": h}).test for h in ("test", "valid"))
    assert not np.array_equal(test.take([0])["x"], valid.take([0])["x"])
    with pytest.raises(UserError, match="config.data.held_out='train'; valid: test, valid"):
        data.load({**config, "held_out": "train"})


def test_shakespeare(real):
    config = {"name": "shakespeare", "dir": real}
    dataset = data.load(config)
    assert dataset.spec == DataSpec((128,), 65, "sequence")
    assert dataset.train.size == 1_003_855 - 127
    assert dataset.test.size == 111_539 // 128
    decode = data.decoder(config)
    assert decode(dataset.train.take([0])["x"])[0].startswith("First Citizen:\nBefore we proceed")
    pieces = decode(all_of(dataset.test)["x"])
    whole = Path(f"{real}/tiny_shakespeare/input.txt").read_text()
    assert "".join(pieces) == whole[1_003_855:][: len(pieces) * 128]
    assert data.load({**config, "length": 64}).spec.shape == (64,)


def test_promoters(real):
    config = {"name": "promoters", "dir": real}
    dataset = data.load(config)
    assert dataset.spec == DataSpec((300,), 4, "sequence")
    assert (dataset.train.size, dataset.test.size) == (2636, 293)
    strings = data.decoder(config)(all_of(dataset.train)["x"])
    assert set("".join(strings)) == set("ACGT")
    # The collection is of promoters with a TATA box, about 30 before the start of transcription.
    test = data.decoder(config)(all_of(dataset.test)["x"])
    boxes = np.mean([["TATA" in s[200:250], "TATA" in s[100:150]] for s in test], axis=0)
    assert boxes[0] > 2 * boxes[1]
