import gzip

import numpy as np
import pytest

from gmjax.data import files
from gmjax.types import UserError


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (2, 2, 2, 3)])
def test_idx(tmp_path, idx_bytes, dtype, shape):
    array = (np.arange(np.prod(shape)) * 3).reshape(shape).astype(dtype)
    plain, packed = tmp_path / "a", tmp_path / "b.gz"
    plain.write_bytes(idx_bytes(array))
    packed.write_bytes(gzip.compress(idx_bytes(array)))
    for path in (plain, packed):
        read = files.read_idx(path)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-1],
        lambda b: b + b"\0",
        lambda b: b"\1" + b[1:],
        lambda b: b[:2] + b"\7" + b[3:],
        lambda b: b[:6],
        lambda b: b"",
    ],
)
def test_damaged_idx(tmp_path, idx_bytes, damage):
    path = tmp_path / "a"
    path.write_bytes(damage(idx_bytes(np.zeros((3, 4), np.uint8))))
    with pytest.raises(UserError, match=str(path)):
        files.read_idx(path)


def test_damaged_gzip(tmp_path):
    path = tmp_path / "a.gz"
    whole = gzip.compress(bytes(range(256)) * 50)
    for data in (b"not gzip", whole[:-9], whole[:40] + b"xx" + whole[42:]):
        path.write_bytes(data)
        with pytest.raises(UserError, match="no intact gzip file"):
            files.read_bytes(path)


def test_one_array_is_no_archive(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"is no npz file but one array; valid: np.savez"):
        files.read_npz(tmp_path / "x.npy")


def test_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(3))
    np.testing.assert_array_equal(files.read_npz(path, "x")["x"], np.arange(3))
    with pytest.raises(UserError, match=r"no array 'y'; it holds x"):
        files.read_npz(path, "y")
    np.savez(path, x=np.array([{}], object))
    with pytest.raises(UserError, match="plain arrays"):
        files.read_npz(path)
    np.save(tmp_path / "b.npy", np.arange(3))
    for bad in (b"", b"PK\3\4rubbish", (tmp_path / "b.npy").read_bytes()):
        path.write_bytes(bad)
        with pytest.raises(UserError, match="no npz file"):
            files.read_npz(path)


def test_csv(tmp_path):
    path = tmp_path / "a.csv"
    for content, rows in {
        "1,2\n3,4\n": [["1", "2"], ["3", "4"]],
        "a,b\r\n1, 2 \r\n\r\n3,4": [["1", "2"], ["3", "4"]],
        "x,y\nred,green\n": [["x", "y"], ["red", "green"]],
    }.items():
        path.write_text(content)
        assert files.read_csv(path) == rows
    path.write_text("1 2\n3 4\n")
    assert files.read_csv(path, " ") == [["1", "2"], ["3", "4"]]
    path.write_text("1,2\n3\n")
    with pytest.raises(UserError, match="row 2 has 1 cells"):
        files.read_csv(path)
    path.write_text("\n")
    with pytest.raises(UserError, match="no rows"):
        files.read_csv(path)


def test_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("né\r\nw".encode())
    assert files.read_text(path) == "né\nw"
    path.write_bytes(b"a\xff")
    with pytest.raises(UserError, match="not UTF-8 text: byte 1"):
        files.read_text(path)


def test_locate(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "b.gz").write_text("")
    config = {"dir": str(tmp_path)}
    assert files.locate(config, "a") == tmp_path / "a"
    assert files.locate(config, "b") == tmp_path / "b.gz"
    assert files.locate({"dir": ""}, str(tmp_path / "a")) == tmp_path / "a", (
        "absolute: needs no directory"
    )
    with pytest.raises(UserError, match="config.data.train_file='' names no file"):
        files.locate(config, "", "train_file")
    with pytest.raises(UserError, match=r"config.data.train_file: no file .*/c "):
        files.locate(config, "c", "train_file")
