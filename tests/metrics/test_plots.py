import numpy as np
import pytest
from PIL import Image

from gmjax.metrics import film, plots
from gmjax.types import DataSpec

SHAPES = {"image": (4, 5, 1), "sequence": (12,), "vector": (2,)}


def random_states(kind, *leading, num_values=6):
    return np.random.default_rng(0).integers(0, num_values, (*leading, *SHAPES[kind]))


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def count(path, colour):
    return int((pixels(path) == colour).all(-1).sum())


def test_colours_of_ink_paper_and_mask():
    out = plots.colours(np.array([[[0, 4, 5]]]), 5)
    np.testing.assert_array_equal(out[0, 0], [plots.PAPER, plots.INK, plots.MASK])
    rgb = plots.colours(np.array([[[[0, 2, 4]]]]), 5)
    np.testing.assert_array_equal(rgb[0, 0, 0], [0, 128, 255])


def test_tile_puts_images_row_by_row():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    grid = plots.tile(images, columns=2, zoom=2, gap=1)
    assert grid.shape == (3 * (4 + 1) + 1, 2 * (6 + 1) + 1, 3)
    found = grid[3::5, 3::7, 0]
    np.testing.assert_array_equal(found[:, :2], [[0, 1], [2, 3], [4, plots.GAP[0]]])
    np.testing.assert_array_equal(grid[1:5, 1:7], np.zeros((4, 6, 3)))
    np.testing.assert_array_equal(grid[::5, :, 0], np.full((4, 15), plots.GAP[0]))


@pytest.mark.slow
@pytest.mark.parametrize("ordinal", [False, True])
@pytest.mark.parametrize("kind", SHAPES)
def test_every_kind_has_a_picture(kind, ordinal, tmp_path):
    spec = DataSpec(SHAPES[kind], 6, kind, ordinal)
    x, y = random_states(kind, 2, 30)
    path = plots.picture(spec)(tmp_path / "new" / "picture.png", x, y, 6)
    assert min(pixels(path).shape[:2]) > 400
    assert len(np.unique(pixels(path).reshape(-1, 3), axis=0)) > 5


def test_a_third_panel_for_the_nearest(tmp_path):
    x, y = random_states("image", 2, 9)
    two = plots.sample_grid(tmp_path / "2.png", x, y, 6, side=3)
    three = plots.sample_grid(tmp_path / "3.png", x, y, 6, nearest=y, side=3)
    assert pixels(three).shape[1] == 1.5 * pixels(two).shape[1]


def test_piano_roll_of_several_voices(tmp_path):
    x = np.random.default_rng(1).integers(40, 80, (3, 16, 4))
    one = plots.piano_roll(tmp_path / "1.png", x, x, 128)
    shaded = plots.piano_roll(tmp_path / "2.png", x, x, 128, given=8)
    beige = (0xEC, 0xE8, 0xDC)
    assert count(one, beige) == 0 < 1000 < count(shaded, beige)


def test_joint_histogram_puts_the_first_coordinate_across_and_drops_masks():
    law = plots.joint_histogram(np.array([[2, 0], [2, 0], [1, 2], [3, 0]]), 3)
    expected = np.zeros((3, 3))
    expected[0, 2], expected[2, 1] = 2 / 3, 1 / 3
    np.testing.assert_allclose(law, expected)


def test_value_range_forgets_the_rarest():
    assert plots.value_range(np.array([0] + [40] * 200 + [50] * 200 + [128] * 9), 128) == (40, 50)
    assert plots.value_range(np.full(5, 3), 8) == (3, 4)


@pytest.mark.parametrize("n", [1, 2, 500])
def test_loss_curves(n, tmp_path):
    steps = np.arange(n)
    path = plots.loss_curve(
        tmp_path / "loss.png", {"train": (steps, 1 / (1 + steps)), "held out": ([0], [1.0])}
    )
    assert min(pixels(path).shape[:2]) > 400


@pytest.mark.parametrize("kind", SHAPES)
def test_film_of_every_kind(kind, tmp_path):
    trajectory, times = random_states(kind, 21, 40), np.linspace(1, 0, 21)
    gif, png = film.film(tmp_path / "a" / "film.gif", trajectory, times, 6, kind, frames=8)
    with Image.open(gif) as picture:
        assert picture.n_frames == 8
        assert picture.info["duration"] == 500
        picture.seek(7)
        assert picture.info["duration"] == 2500
    assert png.name == "film.png"
    assert min(pixels(png).shape[:2]) > 150


def test_film_shows_the_mask_and_ends_without_it(tmp_path):
    last = random_states("image", 36)
    trajectory = np.stack([np.full_like(last, 6), last])
    gif, _ = film.film(tmp_path / "film.gif", trajectory, np.array([1.0, 0.0]), 6)
    blue = []
    with Image.open(gif) as picture:
        for frame in range(2):
            picture.seek(frame)
            shown = np.asarray(picture.convert("RGB")).astype(int)[:-34]  # without the caption
            blue.append(np.mean(np.abs(shown - plots.MASK).max(-1) < 12))
    assert blue[0] > 0.8
    assert blue[1] == 0.0


def test_one_frame_is_a_film(tmp_path):
    gif, _ = film.film(tmp_path / "f.gif", random_states("image", 1, 4), np.array([0.0]), 6)
    with Image.open(gif) as picture:
        assert picture.n_frames == 1
