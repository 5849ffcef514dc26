import numpy as np
import pytest
from metrics.states import SPECS, states, unit
from scipy.spatial.transform import Rotation

from gmjax.metrics import geometry
from gmjax.metrics.geometry import GEOMETRIES, PARTS, chord, flat, parts_of
from gmjax.types import DataSpec, UserError

# kind -> the textbook's distance of two states
KNOWN = {
    "euclidean": lambda x, y: np.linalg.norm(x - y),
    "half_line": lambda x, y: np.linalg.norm(x - y),
    "counts": lambda x, y: np.linalg.norm(x - y),
    "sphere": lambda x, y: np.arccos(x @ y),
    "simplex": lambda x, y: 2 * np.arccos(np.sqrt(x * y).sum()),
    "rotations": lambda x, y: (Rotation.from_matrix(x).inv() * Rotation.from_matrix(y)).magnitude(),
    "torus": lambda x, y: np.linalg.norm(np.angle(np.exp(1j * (x - y)))),
    "hyperbolic": lambda x, y: np.arccosh(x[0] * y[0] - x[1:] @ y[1:]),
    "table": lambda x, y: np.sqrt(
        ((x["numeric"] - y["numeric"]) ** 2).sum() + (x["classes"] != y["classes"]).sum()
    ),
}
KNOWN["poses"] = lambda x, y: np.hypot(
    KNOWN["rotations"](x["rotation"], y["rotation"]), np.linalg.norm(x["position"] - y["position"])
)


def row(x, i):
    return {k: v[i] for k, v in x.items()} if isinstance(x, dict) else x[i]


@pytest.mark.parametrize("kind", SPECS)
def test_distances_are_those_of_textbooks(kind):
    x, y = states(kind, 6, 1), states(kind, 5, 2)
    found = geometry.geometry(SPECS[kind]).distance(flat(x), flat(y))
    expected = [[KNOWN[kind](row(x, i), row(y, j)) for j in range(5)] for i in range(6)]
    # The textbooks' arc cosines lose half the digits of distances near zero.
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


def test_every_kind_has_a_textbook():
    assert set(SPECS) == set(KNOWN) == set(GEOMETRIES) - {"classes"} | set(PARTS)


@pytest.mark.parametrize("kind", sorted(set(SPECS) - {"counts", "table", "poses"}))
def test_small_distances_keep_their_digits_and_features_agree(kind):
    """A step of 1e-3 and the chord between features: equal but for the square of the step."""
    x = flat(states(kind, 200))
    z = 1e-3 * np.random.default_rng(5).normal(size=x.shape)
    moved = {
        "sphere": lambda: unit(x + z),
        "simplex": lambda: (x * np.exp(z)) / (x * np.exp(z)).sum(1, keepdims=True),
        "rotations": lambda: (
            x.reshape(-1, 3, 3) @ Rotation.from_rotvec(z[:, :3]).as_matrix()
        ).reshape(-1, 9),
        "hyperbolic": lambda: np.concatenate(
            [np.sqrt(1 + ((x + z)[:, 1:] ** 2).sum(1, keepdims=True)), (x + z)[:, 1:]], 1
        ),
    }
    y = moved.get(kind, lambda: x + z)()
    space = GEOMETRIES[kind]
    near = np.diag(space.distance(x, y))
    assert (near > 0).all()
    chords = np.diag(chord(space.features(x, 0), space.features(y, 0)))
    # Normal coordinates of hyperbolic space shorten what goes round the origin.
    slack = 3.0 if kind == "hyperbolic" else 1e-4
    assert (chords <= near * (1 + 1e-4)).all()
    assert (near <= chords * (1 + slack)).all()


@pytest.mark.parametrize("kind", SPECS)
def test_equal_states_are_at_distance_zero(kind):
    x = flat(states(kind, 40))
    x = x.astype(np.float32).astype(np.float64)  # off the space by what float32 rounds
    found = geometry.geometry(SPECS[kind]).distance(x, x)
    np.testing.assert_array_equal(np.diag(found), 0.0)
    np.testing.assert_allclose(found, found.T, atol=1e-12)


def test_antipodes_and_overshoot_give_no_nan():
    x = np.array([[1.0 + 1e-7, 0, 0]])
    assert GEOMETRIES["sphere"].distance(x, -x) == pytest.approx(np.pi)
    turn = np.diag([1.0, -1.0, -1.0]).reshape(1, 9)
    assert GEOMETRIES["rotations"].distance(turn, np.eye(3).reshape(1, 9)) == pytest.approx(np.pi)
    corner = np.eye(3)[:1], np.eye(3)[1:2] - 1e-9
    assert GEOMETRIES["simplex"].distance(*corner) == pytest.approx(np.pi, abs=1e-4)


def test_features_of_classes_are_at_distance_one():
    f = GEOMETRIES["classes"].features(np.array([[0, 2], [1, 2], [1, 0]]), 3)
    np.testing.assert_allclose(chord(f, f), np.sqrt([[0, 1, 2], [1, 0, 1], [2, 1, 0]]), atol=1e-7)


def test_parts_lie_as_flat_lays_them():
    x = states("poses", 3)
    parts = parts_of(SPECS["poses"])
    assert parts == {
        "position": ("euclidean", slice(0, 3)),
        "rotation": ("rotations", slice(3, 12)),
    }
    np.testing.assert_array_equal(flat(x)[:, :3], x["position"])
    np.testing.assert_array_equal(flat(x)[:, 3:], x["rotation"].reshape(3, 9))


def test_unknown_kind():
    with pytest.raises(UserError, match="config.data.kind='image' is unknown; valid: .*sphere"):
        geometry.geometry(DataSpec((3,), 4, "image"))
