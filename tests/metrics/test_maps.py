import jax
import numpy as np
import pytest
from metrics.states import SPECS, states
from PIL import Image
from scipy.spatial.transform import Rotation
from scipy.special import gammaln

from gmjax.metrics import geometry, maps, plots, views
from gmjax.types import UserError


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def blue(path):
    """Where samples are drawn in the colour of samples."""
    return pixels(path)[..., 2] - pixels(path)[..., 0] > 60


def test_every_space_has_a_picture():
    assert set(maps.PICTURES) == set(geometry.GEOMETRIES) - {"classes"} | set(geometry.PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPECS)
def test_pictures_show_samples_and_data(kind, tmp_path):
    path = maps.PICTURES[kind](tmp_path / "new" / f"{kind}.png", states(kind, 60), states(kind, 50))
    assert min(pixels(path).shape[:2]) > 300
    assert len(np.unique(pixels(path).reshape(-1, 3), axis=0)) > 20
    if kind not in ("rotations", "poses"):  # which are drawn in all colours
        assert blue(path).sum() > 100


def test_samples_stand_left_and_data_right(tmp_path):
    """One place each: its dots lie in its own half, and the limits are those of the data."""
    left, right = np.full((50, 2), -1.0), np.full((50, 2), 1.0)
    data = np.concatenate([left, right])
    path = maps.PICTURES["euclidean"](tmp_path / "a.png", left, data)
    dots = blue(path)
    y, x = (size // 2 for size in dots.shape)
    assert dots[y:, :x].any()
    assert not dots[:y, :x].any()
    assert dots[y:, x:].any()
    assert dots[:y, x:].any()


@pytest.mark.parametrize(
    ("kind", "shape", "count"),
    [
        ("torus", (1,), 1),
        ("torus", (3,), 3),
        ("torus", (7,), 6),
        ("sphere", (4,), 6),
        ("simplex", (2,), 1),
        ("simplex", (6,), 1),
        ("hyperbolic", (2,), 1),
        ("counts", (1,), 1),
        ("counts", (25,), 1),
        ("euclidean", (3,), 3),
        ("euclidean", (9,), 1),
        ("half_line", (4,), 6),
    ],
)
def test_other_dimensions(kind, shape, count, tmp_path):
    x = np.random.default_rng(0).dirichlet(np.ones(shape[0]), 40)
    x = np.round(10 * x).astype(int) if kind == "counts" else x
    assert len(views.PANELS[kind](x)) == count
    if count == 1:
        assert pixels(maps.PICTURES[kind](tmp_path / "a.png", x[:20], x[20:])).shape[1] > 300


UNSEEN = {
    ("torus", 4): "",
    ("torus", 7): "all 7 angles, in 6 of 21 pairs",
    ("torus", 30): "the first 13 of 30 angles, in 12 of 435 pairs",
    ("euclidean", 4): "",
    ("euclidean", 9): "the plane of two of 9 principal components",
    ("sphere", 6): "the plane of two of 6 principal components",
    ("half_line", 5): "the plane of two of 5 principal components",
    ("counts", 24): "the plane of two of 24 principal components",
    ("simplex", 3): "",
    ("simplex", 6): "two of 6 parts, the rest summed",
    ("hyperbolic", 3): "",
    ("hyperbolic", 4): "two of 3 coordinates",
}


@pytest.mark.parametrize(("kind", "size"), UNSEEN)
def test_pictures_say_what_of_the_states_they_do_not_show(kind, size, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(maps, "save", lambda figure, path: figures.append(figure) or path)
    x = np.random.default_rng(0).dirichlet(np.ones(size), 40)
    x = np.round(10 * x).astype(int) if kind == "counts" else x
    maps.PICTURES[kind](tmp_path / "a.png", x[:20], x[20:])
    assert figures[-1].get_supxlabel() == UNSEEN[kind, size]


def test_every_one_of_seven_angles_is_shown(tmp_path, monkeypatch):
    x = np.zeros((5, 7))
    panels = views.PANELS["torus"](x)
    assert {i for panel in panels for i in panel.draw.keywords["pair"]} == set(range(7))
    figures = []
    monkeypatch.setattr(maps, "save", lambda figure, path: figures.append(figure) or path)
    maps.film(tmp_path / "f.gif", x[None], np.zeros(1), "torus", stills=1)
    assert figures[-1].get_supxlabel() == "the first 3 of 6 views"


def test_names_go_to_the_axes():
    from gmjax.metrics.plots import canvas

    _, axes = canvas(3, 3)
    x = states("torus", 20)
    views.PANELS["torus"](x, ("phi", "psi"))[0].draw(axes[0, 0], x)
    assert axes[0, 0].get_xlabel() == "phi, degrees"
    assert axes[0, 0].get_ylabel() == "psi, degrees"
    x = states("table", 20)
    names = {"numeric": ("length", "age"), "classes": ("sex", "colour")}
    labels = []
    for panel in views.PANELS["table"](x, names):
        _, axes = canvas(3, 3)
        panel.draw(axes[0, 0], x)
        labels.append(axes[0, 0].get_xlabel())
    assert labels == ["sex", "colour", "length", "age"]


def test_histograms_have_the_area_that_lies_inside():
    _, axes = plots.canvas(3, 3)
    ax = axes[0, 0]
    real = np.random.default_rng(0).normal(size=4000)
    far = np.concatenate([real[:3000], np.full(1000, 50.0)])
    views.PANELS["euclidean"](real[:, None])[0].draw(ax, far[:, None])
    areas = [np.sum(p.get_data().values * np.diff(p.get_data().edges)) for p in ax.patches]
    assert areas[0] == pytest.approx(1.0, abs=0.01)
    assert areas[1] == pytest.approx(0.75, abs=0.01)


def test_many_coordinates_are_seen_in_the_principal_plane():
    """A line in ten dimensions: all of its length lies along the first axis."""
    along = np.random.default_rng(0).normal(size=(200, 1))
    x = 3.0 + along * np.linspace(1, 2, 10)
    _, axes = plots.canvas(3, 3)
    views.PANELS["euclidean"](x)[0].draw(axes[0, 0], x)
    at = np.asarray(axes[0, 0].collections[0].get_offsets())
    length = np.linalg.norm(np.linspace(1, 2, 10))
    np.testing.assert_allclose(np.abs(at[:, 0]), np.abs(along - along.mean())[:, 0] * length)
    np.testing.assert_allclose(at[:, 1], 0, atol=1e-9)


def test_tilt_is_the_turn_about_where_the_axis_goes():
    """R = (shortest turn of e_x to d) Rx(a): the tilt is a."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(-3, 3, 50)
    d = rng.normal(size=(50, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    axis = np.cross(np.eye(3)[0], d)
    axis *= (np.arccos(d[:, 0]) / np.linalg.norm(axis, axis=1))[:, None]
    turn = Rotation.from_rotvec(axis) * Rotation.from_rotvec(angle[:, None] * np.eye(3)[0])
    np.testing.assert_allclose(turn.as_matrix()[:, :, 0], d, atol=1e-12)
    np.testing.assert_allclose(views.tilt(turn.as_matrix()), angle, atol=1e-10)
    assert np.isfinite(views.tilt(np.diag([-1.0, -1.0, 1.0])[None])).all()


def test_longitude_and_latitude():
    x = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1 + 1e-7], [-(0.5**0.5), 0, -(0.5**0.5)]])
    found = np.degrees(views.longitude_latitude(x))
    np.testing.assert_allclose(found, [[0, 90, 0, 180], [0, 0, 90, -45]], atol=1e-9)


@pytest.mark.parametrize("kind", SPECS)
def test_films_of_every_kind(kind, tmp_path):
    x = states(kind, 40)
    trajectory = jax.tree.map(lambda a: np.stack([a, a[::-1], a, a, a]), x)
    gif, png = maps.film(
        tmp_path / "a" / "film.gif", trajectory, np.linspace(1, 0, 5), kind, frames=3, stills=2
    )
    with Image.open(gif) as picture:
        assert picture.n_frames == 3
        assert picture.info["duration"] == 500
        assert min(picture.size) > 100
    assert png == tmp_path / "a" / "film.png"
    assert min(pixels(png).shape[:2]) > 100


def test_the_limits_of_a_film_are_those_of_the_data(tmp_path):
    """Data a hundred times as wide: the samples become a spot in the middle."""
    x = np.broadcast_to(states("euclidean", 100), (2, 100, 2))
    wide = []
    for scale in (1.0, 100.0):
        real = scale * states("euclidean", 100)
        _, png = maps.film(tmp_path / "f.gif", x, np.zeros(2), "euclidean", real=real)
        wide.append(np.ptp(np.nonzero(blue(png)[:, : blue(png).shape[1] // 2])[0]))
    assert wide[1] < 0.1 * wide[0]


def test_frames_do_not_shake_and_end_as_they_should(tmp_path):
    """A film that stands still: equal frames but for the caption."""
    x = np.broadcast_to(states("torus", 100), (3, 100, 2))
    gif, _ = maps.film(tmp_path / "f.gif", x, np.linspace(1, 0, 3), "torus")
    frames = []
    with Image.open(gif) as picture:
        for k in range(3):
            picture.seek(k)
            frames.append(np.asarray(picture.convert("RGB")).astype(int)[:-34])
    assert np.abs(frames[0] - frames[1]).max() < 16
    assert np.abs(frames[0] - frames[2]).max() < 16


@pytest.mark.parametrize("kind", ["euclidean", "half_line", "rotations", "simplex", "table"])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_samples_that_are_not_finite_do_not_end_a_run(kind, tmp_path):
    x = states(kind, 30)
    broken = jax.tree.map(lambda a: np.where(a == a, np.nan, a) if a.dtype.kind == "f" else a, x)
    maps.PICTURES[kind](tmp_path / "a.png", broken, x)
    trajectory = jax.tree.map(lambda a, b: np.stack([a, b]), x, broken)
    maps.film(tmp_path / "f.gif", trajectory, np.array([1.0, 0.0]), kind)


def test_a_film_of_one_frame(tmp_path):
    gif, _ = maps.film(tmp_path / "f.gif", states("sphere", 9)[None], np.zeros(1), "sphere")
    with Image.open(gif) as picture:
        assert picture.n_frames == 1


KAPPA, ALPHA = 5.0, np.array([4.0, 2.0, 2.5])
DENSITIES = {
    "euclidean": lambda x: -0.5 * (x**2).sum(1) - np.log(2 * np.pi),
    # von Mises and Fisher's law on the sphere; a product of von Mises laws; Dirichlet's law
    "sphere": lambda x: KAPPA * (x[:, 0] - 1) + np.log(KAPPA / 2 / np.pi / -np.expm1(-2 * KAPPA)),
    "torus": lambda x: (np.cos(x) - np.log(2 * np.pi * np.i0(1.0))).sum(1),
    "simplex": lambda x: (
        ((ALPHA - 1) * np.log(x)).sum(1) + gammaln(ALPHA.sum()) - gammaln(ALPHA).sum()
    ),
}


@pytest.mark.parametrize("kind", maps.GRIDS)
def test_densities_integrate_to_one(kind, tmp_path):
    """Midpoints with 60 cells along an axis: an error of order 60^-2."""
    asked = []

    def log_prob(x):
        asked.append(x.shape)
        assert x.dtype == np.float32
        return DENSITIES[kind](x.astype(float))

    corners = np.array([[-3.0, -3.0], [3.0, 3.0], [0.0, 0.5]])  # the box is half as wide again
    points = corners if kind == "euclidean" else states(kind, 30)
    path, mass = maps.density(tmp_path / "d.png", log_prob, points, kind, cells=60, batch=1000)
    assert mass == pytest.approx(1.0, abs=1e-3)
    assert len(set(asked)) == 1
    assert asked[0][0] == 1000
    assert min(pixels(path).shape[:2]) > 300
    grid = maps.GRIDS[kind](60, points)
    areas = {"euclidean": 100.0, "sphere": 4 * np.pi, "torus": 4 * np.pi**2, "simplex": 0.5}
    total = areas[kind]
    assert grid.volume.sum() == pytest.approx(total)
    assert len(grid.states) == len(grid.volume)


def test_the_shades_are_dark_where_the_density_is(tmp_path):
    """All mass where the first angle is near 90 degrees: right of the middle, up and down alike."""
    log_prob = lambda x: 30 * (np.cos(x[:, 0] - np.pi / 2) - 1)
    path, _ = maps.density(tmp_path / "d.png", log_prob, np.zeros((1, 2)), "torus")
    dark = pixels(path)[:, :600].sum(-1) < 250
    at = np.nonzero(dark)[1].mean()
    wide = np.ptp(np.nonzero(dark)[0])
    assert at > 300
    assert wide > 250


def test_a_field_is_drawn_at_times_of_the_run(tmp_path):
    """The times shown are the run's, from its first to its last."""
    seen = []

    def velocity(x, t):
        seen.append(t)
        return np.ones_like(x) * [1.0, 0.0]

    film = np.random.default_rng(0).normal(size=(9, 50, 2))
    times = np.linspace(1, 0, 9)
    path = maps.field(tmp_path / "f.png", velocity, film, times, film[-1])
    assert seen[0] == 1.0 and seen[-1] == 0.0 and len(seen) == 4
    assert min(pixels(path).shape[:2]) > 200


def test_unknown_kinds(tmp_path):
    x = np.zeros((1, 4, 2))
    with pytest.raises(UserError, match="config.data.kind='image' is unknown; valid: counts"):
        maps.film(tmp_path / "f.gif", x, np.zeros(1), "image")
    with pytest.raises(UserError, match="kind='rotations' is unknown; valid: euclidean, simplex"):
        maps.density(tmp_path / "d.png", np.sum, x, "rotations")
