import gzip
import zipfile

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
        lambda b: b[:3] + b"\xff" + b[4:],
        lambda b: b[:3] + b"\xff" + b"\0\0\0\1" * 255 + b"1",  # whole, but of rank 255
        lambda b: b[:3] + b"\0" + b"1",
        lambda b: b[:4] + b"\xff" * 8 + b[12:],
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


def test_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("né\r\nw".encode())
    assert files.read_text(path) == "né\nw"
    path.write_bytes(b"\xef\xbb\xbfa\rb\r\rc")
    assert files.read_text(path) == "a\nb\n\nc"
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


def test_a_file_may_fill_a_part_of_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "memory", lambda: 4 * 2**20)
    with open(tmp_path / "a", "wb") as sparse:
        sparse.truncate(10**9)
    (tmp_path / "b.gz").write_bytes(gzip.compress(np.random.default_rng(0).bytes(2**21)))
    np.savez_compressed(tmp_path / "c.npz", x=np.arange(2**18))
    for name, read in {
        "a": files.read_bytes,
        "b.gz": files.read_bytes,
        "c.npz": files.read_npz,
    }.items():
        with pytest.raises(UserError, match=rf"{name} holds \d+ MiB or more; valid: at most 1 MiB"):
            read(tmp_path / name)
    (tmp_path / "d").write_bytes(b"a" * 2**17)
    assert len(files.read_bytes(tmp_path / "d")) == 2**17
    with pytest.raises(UserError, match="at most 0 MiB"):
        files.read_text(tmp_path / "d")


def test_what_is_compressed_may_not_grow_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SMALL", 2**16)
    monkeypatch.setattr(files, "PIECE", 2**12)
    read = []
    decompress = files.gzip.open

    def spy(path):
        stream = decompress(path)
        step = stream.read
        stream.read = lambda n: read.append(n) or step(n)
        return stream

    monkeypatch.setattr(files.gzip, "open", spy)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"1,2\n" * 2**20))
    with pytest.raises(
        UserError, match=r"a.gz grows from \d+ bytes to .*; valid: 200-fold \(unpack"
    ):
        files.read_bytes(tmp_path / "a.gz")
    assert sum(read) < 2**21, "told long before all of it is there"
    np.savez_compressed(tmp_path / "b.npz", x=np.zeros(2**18))
    with pytest.raises(UserError, match="b.npz grows .*np.savez leaves arrays as they are"):
        files.read_npz(tmp_path / "b.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros(2**18))
    assert files.read_npz(tmp_path / "b.npz")["x"].shape == (2**18,)


def npy(shape, dtype="<f8", body=b"1" * 80):
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (63 - (10 + len(head)) % 64) + "\n"
    return b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head.encode() + body


@pytest.mark.parametrize(
    "member",
    [
        npy("(1000000, 1000000)"),
        npy("(11,)"),
        npy("(9,)"),
        npy("(-1, 5)"),
        npy("('a', 5)"),
        npy((1,) * 200, "|u1", b"1"),
        npy("(10,)", "|O"),
        b"\x93NUMPY\1\0\7\0{[]: 1}",
        b"\x93NUMPY\1\0\7\0(((((((",
        b"\x93NUMPY\2\0\xff\xff\xff\x7f(((((((",
        b"\x93NUMPY\3\0" + bytes(100),
        b"no array",
        b"",
    ],
)
def test_hostile_arrays(member, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", member)
    with pytest.raises(UserError, match=r"a.npz is no npz file of plain arrays: \S") as caught:
        files.read_npz(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_opened(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("1")
    (tmp_path / "d").mkdir()
    config = {"dir": str(tmp_path)}
    with pytest.raises(
        UserError, match=r"config.data.train_file: .*/d is a directory; valid: a file"
    ):
        files.locate(config, "d", "train_file")
    for name in ("a\0b", "a" * 5000, "~nobody-of-this-name/a", "a/b", "/dev/null"):
        with pytest.raises(UserError, match="config.data.train_file: no file"):
            files.locate(config, name, "train_file")

    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.Path, "read_bytes", refused)
    with pytest.raises(UserError, match="/a cannot be read: Permission denied"):
        files.read_bytes(tmp_path / "a")
