import numpy as np
import pytest

from gmjax.data import sources
from gmjax.types import DataSpec, UserError


def columns(n, values=4, **extra):
    return {"x": np.arange(n * 3).reshape(n, 3) % values, **extra}


def test_as_indices_infers_and_checks():
    assert sources.as_indices(np.array([0, 3]), 0, "num_values")[1] == 4
    assert sources.as_indices(np.array([0, 3]), 7, "num_values")[1] == 7
    assert sources.as_indices(np.array([0.0, 3.0]), 0, "num_values")[0].dtype.kind == "i"
    for values, message in {
        (0, 4): "config.data.num_values=4: data hold 4; valid: 0..3",
        (-2, 1): "config.data.num_values=4: data hold -2; valid: 0..3",
        (0.5, 1.0): "config.data.num_values: data hold 0.5; valid: integers",
        (1.0, float("nan")): "config.data.num_values: data hold nan; valid: integers",
        (1.0, float("inf")): "data hold",
        ("a", "b"): "config.data.num_values: data of type <U1; valid: integers",
    }.items():
        with pytest.raises(UserError, match=message):
            sources.as_indices(np.array(values), 4, "num_values")
    with pytest.raises(UserError, match="num_values=-1; valid: 0"):
        sources.as_indices(np.array([0]), -1, "num_values")
    with pytest.raises(UserError, match="data hold -1"):
        sources.as_indices(np.array([-1, 1]), 0, "num_values")


def test_build_takes_sizes_from_both_splits():
    train = columns(5, 3, label=np.array([0, 1, 0, 1, 0]))
    test = columns(4, 6, label=np.array([0, 1, 2, 0]))
    spec = sources.build(train, test).spec
    assert (spec.num_values, spec.num_classes, spec.kind) == (6, 3, "vector")
    assert sources.build(train, test, num_values=9, num_classes=5).spec[1] == 9
    with pytest.raises(UserError, match="config.data.num_values=5: data hold 5"):
        sources.build(train, test, num_values=5)
    with pytest.raises(UserError, match="config.data.num_classes=2: data hold 2"):
        sources.build(train, test, num_classes=2)


def test_build_keeps_what_it_is_given():
    x = np.random.default_rng(0).integers(0, 300, (6, 4, 5))
    other = np.arange(6.0)
    observed = x > 100
    side = {"x": x, "other": other, "observed": observed}
    data = sources.build(side, side)
    assert data.spec.shape == (4, 5, 1)
    assert data.spec.kind == "image"
    out = data.train.take([3, 1])
    np.testing.assert_array_equal(out["x"][..., 0], x[[3, 1]])
    np.testing.assert_array_equal(out["observed"][..., 0], observed[[3, 1]])
    np.testing.assert_array_equal(out["other"], other[[3, 1]])


@pytest.mark.parametrize(
    ("train", "test", "kind", "message"),
    [
        (columns(0), columns(2), "", "the train split is empty"),
        (columns(2), columns(0), "", "the test split is empty"),
        (columns(2), {"x": np.zeros((2, 4), int)}, "", r"train examples are \(3,\), test \(4,\)"),
        (columns(2, label=np.zeros(2, int)), columns(2), "", "only one .* has label"),
        (columns(2, label=np.zeros(3, int)), columns(2), "", "train has 2 of x but 3 of label"),
        (columns(2), columns(2), "image", "config.data.kind='image' does not fit .*; valid: seq"),
        (columns(2), columns(2), "song", "config.data.kind='song'"),
        ({"x": np.zeros((2, 1, 1, 1, 1), int)},) * 2 + ("", "valid: none"),
        ({"x": np.zeros((2, 3), int), "observed": np.ones((2, 2))},) * 2 + ("", "observed"),
    ],
)
def test_build_refuses(train, test, kind, message):
    with pytest.raises(UserError, match=message):
        sources.build(train, test, kind=kind)


def test_a_split_refuses_columns_that_do_not_fit():
    with pytest.raises(UserError, match="train has 20 of x but 19 of label"):
        sources.split(columns(20, label=np.zeros(19, int)), {"test_fraction": 0.1})


def test_arrays_are_stored_small_and_handed_out_as_int32():
    x = np.full((1000, 100), 255, np.int64)
    data = sources.build({"x": x}, {"x": x})
    stored = data.train.take.__closure__[0].cell_contents["x"]
    assert stored.dtype == np.uint8
    assert data.train.take([0])["x"].dtype == np.int32


def test_hold_out_is_stratified_and_fixed():
    labels = np.repeat(np.arange(4), [100, 50, 30, 20])
    kept, held = sources.hold_out(200, 40, labels)
    assert len(held) == 40
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(200))
    np.testing.assert_array_equal(np.bincount(labels[held]), [20, 10, 6, 4])
    np.testing.assert_array_equal(sources.hold_out(200, 40, labels)[1], held)
    shuffled = np.random.default_rng(1).permutation(labels)
    assert set(np.bincount(shuffled[sources.hold_out(200, 40, shuffled)[1]])) == {20, 10, 6, 4}


def test_hold_out_without_labels_is_random():
    """Mean of a uniform sample without replacement; standard error sigma sqrt((1 - f) / n)."""
    n, count = 10_000, 1000
    held = sources.hold_out(n, count)[1]
    assert len(set(held)) == count
    error = n / 12**0.5 * (0.9 / count) ** 0.5
    assert abs(held.mean() - (n - 1) / 2) < 4 * error
    assert np.abs(np.diff(held) - 1).sum() > 0, "not a contiguous block"


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2, 0.001, 0.999])
def test_held_out_count_refuses(fraction):
    with pytest.raises(UserError, match=f"config.data.test_fraction={fraction}"):
        sources.held_out_count({"test_fraction": fraction}, 20)


def test_windows():
    tokens = np.arange(10, 30).astype(np.uint8)
    source = sources.windows(tokens, np.array([0, 7, 16]), 4, given=1)
    out = source.take([2, 1])
    np.testing.assert_array_equal(out["x"], [[26, 27, 28, 29], [17, 18, 19, 20]])
    np.testing.assert_array_equal(out["observed"], [[True, False, False, False]] * 2)
    assert source.size == 3
    assert set(sources.windows(tokens, np.array([0]), 4).take([0])) == {"x"}


@pytest.mark.parametrize("value", [0, -3, 2.5, "8", True, None])
def test_positive_refuses(value):
    with pytest.raises(UserError, match=r"config.data.length=.*; valid: an integer of at least 1"):
        sources.positive({"length": value}, "length")


def test_real_numbers_are_handed_out_as_float32():
    x = np.random.default_rng(0).normal(size=(6, 3))
    data = sources.build({"x": x}, {"x": x}, kind="sphere")
    assert data.spec == DataSpec((3,), 0, "sphere")
    out = data.train.take([4, 0])["x"]
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, x[[4, 0]].astype(np.float32))


def test_rotations_keep_their_shape():
    x = np.tile(np.eye(3), (4, 1, 1))
    data = sources.build({"x": x, "observed": x > 0}, {"x": x, "observed": x > 0}, kind="rotations")
    assert data.spec.shape == (3, 3)
    assert data.train.take([1])["observed"].shape == (1, 3, 3)


def test_whole_numbers_of_a_continuous_kind_are_real_and_counts_stay_integers():
    x = np.array([[0, 300], [2, 1]])
    assert sources.build({"x": x}, {"x": x}, kind="euclidean").train.take([0])["x"].dtype == "f4"
    data = sources.build({"x": x * 1.0}, {"x": x}, kind="counts")
    assert data.spec.num_values == 0
    assert data.train.take([0])["x"].dtype == np.int32
    np.testing.assert_array_equal(data.train.take([0, 1])["x"], x)


@pytest.mark.parametrize(
    ("x", "keys", "message"),
    [
        ([[0.5, 1.0]], {"kind": ""}, "data hold 0.5; valid: integers, or config.data.kind one of"),
        ([[0.5, 1.0]], {"kind": "counts"}, "data hold 0.5; valid: integers from 0 for counts"),
        ([[-1, 1]], {"kind": "counts"}, "config.data.kind.*: data hold -1"),
        ([[0.5, 1.0]], {"kind": "torus", "num_values": 4}, "num_values=4: torus data have none"),
        ([[0.5, 1.0]], {"kind": "rotations"}, "kind='rotations' does not fit .*valid: .*torus"),
        ([["a", "b"]], {"kind": "torus"}, "x of type <U1; valid: real numbers"),
        ([[1j, 2j]], {"kind": "torus"}, "x of type complex128; valid: real numbers"),
    ],
)
def test_build_refuses_continuous(x, keys, message):
    side = {"x": np.array(x)}
    with pytest.raises(UserError, match=message):
        sources.build(side, side, **keys)


def test_trees_of_columns():
    tree = {"numeric": np.linspace(0, 1, 8).reshape(4, 2), "classes": np.arange(4)[:, None]}
    columns = {"x": tree, "label": np.arange(4), "w": np.arange(4.0)}
    source = sources.arrays(columns)
    assert source.size == 4
    out = source.take([3, 1])
    np.testing.assert_array_equal(out["x"]["classes"], [[3], [1]])
    np.testing.assert_array_equal(out["x"]["numeric"], tree["numeric"][[3, 1]].astype(np.float32))
    assert (out["x"]["numeric"].dtype, out["x"]["classes"].dtype) == (np.float32, np.int32)
    assert (out["label"].dtype, out["w"].dtype) == (np.int32, np.float64)
    kept, held = sources.split({"x": tree}, {"test_fraction": 0.25})
    rows = np.concatenate([kept["x"]["classes"], held["x"]["classes"]])
    assert len(held["x"]["numeric"]) == 1
    np.testing.assert_array_equal(np.sort(rows[:, 0]), np.arange(4))


def test_tenths_part_the_rows():
    config = lambda side: {"split_seed": 3, "held_out": side}
    train, test = sources.tenths(57, config("test"))
    same, valid = sources.tenths(57, config("valid"))
    np.testing.assert_array_equal(train, same)
    assert (len(train), len(test), len(valid)) == (47, 5, 5)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test, valid])), np.arange(57))
