import numpy as np
import pytest

from gmjax import data
from gmjax.data import chorales
from gmjax.types import DataSpec, UserError


def pitches(x):
    """[..., 256] tokens -> [..., 64, 4] MIDI pitches, -1 for silence."""
    x = x.reshape(*x.shape[:-1], -1, 4)
    return np.where(x == 0, -1, x + 35)


def load(directory, **keys):
    return data.load({"name": "chorales", "dir": directory, **keys})


def test_windows_are_stretches_of_one_chorale(config_of):
    config = config_of("chorales")
    dataset = data.load(config)
    archive = np.load(f"{config['dir']}/jsb_chorales/jsb16th_satb.npz")
    for side, source, stride in (("train", dataset.train, 4), ("test", dataset.test, 64)):
        parts = np.split(archive[f"{side}_notes"], np.cumsum(archive[f"{side}_lengths"])[:-1])
        want = [p[i : i + 64] for p in parts for i in range(0, len(p) - 63, stride)]
        assert source.size == len(want)
        got = pitches(source.take(np.arange(source.size))["x"])
        np.testing.assert_array_equal(got, want)


def test_first_eighth_is_observed(config_of):
    config = config_of("chorales")
    dataset = data.load(config)
    assert dataset.spec == DataSpec((256,), 47, "sequence")
    observed = dataset.train.take([0, 1])["observed"]
    np.testing.assert_array_equal(observed, [[i < 32 for i in range(256)]] * 2)
    shorter = data.load({**config, "length": 64, "observed": 20})
    assert shorter.test.take([0])["observed"].sum() == 20
    assert shorter.spec.shape == (64,)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"length": 250}, "config.data.length=250; valid: a multiple of 4"),
        ({"length": 0}, "config.data.length=0"),
        ({"length": 4000}, "config.data.length=4000; valid: at most 560"),
        ({"observed": 256}, "config.data.observed=256; valid: 1..255"),
        ({"observed": -1}, "config.data.observed=-1"),
    ],
)
def test_bad_lengths(keys, message, config_of):
    with pytest.raises(UserError, match=message):
        data.load(config_of("chorales", **keys))


def test_encode():
    table = np.array([[60, 55, -1, 36], [81, -1, 48, 36]], np.int8)
    np.testing.assert_array_equal(chorales.encode(table), [25, 20, 0, 1, 46, 0, 13, 1])
    for bad in (35, 82, -2):
        with pytest.raises(UserError, match=f"pitch {bad}"):
            chorales.encode(np.array([[bad, 60, 60, 60]], np.int8))


def test_decode():
    table = np.array([[60, 55, -1, 36], [60, 56, -1, 37], [62, 56, 59, -1]])
    score = chorales.decode(chorales.encode(table)[None])
    assert score == ["S C4 - D4\nA G3 G#3 -\nT . . B3\nB C2 C#2 ."]


def test_real_chorales(real):
    dataset = load(real)
    assert (dataset.train.size, dataset.test.size) == (10_372, 271)
    assert load(real, held_out="valid").test.size == 260
    notes = pitches(dataset.train.take(np.arange(dataset.train.size))["x"])
    assert notes.max() == 81
    assert (notes == -1).mean() < 0.01
    sung = np.where(notes == -1, np.nan, notes)
    means = np.nanmean(sung, axis=(0, 1))
    assert (np.diff(means) < -3).all(), "soprano above alto above tenor above bass"
    held = np.mean(notes[:, 1:] == notes[:, :-1])
    assert held > 0.6, "most notes last longer than a sixteenth"
