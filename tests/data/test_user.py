import numpy as np
import pytest

from gmjax import data
from gmjax.types import DataSpec, UserError


def everything(dataset):
    out = [s.take(np.arange(s.size)) for s in (dataset.train, dataset.test)]
    return {k: np.concatenate([o[k] for o in out]) for k in out[0]}


def rows(*columns):
    """Rows of the columns side by side, in sorted order."""
    table = np.concatenate([np.asarray(c).reshape(len(c), -1) for c in columns], 1)
    return table[np.lexsort(table.T)]


def test_idx_holds_out_a_tenth_and_loses_nothing(config_of, idx_bytes, tmp_path):
    config = config_of("idx")
    dataset = data.load(config)
    assert (dataset.train.size, dataset.test.size) == (45, 5)
    assert dataset.spec == DataSpec((6, 7, 1), 5, "image", True, 3)
    x = np.random.default_rng(0).integers(0, 5, (50, 6, 7))
    out = everything(dataset)
    np.testing.assert_array_equal(rows(out["x"], out["label"]), rows(x, np.arange(50) % 3))


def test_idx_with_a_test_file(config_of, idx_bytes):
    config = config_of("idx")
    dataset = data.load({**config, "test_file": "x", "test_label_file": "y"})
    assert dataset.train.size == dataset.test.size == 50
    with pytest.raises(UserError, match="only one of train and test has label"):
        data.load({**config, "test_file": "x"})


@pytest.mark.parametrize("name", ["idx", "npz", "csv"])
def test_num_values_is_checked(name, config_of):
    config = config_of(name)
    size = data.load(config).spec.num_values
    assert data.load({**config, "num_values": size + 3}).spec.num_values == size + 3
    message = f"config.data.num_values={size - 1}: data hold {size - 1}; valid: 0..{size - 2}"
    with pytest.raises(UserError, match=message):
        data.load({**config, "num_values": size - 1})


@pytest.mark.parametrize("name", ["idx", "npz", "csv", "text"])
def test_train_file_is_required(name, config_of):
    config = config_of(name)
    for bad in ({"train_file": ""}, {"train_file": "absent"}):
        with pytest.raises(UserError, match="config.data.train_file"):
            data.load({**config, **bad})
    with pytest.raises(UserError, match="config.data.test_file: no file"):
        data.load({**config, "test_file": "absent"})
    del config["train_file"]
    with pytest.raises(UserError, match="config.data.train_file=''"):
        data.load(config)


def test_npz_extra_columns(config_of):
    config = config_of("npz")
    dataset = data.load(config)
    assert dataset.spec.kind == "sequence"
    assert dataset.spec.num_classes == 2
    x = np.random.default_rng(0).integers(0, 9, (50, 12))
    np.testing.assert_array_equal(dataset.train.take([0, 4])["observed"], [x[0] > 4] * 2)
    assert data.load({**config, "kind": ""}).spec.kind == "vector"


def test_csv_words_become_sorted_classes(config_of):
    config = config_of("csv")
    dataset = data.load(config)
    assert dataset.spec == DataSpec((5,), 4, "vector", False, 3)
    x = np.random.default_rng(0).integers(0, 4, (60, 5))
    out = everything(dataset)
    np.testing.assert_array_equal(rows(out["x"], out["label"]), rows(x, np.arange(60) % 3))


def test_csv_numerals_stay_numbers_and_splits_share_the_classes(tmp_path):
    (tmp_path / "a.csv").write_text("1,0,10\n0,1,2\n")
    (tmp_path / "b.csv").write_text("1,1,9\n")
    config = {"name": "csv", "dir": str(tmp_path), "train_file": "a.csv", "test_file": "b.csv"}
    dataset = data.load({**config, "labels": True, "label_column": 2})
    np.testing.assert_array_equal(dataset.train.take([0, 1])["label"], [10, 2])
    np.testing.assert_array_equal(dataset.test.take([0])["label"], [9])
    np.testing.assert_array_equal(dataset.train.take([0, 1])["x"], [[1, 0], [0, 1]])
    assert data.load(config).spec == DataSpec((3,), 11)
    (tmp_path / "a.csv").write_text("c,0\na,1\n")
    (tmp_path / "b.csv").write_text("b,1\n")
    dataset = data.load({**config, "labels": True, "label_column": 0})
    np.testing.assert_array_equal(dataset.train.take([0, 1])["label"], [2, 0])
    np.testing.assert_array_equal(dataset.test.take([0])["label"], [1])


@pytest.mark.parametrize(
    ("content", "keys", "message"),
    [
        ("1,2\n3,x\n", {}, "t.csv: column '1' .*, first in row 2, cell 'x'; valid: numbers"),
        (
            "1,2\n3,4\n",
            {"labels": True, "label_column": 2},
            "config.data.label_column=2; valid: -2..1",
        ),
        ("1,2\n3,-4\n", {"test_fraction": 0.5}, "config.data.num_values=.*: data hold -4"),
        ("1,2\n3,4.5\n", {"test_fraction": 0.5}, "config.data.num_values: data hold 4.5"),
        ("1,2\n3,4\n", {}, "config.data.test_fraction=0.1 of 2 examples"),
    ],
)
def test_bad_csv(tmp_path, content, keys, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        data.load({"name": "csv", "dir": str(tmp_path), "train_file": "t.csv", **keys})


def test_continuous_npz_and_csv(tmp_path):
    """Real numbers load as they are: whether they lie in the space is for the space to say."""
    x = np.random.default_rng(0).normal(size=(20, 3))
    np.savez(tmp_path / "x.npz", x=x)
    np.savetxt(tmp_path / "x.csv", x, delimiter=",", header="a,b,c", comments="")
    for name in ("npz", "csv"):
        config = {"name": name, "dir": str(tmp_path), "train_file": f"x.{name}", "kind": "sphere"}
        dataset = data.load(config)
        assert dataset.spec == DataSpec((3,), 0, "sphere")
        found = everything(dataset)["x"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(rows(found), rows(x), rtol=1e-6)
        with pytest.raises(UserError, match="valid: integers, or config.data.kind one of euclid"):
            data.load({**config, "kind": ""})


def own(tmp_path, name, content, **keys):
    """A set of the user's own: a text, or the arrays of an npz file."""
    if isinstance(content, dict):
        np.savez(tmp_path / "t", **content)
        return {"name": name, "dir": str(tmp_path), "train_file": "t.npz", **keys}
    (tmp_path / "t").write_text(content)
    return {"name": name, "dir": str(tmp_path), "train_file": "t", **keys}


def lines(row, n=40):
    return "".join(row(i) + "\n" for i in range(n))


X = np.random.default_rng(0).integers(0, 5, (40, 6))
PLACES = lines(lambda i: f"{2 * i - 40},{7 * i - 140}")


@pytest.mark.parametrize(
    ("name", "content", "keys", "message"),
    [
        ("csv", lines(lambda i: f"{i + 5 * 10**9},1"), {}, "num_values=0: data hold 5000000039"),
        ("csv", lines(lambda i: f"1,{2**32 + 1}"), {"labels": True}, "num_classes=0: .*4294967297"),
        ("csv", lines(lambda i: f"1,{i / 2}"), {"labels": True}, "num_classes: data hold 0.5"),
        ("csv", lines(lambda i: f"1,{i % 2 - 1}"), {"labels": True}, "num_classes=0: data hold -1"),
        (
            "csv",
            lines(lambda i: f"1,{'9' * 25}"),
            {"labels": True},
            r"num_classes: data hold 1e\+25",
        ),
        ("csv", lines(lambda i: f"1,{'' if i == 7 else i}"), {"labels": True}, "1 hole .* row 8"),
        ("csv", lines(lambda i: f"1,id{i}"), {"labels": True}, "column '1' holds 40 words in 40"),
        ("csv", lines(str), {"labels": True}, "one column, which holds the labels"),
        ("csv", lines(lambda i: f"{i};1"), {"labels": True, "delimiter": ","}, "valid there: ';'"),
        ("csv", lines(lambda i: f"{i},{'nan' if i == 33 else i}"), {"kind": "euclidean"}, "row 34"),
        (
            "csv",
            lines(lambda i: f"{i},{'inf' if i == 33 else i}"),
            {"kind": "euclidean"},
            "not fin",
        ),
        (
            "csv",
            lines(lambda i: "1e39,1"),
            {"kind": "euclidean"},
            r"x of train_file\[0, 0\] is 1e\+39",
        ),
        (
            "csv",
            lines(lambda i: f"{2**31 + 5},1"),
            {"kind": "counts"},
            "data hold 2147483653; valid: 0",
        ),
        ("csv", PLACES, {"kind": "sphere"}, "two coordinates, .*; valid: config.data.degrees=True"),
        (
            "csv",
            lines(lambda i: f"{7 * i - 140},1"),
            {"kind": "sphere", "degrees": True},
            "-90..90",
        ),
        ("csv", lines(lambda i: "1,2,3"), {"kind": "sphere", "degrees": True}, r"valid: \[n, 2\]"),
        ("csv", PLACES, {"kind": "euclidean", "degrees": True}, "valid: kind sphere or torus"),
        (
            "csv",
            lines(lambda i: f"{9 * i},1"),
            {"kind": "torus"},
            "angles reach 351; .*degrees=True",
        ),
        (
            "npz",
            {"x": X, "context": X},
            {},
            "nothing reads context .*config.data.array=x to pass over",
        ),
        ("npz", {"x": X, "mask": X}, {}, "nothing reads mask"),
        ("npz", {"a": X, "b": X}, {}, "config.data.array='': no array 'x' in .*; valid: a, b"),
        ("npz", {"a": X, "b": X}, {"array": "c"}, "config.data.array='c': .*; valid: a, b"),
        ("npz", {}, {}, "no array 'x' in .*; valid: none"),
        ("npz", {"x": X * 1j}, {}, "data of type complex128; valid: integers"),
        ("npz", {"x": X.astype(str)}, {}, "data of type <U.*; valid: integers"),
        ("npz", {"x": np.zeros(40, [("a", "i4")])}, {}, "data of type .*; valid: integers"),
        ("npz", {"x": X.astype("M8[s]")}, {}, r"data of type datetime64\[s\]; valid: integers"),
        ("npz", {"x": X / 9}, {"kind": "image"}, "'image' does not fit .* valid: sequence, vector"),
        ("npz", {"x": np.where(X == 3, np.nan, X)}, {}, r"x of train_file\[\d+, \d+\] is nan"),
        (
            "npz",
            {"x": X, "label": np.eye(40)},
            {},
            r"label of train is \(40, 40\); valid: .*argmax",
        ),
        ("npz", {"x": X, "label": X[:30, 0]}, {}, "train has 40 of x but 30 of label"),
        ("npz", {"x": X[:0]}, {}, "0.1 of 0 examples"),
    ],
)
def test_bad_files_are_told_in_one_line(name, content, keys, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        data.load(own(tmp_path, name, content, **keys))
    assert "\n" not in str(caught.value)


# What is refused at first, and the keys that each message in turn advises.
IMAGES = {"x": (np.arange(40 * 16) % 256).reshape(40, 4, 4) / 255}
ADVICE = [
    ("npz", IMAGES, [{"kind": "euclidean"}, {"kind": "image"}, {"num_values": 256}]),
    ("npz", IMAGES, [{}, {"num_values": 256}]),
    ("npz", {"x": X / 9}, [{}, {"kind": "euclidean"}]),
    ("npz", {"x": np.tile(np.eye(3) / 1.0000001, (40, 1, 1))}, [{}, {"kind": "rotations"}]),
    ("npz", {"x": X, "context": X}, [{}, {"array": "x"}]),
    ("npz", {"angles": X, "b": X}, [{}, {"array": "angles"}]),
    ("npz", {"x": X + 2 * 10**6}, [{}, {"num_values": 2 * 10**6 + 5}]),
    ("csv", PLACES, [{"kind": "sphere"}, {"degrees": True}]),
    ("csv", lines(lambda i: f"{9 * i},{i}"), [{"kind": "torus"}, {"degrees": True}]),
    ("csv", lines(lambda i: f"{i};1"), [{"delimiter": ","}, {"delimiter": ";"}]),
    ("csv", lines(lambda i: f"{i % 3},{'ab'[i % 2]}"), [{}, {"labels": True}]),
    ("csv", lines(lambda i: f"{i % 3},{'ab'[i % 2]}"), [{}, {"name": "table"}]),
    ("csv", "x,2\n" + lines(lambda i: f"{i},3"), [{}, {"header": "yes"}]),
    ("table", lines(lambda i: f"{i},{'x' if i % 2 else '7'}"), [{}, {"class_columns": "1"}]),
    ("table", lines(lambda i: f"{i},name {i}"), [{}, {"class_columns": "1"}]),
]


@pytest.mark.parametrize(("name", "content", "steps"), ADVICE)
def test_who_follows_the_message_arrives(name, content, steps, tmp_path):
    config = own(tmp_path, name, content)
    for i, step in enumerate(steps):
        config |= step
        if i < len(steps) - 1:
            with pytest.raises(UserError) as caught:
                data.load(config)
            for key, value in steps[i + 1].items():
                said = str(caught.value).replace("'", "")
                assert (
                    f"config.data.{key}={value}" in said
                    or f"valid: {value}" in said
                    or (key in said and str(value) in said)
                )
    assert data.load(config).train.size == 36


def test_angles_and_places_are_read_in_degrees(tmp_path):
    latitude, longitude = np.arange(40) * 2 - 40, np.arange(40) * 7 - 140
    u, v = np.radians(latitude), np.radians(longitude)
    expected = rows(np.stack([np.cos(u) * np.cos(v), np.cos(u) * np.sin(v), np.sin(u)], 1))
    keys = {"kind": "sphere", "degrees": True}
    for content in (
        PLACES,
        "lat,lon\n" + PLACES,
        "Longitude,Latitude\n" + lines(lambda i: f"{7 * i - 140},{2 * i - 40}"),
        {"places": np.stack([latitude, longitude], 1)},
    ):
        name = "npz" if isinstance(content, dict) else "csv"
        found = everything(data.load(own(tmp_path, name, content, **keys)))["x"]
        np.testing.assert_allclose(rows(found), expected, atol=1e-7)
    angles = own(tmp_path, "csv", lines(lambda i: f"{9 * i},{-9 * i}"), kind="torus", degrees=True)
    found = everything(data.load(angles))["x"]
    assert found.min() >= -np.float32(np.pi) and found.max() < np.float32(np.pi)
    turns = np.sort(np.round(np.degrees(found[:, 0].astype(float)) / 9).astype(int) % 40)
    np.testing.assert_array_equal(turns, np.arange(40))


def test_what_a_person_should_know_is_noted(tmp_path):
    content = lines(lambda i: f"{i % 3},{'' if i == 7 else 'ab'[i % 2]}")
    notes = data.load(own(tmp_path, "csv", content, labels=True)).notes
    assert notes == (
        "data: 4 of 4 held-out examples (100.0%) are training examples too, by a random"
        " split (config.data.unique=True keeps equal examples on one side)",
        "data: column '1' lacks 1 of 40 words; '' counts as a word",
    )
    content = lines(lambda i: f"{i},{'?' if i < 3 else 'ab'[i % 2]}")
    assert data.load(own(tmp_path, "table", content)).notes == (
        "data: column '1' lacks 3 of 40 words; '?' counts as a word",
    )
    turned = own(tmp_path, "npz", {"angles": np.linspace(0, 6.2, 40)}, kind="torus")
    assert data.load(turned).notes == (
        "data: angles beyond [-pi, pi) were brought there by full turns",
    )


@pytest.mark.parametrize("name", ["csv", "npz", "table", "text"])
def test_equal_examples_stay_on_one_side(name, tmp_path):
    """The rows of 30 different ones, each met up to five times."""
    which = np.random.default_rng(0).integers(0, 30, 100)
    content = {
        "csv": lines(lambda i: f"{which[i]},{which[i] % 7}", 100),
        "npz": {"x": np.stack([which / 3, -which], 1), "label": which % 2},
        "table": lines(lambda i: f"{which[i]},{'ab'[which[i] % 2]}", 100),
        "text": lines(lambda i: f"{which[i]:02d}", 100),
    }[name]
    keys = {"csv": {}, "npz": {"kind": "euclidean"}, "table": {}, "text": {"lines": True}}[name]
    config = own(tmp_path, name, content, **keys)
    assert "config.data.unique=True" in data.load(config).notes[0]
    apart = data.load({**config, "unique": True})
    assert not apart.notes and apart.train.size + apart.test.size == 100
    number = len(np.unique(which))
    x = apart.test.take(np.arange(apart.test.size))["x"]
    x = x["numeric"] if name == "table" else x
    assert len(np.unique(x, axis=0)) == round(0.1 * number)


def test_labels_are_numerals_or_words(tmp_path):
    for spell in (lambda k: f"{k}", lambda k: f"{k}.0", lambda k: f"0{k}"):
        content = lines(lambda i, spell=spell: f"{i},{spell(i % 12)}")
        out = everything(data.load(own(tmp_path, "csv", content, labels=True)))
        np.testing.assert_array_equal(out["label"], out["x"][:, 0] % 12)
    for label in (np.array(["a", "b"]), np.array([b"a", b"b"]), np.array(["1", "0"])):
        out = everything(data.load(own(tmp_path, "npz", {"x": X, "label": label[X[:, 0] % 2]})))
        expected = X[:, 0] % 2 if label[0] in ("a", b"a") else 1 - X[:, 0] % 2
        np.testing.assert_array_equal(rows(out["x"], out["label"]), rows(X, expected))


def test_files_with_other_headers_are_refused(tmp_path):
    config = own(tmp_path, "csv", "a,b\n1,2\n3,4\n", test_file="u")
    for content, message in {
        "b,a\n1,2\n": "config.data.test_file: a column 'b' where train_file has 'a'",
        "a,b,c\n1,2,3\n": r"config.data.test_file: rows of \[2, 3\] cells",
    }.items():
        (tmp_path / "u").write_text(content)
        for name in ("csv", "table"):
            with pytest.raises(UserError, match=message):
                data.load({**config, "name": name})
    (tmp_path / "u").write_text("5,6\n")
    assert data.load(config).test.size == 1
