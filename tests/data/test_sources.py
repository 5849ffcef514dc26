import re

import numpy as np
import pytest

from gmjax.data import sources
from gmjax.types import DataSpec, UserError


def columns(n, values=4, **extra):
    return {"x": np.arange(n * 3).reshape(n, 3) % values, **extra}


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


def test_a_split_by_class_does_not_depend_on_how_the_classes_are_met():
    """The quantile of an example within its class, class by class."""
    labels = np.random.default_rng(1).integers(0, 9, 300)
    order = np.random.default_rng(0).permutation(300)
    quantile = np.empty(300)
    for label in range(9):
        members = order[labels[order] == label]
        quantile[members] = (np.arange(len(members)) + 0.5) / len(members)
    kept, held = sources.hold_out(300, 47, labels)
    np.testing.assert_array_equal(held, np.sort(np.argsort(quantile, kind="stable")[:47]))
    np.testing.assert_array_equal(np.sort([*kept, *held]), np.arange(300))
    many = sources.hold_out(100_000, 1000, np.arange(100_000))  # as many classes as examples
    assert len(many[1]) == 1000


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_held_out_examples_that_are_training_examples_are_counted(zero):
    x = np.array([[0.0, 1], [2, 3], [0, 1], [4, 5], [zero, 1], [2, 3.5]])
    rows = np.array([0, 1, 3]), np.array([2, 4, 5])
    columns = {"x": x, "label": np.arange(6)}
    notes = sources.parted(columns, rows, kind="euclidean").notes
    line = "data: 2 of 3 held-out examples (66.7%) are training examples too, by a random split"
    assert notes == (line,)
    train, test = (sources.take_rows(columns, side) for side in rows)
    assert not sources.build(train, test, kind="euclidean").notes, (
        "published splits are as they are"
    )
    assert not sources.parted(
        {"x": x[[0, 1, 5]]}, (np.arange(2), np.arange(2, 3)), kind="euclidean"
    )[3]
    tables = {"x": {"numeric": x, "classes": np.array([[0], [0], [1], [0], [0], [0]])}}
    parts = (sources.take_rows(tables, side)["x"] for side in rows)
    assert sources.repeats(*parts, "")[0].startswith("data: 1 of 3 ")


def test_bytes_of_an_image_have_256_values():
    x = np.arange(2 * 16).reshape(2, 4, 4)
    side = lambda kind, top: {"x": (x + top - 31).astype(kind)}
    made = lambda kind, top, **keys: sources.build(side(kind, top), side(kind, top), **keys)
    assert made(np.uint8, 200).spec.num_values == 256
    assert made(np.uint8, 200, num_values=201).spec.num_values == 201
    assert made(np.int64, 200).spec.num_values == 201
    assert not made(np.uint8, 200).notes
    assert (
        made(np.uint8, 40).notes[0].endswith("only the first 41 occur (config.data.num_values=41)")
    )
    flat = {"x": np.array([[3], [1]], np.uint8)}
    assert sources.build(flat, flat).spec.num_values == 4, "a vector of bytes is no image"


def test_images_of_real_numbers_become_levels():
    levels = np.arange(256).reshape(4, 8, 8)
    for dtype in (np.float32, np.float64, np.float16):
        side = {"x": (levels / 255).astype(dtype)}
        data = sources.build(side, side, num_values=256)
        assert data.spec == DataSpec((8, 8, 1), 256, "image")
        np.testing.assert_array_equal(data.train.take(np.arange(4))["x"][..., 0], levels)
    whole = {"x": levels * 1.0}
    assert sources.build(whole, whole).spec.num_values == 256
    scaled = {"x": levels / 100 - 1}
    with pytest.raises(UserError) as caught:
        sources.build(scaled, scaled, num_values=256)
    low, width = re.search(
        r"\(x - (\S+)\) / (\S+) with config.data.num_values=256", str(caught.value)
    ).groups()
    followed = {"x": (scaled["x"] - float(low)) / float(width)}
    data = sources.build(followed, followed, num_values=256)
    np.testing.assert_array_equal(data.train.take(np.arange(4))["x"][..., 0], levels)


def test_angles_within_a_turn_of_zero_are_wrapped():
    x = np.linspace(0, 2 * np.pi, 50)[:, None]
    data = sources.build({"x": x}, {"x": x - 2 * np.pi}, kind="torus")
    assert data.notes == ("data: angles beyond [-pi, pi) were brought there by full turns",)
    for source in (data.train, data.test):
        found = source.take(np.arange(50))["x"]
        assert found.dtype == np.float32 and np.abs(found).max() <= np.float32(np.pi)
        np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * x), atol=1e-6)
    near = {"x": np.linspace(-np.pi, np.pi, 50, endpoint=False)[:, None]}
    same = sources.build(near, near, kind="torus")
    assert not same.notes
    np.testing.assert_array_equal(same.train.take(np.arange(50))["x"], near["x"].astype(np.float32))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"label": np.eye(3, dtype=int)},
            r"label of train is \(3, 3\); valid: .*label.argmax\(1\)",
        ),
        ({"label": np.asarray(3)}, "label of train is one number"),
        (
            {"label": np.array([0, 2**32 + 1, 1])},
            "num_classes=0: data hold 4294967297; valid: 0..10485",
        ),
        ({"label": np.array([0, -1, 1])}, "config.data.num_classes=0: data hold -1; valid: 0"),
        ({"label": np.array([0, np.nan, 1])}, "config.data.num_classes: data hold nan"),
        (
            {"label": np.array([0, 0.5, 1])},
            "config.data.num_classes: data hold 0.5; valid: integers",
        ),
        ({"observed": np.full((3, 2), "False")}, "observed of train is <U5; valid: only 0 and 1"),
        ({"observed": np.full((3, 2), 0.5)}, "observed of train is float64; valid: only 0 and 1"),
        ({"source": np.zeros((3, 1))}, r"train has x \(3, 2\), source \(3, 1\)"),
        ({"source": np.full((3, 2), np.nan)}, r"source\[0, 0\] is nan, the first of 6 among 6"),
        ({"x": np.asarray(3)}, "x of train is one number; valid: a row an example"),
        ({"x": np.zeros((3, 0))}, "x of train has no coordinates"),
    ],
)
def test_columns_of_other_shapes_or_types(columns, message):
    side = {"x": np.zeros((3, 2)), **columns}
    with pytest.raises(UserError, match=message):
        sources.build(side, side, kind="euclidean")


def test_labels_and_numbers_in_other_shapes_and_types_are_read():
    x = np.array([0.5, 1.5, 2.5])
    for label in (np.array([[2], [0], [1]]), np.array([2.0, 0, 1]), np.array([2, 0, 1], np.uint64)):
        side = {"x": x, "label": label}
        data = sources.build(side, side, kind="euclidean")
        assert data.spec == DataSpec((1,), 0, "euclidean", num_classes=3)
        np.testing.assert_array_equal(data.train.take([0, 1, 2])["label"], [2, 0, 1])
        np.testing.assert_array_equal(data.train.take([2])["x"], [[2.5]])


def test_one_number_among_many_that_is_not_finite_is_found():
    x = np.zeros((200_000, 3))
    x[150_001, 2] = np.nan
    with pytest.raises(UserError, match=r"x\[150001, 2\] is nan, the first of 1 among 600000"):
        sources.build({"x": x}, {"x": x[:5]}, kind="euclidean")
