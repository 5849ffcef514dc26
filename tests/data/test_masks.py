"""Which entries are given."""

import pytest

from gmjax.data import masks
from gmjax.types import DataSpec, UserError


def test_halves_and_the_border_of_an_image():
    spec = DataSpec((4, 6, 1), 17, "image")
    assert (masks.mask("top", spec)[..., 0].all(1) == [True, True, False, False]).all()
    assert (masks.mask("left", spec)[..., 0].all(0) == [True] * 3 + [False] * 3).all()
    border = masks.mask("border", spec)[..., 0]
    assert not border[1:3, 1:5].any() and border.sum() == 16


def test_the_start_of_a_row():
    assert (masks.mask("start", DataSpec((3,), 0, "euclidean")) == [True, False, False]).all()


@pytest.mark.parametrize("name, kind, text", [
    ("start", "image", "config.sample.observed='start' is unknown; valid: border, left, top"),
    ("top", "sphere", "is for kinds image, sequence, vector, euclidean; the data are 'sphere'"),
])  # fmt: skip
def test_other_names_are_refused(name, kind, text):
    with pytest.raises(UserError) as said:
        masks.mask(name, DataSpec((4, 4, 1), 17, kind))
    assert text in str(said.value)
