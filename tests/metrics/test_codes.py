"""Pictures of codes: every view of every kind of data, and what is computed for them."""

import numpy as np
import pytest
from PIL import Image

from gmjax.metrics import codes
from gmjax.types import DataSpec, UserError

SPECS = {
    "image": DataSpec((4, 5, 1), 6, "image", ordinal=True, num_classes=3),
    "sequence": DataSpec((12,), 6, "sequence"),
    "vector": DataSpec((5,), 6, "vector", ordinal=True),
    "euclidean": DataSpec((5,), 0, "euclidean"),
}


def example(spec, *leading):
    rng = np.random.default_rng(0)
    shape = (*leading, *spec.shape)
    return rng.integers(0, spec.num_values, shape) if spec.num_values else rng.normal(size=shape)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPECS)
def test_every_view_of_every_kind_has_a_picture(kind, tmp_path):
    spec, rng = SPECS[kind], np.random.default_rng(1)
    batch = {"x": example(spec, 30)}
    if spec.num_classes:
        batch["label"] = np.arange(30) % 3
    views = {
        "reconstruction": example(spec, 30),
        "traversal": example(spec, 3, 7),
        "codes": rng.normal(size=(30, 4)),
        "log_weights": rng.normal(size=(5, 30)),
    }
    assert set(views) == set(codes.PICTURES)
    for path in codes.draw(tmp_path, views, batch, spec):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert path.stem in views and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 5


def test_reconstructions_lie_below_their_data(tmp_path):
    spec = DataSpec((4, 5, 1), 2, "image")
    dark, light = np.ones((24, 4, 5, 1), int), np.zeros((24, 4, 5, 1), int)
    path = codes.reconstruction(tmp_path / "r.png", light, {"x": dark}, spec)
    column = np.asarray(Image.open(path).convert("L"))[:, 120]
    runs = column[np.flatnonzero(np.diff(column, prepend=0) != 0)]
    ink, paper = runs[runs < 40], runs[runs > 248]
    assert len(ink) >= 2 and len(paper) >= 2
    assert np.argmax(column < 40) < len(column) - np.argmax(column[::-1] < 40)


def test_a_view_without_a_picture_is_named(tmp_path):
    with pytest.raises(UserError, match="view='dream' is unknown"):
        codes.draw(tmp_path, {"dream": np.zeros(3)}, {}, SPECS["image"])


def test_the_plane_keeps_small_codes_and_most_variance_of_large_ones():
    z = np.random.default_rng(0).normal(size=(500, 4)) * [0.1, 3.0, 0.2, 1.0]
    np.testing.assert_array_equal(codes.plane(z[:, :2])[0], z[:, :2])
    assert codes.plane(z[:, :1])[0].shape == (500, 2)
    at, name = codes.plane(z)
    assert name == "principal component"
    # 500 draws: the axes are found to a few hundredths of their spread.
    np.testing.assert_allclose(at.std(0), [3.0, 1.0], rtol=0.1)


def test_relative_weights_do_not_overflow_and_have_mean_one():
    w = codes.relative(np.array([[1e4, -1e4], [1e4, -1e4 + np.log(3)]]))
    np.testing.assert_allclose(w, [[1, 0.5], [1, 1.5]])
