import numpy as np
import pytest

from gmjax import data
from gmjax.data import earth
from gmjax.types import UserError


def test_from_degrees_on_the_axes():
    degrees = [[90, 17], [-90, 0], [0, 0], [0, 90], [0, -180], [30, 60]]
    expected = [[0, 0, 1], [0, 0, -1], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0.75**0.5 / 2, 0.75, 0.5]]
    np.testing.assert_allclose(earth.from_degrees(degrees), expected, atol=1e-15)


@pytest.mark.parametrize("name", ["volcano", "earthquake", "flood"])
def test_points_are_unit_vectors_and_none_is_lost(name, config_of):
    config = config_of(name)
    sides = [data.load({**config, "held_out": side}) for side in ("test", "valid")]
    assert [(d.train.size, d.test.size) for d in sides] == [(40, 5)] * 2
    sources = sides[0].train, sides[0].test, sides[1].test
    x = np.concatenate([s.take(np.arange(s.size))["x"] for s in sources])
    # Three coordinates in (-1, 1), each rounded to float32: 2^-25 apiece at most.
    np.testing.assert_allclose(np.linalg.norm(x.astype(float), axis=1), 1, atol=3**0.5 * 2**-24)
    degrees = np.random.default_rng(0).uniform((-90, -180), (90, 180), (50, 2)).round(3)
    expected = earth.from_degrees(degrees).astype(np.float32)
    np.testing.assert_array_equal(x[np.lexsort(x.T)], expected[np.lexsort(expected.T)])


def test_the_split_is_that_of_its_seed(config_of):
    config = config_of("flood")
    held = lambda **keys: data.load({**config, **keys}).test.take(np.arange(5))["x"]
    np.testing.assert_array_equal(held(), held(split_seed=0))
    assert (held() != held(split_seed=1)).any()
    for seed in (-1, 0.5, True, "0"):
        with pytest.raises(UserError, match=r"config.data.split_seed=.*; valid: an integer of at"):
            held(split_seed=seed)
    with pytest.raises(UserError, match="config.data.held_out='train'; valid: test, valid"):
        held(held_out="train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lat,long\n", "valid: rows of latitude, longitude in degrees"),
        ("1,2\n3,4,5\n", "valid: rows of latitude"),
        ("1,2\n3,west\n", "valid: rows of latitude"),
        ("1,2\n91,4\n", r"\(91.0, 4.0\); valid: -90..90"),
        ("1,2\n1,nan\n", r"\(1.0, nan\); valid: -90..90"),
    ],
)
def test_bad_tables(text, message, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        earth.read_degrees(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("name", "size"), [("volcano", 827), ("earthquake", 6120), ("flood", 4875)]
)
def test_real_events(name, size, real):
    """As many as the papers count; mean latitudes of the tables by another reader."""
    dataset = data.load({"name": name, "dir": real})
    valid = data.load({"name": name, "dir": real, "held_out": "valid"})
    assert dataset.train.size + dataset.test.size + valid.test.size == size
    assert dataset.test.size == valid.test.size == size // 10
    stem = {"volcano": "volerup", "earthquake": "quakes_all", "flood": "flood"}[name]
    skip = {"volcano": 2, "earthquake": 4, "flood": 2}[name]
    path = f"{real}/earth_sphere/{stem}.csv"
    latitude = np.genfromtxt(path, delimiter=",", skip_header=skip)[:, 0]
    sources = dataset.train, dataset.test, valid.test
    x = np.concatenate([s.take(np.arange(s.size))["x"] for s in sources])
    found = np.degrees(np.arcsin(np.clip(x[:, 2].astype(float), -1, 1)))
    np.testing.assert_allclose(np.sort(found), np.sort(latitude), atol=1e-5)
