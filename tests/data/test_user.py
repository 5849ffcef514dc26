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
        ("1,2\n3,x\n", {}, "t.csv: cell 'x'; valid: numbers"),
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
