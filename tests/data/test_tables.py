import numpy as np
import pytest

from gmjax import data
from gmjax.data import tables
from gmjax.types import UserError

FILE = "letter,time,quarter,height"


def table(tmp_path, rows, header=FILE, **keys):
    (tmp_path / "t.csv").write_text("\n".join([header, *rows][not header :]) + "\n")
    return {"name": "table", "dir": str(tmp_path), "train_file": "t.csv", **keys}


def take_all(source):
    return source.take(np.arange(source.size))["x"]


def test_numbers_are_standardised_on_the_training_rows(config_of):
    config = config_of("table")
    dataset = data.load(config)
    assert dataset.spec.shape == {"numeric": (2,), "classes": (2,)}
    assert dataset.spec.num_values == 4
    assert dataset.spec.names == {"numeric": ("time", "height"), "classes": ("letter", "quarter")}
    train, test = take_all(dataset.train), take_all(dataset.test)
    assert (len(train["classes"]), len(test["classes"])) == (45, 5)
    # float32 sums of 45 numbers of order one.
    np.testing.assert_allclose(train["numeric"].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train["numeric"].std(0), 1, atol=1e-5)
    assert np.abs(test["numeric"].mean(0)).min() > 1e-3
    both = {k: np.concatenate([train[k], test[k]]) for k in train}
    time, height = tables.describe({**data.defaults("table"), **config}).units(both["numeric"]).T
    i = time.round().astype(int)
    np.testing.assert_array_equal(np.sort(i), np.arange(50))
    np.testing.assert_allclose(height, i * i / 7, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(both["classes"], np.stack([i % 2, i % 4], 1))


def test_decoder_gives_back_the_cells(config_of):
    config = config_of("table")
    x = take_all(data.load(config).test)
    lines = data.decoder(config)(x)
    for line in lines:
        cells = dict(pair.split("=") for pair in line.split(", "))
        i = int(cells["time"])
        assert (cells["letter"], int(cells["quarter"])) == ("ab"[i % 2], i % 4)
        assert float(cells["height"]) == pytest.approx(i * i / 7, rel=1e-3)
    none = {**x, "classes": np.full_like(x["classes"], 3)}  # the letters are but two
    assert all(line.startswith("letter=?, quarter=3") for line in data.decoder(config)(none))


def test_class_columns_by_number_without_a_header(tmp_path):
    rows = [f"{i % 3},{i * 0.5}" for i in range(30)]
    dataset = data.load(table(tmp_path, rows, header="", class_columns="0"))
    assert dataset.spec.names == {"numeric": ("1",), "classes": ("0",)}
    assert dataset.spec.num_values == 3


def test_numerals_are_sorted_as_numbers_and_files_share_the_words(tmp_path):
    config = table(tmp_path, ["a,1,10,2", "b,2,9,3", "a,3,10,4"], class_columns="quarter")
    (tmp_path / "u.csv").write_text("c,1,8,2\n")
    dataset = data.load({**config, "test_file": "u.csv"})
    np.testing.assert_array_equal(take_all(dataset.train)["classes"], [[0, 2], [1, 1], [0, 2]])
    np.testing.assert_array_equal(take_all(dataset.test)["classes"], [[2, 0]])
    assert dataset.spec.num_values == 3
    (tmp_path / "u.csv").write_text("c,1,8\n")
    with pytest.raises(UserError, match=r"config.data.test_file: rows of \[3, 4\] cells"):
        data.load({**config, "test_file": "u.csv"})


def test_observed_marks_the_named_columns(config_of):
    take = data.load(config_of("table", observed="height, letter")).test.take
    given = take([0, 1, 2])["observed"]
    np.testing.assert_array_equal(given["numeric"], [[False, True]] * 3)
    np.testing.assert_array_equal(given["classes"], [[True, False]] * 3)
    assert given["numeric"].dtype == bool
    assert set(data.load(config_of("abalone")).test.take([0])) == {"x"}


ROWS = [f"{'ab'[i % 2]},{i},{i % 4},{i}" for i in range(30)]


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        (ROWS, {"class_columns": "size"}, "class_columns: no column 'size'; valid: letter, time"),
        (ROWS, {"observed": "time,size"}, "observed: no column 'size'"),
        (ROWS, {"class_columns": "time,quarter,height"}, "0 columns of numbers, 4 of classes"),
        ([f"{i},1,{i},2" for i in range(30)], {}, "4 columns of numbers, 0 of classes"),
        ([row[:-1] + "7" for row in ROWS[:10]], {}, "column 'height' never varies"),
        ([*ROWS, "a,1,2,inf"], {}, "column 'height' holds numbers that are not finite"),
        (ROWS, {"test_fraction": 2}, "config.data.test_fraction=2"),
    ],
)
def test_bad_tables(rows, keys, message, tmp_path):
    header = "" if "1" in rows[1][0] else FILE
    with pytest.raises(UserError, match=message):
        data.load(table(tmp_path, rows, header, **keys))


def test_real_abalone(real):
    dataset = data.load({"name": "abalone", "dir": real})
    assert (dataset.train.size, dataset.test.size) == (3343, 417)
    assert dataset.spec.shape == {"numeric": (8,), "classes": (1,)}
    assert dataset.spec.num_values == 3
    config = {**data.defaults("abalone"), "dir": real}
    known = tables.describe(config)
    assert known.words == (("F", "I", "M"),)
    x = take_all(dataset.train)
    infant = known.units(x["numeric"])[x["classes"][:, 0] == 1]
    other = known.units(x["numeric"])[x["classes"][:, 0] != 1]
    # Infants are younger: 7.9 rings against 10.9, standard errors below 0.1.
    assert infant[:, -1].mean() + 2 < other[:, -1].mean()
    np.testing.assert_allclose(infant[:, -1], infant[:, -1].round(), atol=1e-5)


def test_real_wine(real):
    dataset = data.load({"name": "wine", "dir": real})
    assert dataset.train.size == 6497 - 2 * 649
    assert dataset.spec.shape == {"numeric": (11,), "classes": (2,)}
    known = tables.describe({**data.defaults("wine"), "dir": real})
    assert known.words == (tuple("3456789"), ("red", "white"))
    assert (np.ptp(take_all(dataset.train)["classes"], axis=0) == [6, 1]).all()
