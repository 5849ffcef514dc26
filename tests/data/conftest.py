"""Tiny files in the layout of every data set, so that no loader goes untested."""

import gzip
import os
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest

REAL = os.environ.get("GMJAX_DATA_DIR", "")


@pytest.fixture
def real():
    """The directory of the real data sets."""
    if not REAL:
        pytest.skip("GMJAX_DATA_DIR is unset: no real data sets here")
    return REAL


@pytest.fixture(autouse=True)
def no_directory(monkeypatch):
    """No test reads the environment's directory unless it says so."""
    monkeypatch.delenv("GMJAX_DATA_DIR", raising=False)


@pytest.fixture
def idx_bytes():
    """array -> the bytes of an idx file."""
    return _idx_bytes


def _idx_bytes(array):
    """The idx format, written down independently of the reader."""
    code = {"uint8": 8, "int16": 11, "int32": 12, "float32": 13}[array.dtype.name]
    head = struct.pack(">BBBB", 0, 0, code, array.ndim)
    sizes = b"".join(struct.pack(">I", n) for n in array.shape)
    return head + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def image_set(n, levels, shape=(28, 28), classes=10, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, levels, (n, *shape)).astype(np.uint8)
    return x, (np.arange(n) % classes).astype(np.uint8)


def make_mnist(root):
    (root / "mnist").mkdir()
    for stem, n in (("train", 40), ("t10k", 20)):
        x, label = image_set(n, 256, seed=n)
        x.flat[0] = 255
        (root / f"mnist/{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx_bytes(x)))
        (root / f"mnist/{stem}-labels-idx1-ubyte").write_bytes(_idx_bytes(label))
    return {}


def make_binarized(root):
    (root / "binarized_mnist").mkdir()
    bits = {s: image_set(n, 2, (784,), seed=n)[0] for s, n in SIZES.items()}
    packed = {s: np.packbits(b, axis=1) for s, b in bits.items()}
    np.savez(root / "binarized_mnist/binarized_mnist.npz", **packed)
    return {}


SIZES = {"train": 30, "valid": 10, "test": 12}


def make_shakespeare(root):
    (root / "tiny_shakespeare").mkdir()
    (root / "tiny_shakespeare/input.txt").write_text("To be, or not to be.\n" * 200)
    return {"length": 16}


def make_promoters(root):
    (root / "promoters").mkdir()
    letters = np.array(list("ACGT"))[np.random.default_rng(0).integers(0, 4, (50, 30))]
    lines = "\n".join("".join(row) for row in letters) + "\n"
    path = root / "promoters/promoters_TATA_human.txt.gz"
    path.write_bytes(gzip.compress(lines.encode()))
    return {}


def make_chorales(root):
    (root / "jsb_chorales").mkdir()
    rng = np.random.default_rng(0)
    columns = {}
    for side in ("train", "valid", "test"):
        lengths = np.array([68, 140, 64], np.int32)
        notes = rng.integers(36, 82, (lengths.sum(), 4)).astype(np.int8)
        notes[rng.random(notes.shape) < 0.1] = -1
        columns |= {f"{side}_notes": notes, f"{side}_lengths": lengths}
    np.savez(root / "jsb_chorales/jsb16th_satb.npz", **columns)
    return {}


def make_idx(root):
    x, label = image_set(50, 5, (6, 7), classes=3)
    (root / "x").write_bytes(_idx_bytes(x))
    (root / "y").write_bytes(_idx_bytes(label))
    return {"train_file": "x", "train_label_file": "y", "ordinal": True, "num_values": 5}


def make_npz(root):
    x = np.random.default_rng(0).integers(0, 9, (50, 12))
    np.savez(root / "mine.npz", x=x, label=np.arange(50) % 2, observed=np.tile(x[:1] > 4, (50, 1)))
    return {"train_file": "mine.npz", "kind": "sequence"}


def make_csv(root):
    x = np.random.default_rng(0).integers(0, 4, (60, 5))
    rows = [",".join(map(str, row)) + f",{'abc'[i % 3]}" for i, row in enumerate(x)]
    (root / "t.csv").write_text("a,b,c,d,e,kind\n" + "\n".join(rows) + "\n")
    return {"train_file": "t.csv", "labels": True}


def make_text(root):
    (root / "t.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    return {"train_file": "t.txt", "length": 10, "stride": 5}


def make_earth(stem, header):
    def make(root):
        (root / "earth_sphere").mkdir()
        rng = np.random.default_rng(0)
        degrees = rng.uniform((-90, -180), (90, 180), (50, 2)).round(3)
        rows = "\n".join(f"{u},{v}" for u, v in degrees)
        (root / f"earth_sphere/{stem}.csv").write_text(header + rows + "\n")
        return {}

    return make


def make_torsions(root):
    (root / "torsion_angles").mkdir()
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, (60, 4))
    path = root / "torsion_angles/protein_torsions.npz"
    np.savez(path, isoleucine_phi_psi_chi1_chi2=angles)
    return {}


def make_abalone(root):
    (root / "uci_classification").mkdir()
    rng = np.random.default_rng(0)
    rows = [[*rng.uniform(0, 1, 7).round(3), rng.integers(1, 29)] for _ in range(50)]
    lines = [",".join(map(str, ["MFI"[i % 3], *row])) for i, row in enumerate(rows)]
    (root / "uci_classification/abalone.csv").write_text("\n".join(lines) + "\n")
    return {}


def make_banknote(root):
    (root / "uci_classification").mkdir()
    rows = np.random.default_rng(0).normal(3, 2, (50, 4)).round(4)
    text = "\n".join(",".join(map(str, [*row, i % 2])) for i, row in enumerate(rows))
    (root / "uci_classification/banknote_authentication.csv").write_text(text + "\n")
    return {}


def make_wine(root):
    (root / "uci_classification").mkdir()
    rng = np.random.default_rng(0)
    for colour, n in (("red", 20), ("white", 40)):
        rows = [[*rng.uniform(0, 9, 11).round(2), 3 + i % 7] for i in range(n)]
        text = "\n".join(",".join(map(str, row)) for row in rows) + "\n"
        (root / f"uci_classification/winequality-{colour}.csv").write_text(text)
    return {}


def make_table(root):
    rows = [f"{'ab'[i % 2]},{i},{i % 4},{i * i / 7}" for i in range(50)]
    (root / "t.csv").write_text("letter,time,quarter,height\n" + "\n".join(rows) + "\n")
    return {"train_file": "t.csv", "class_columns": "quarter"}


class Records:
    """What `tfds.data_source` returns, as far as a loader may rely on it."""

    def __init__(self, n, shape=(32, 32, 3), classes=10):
        x, label = image_set(n, 256, shape, classes, seed=n)
        self.rows = [{"image": a, "label": int(b)} for a, b in zip(x, label, strict=True)]
        features = {"label": types.SimpleNamespace(num_classes=classes), "image": object()}
        self.dataset_info = types.SimpleNamespace(features=features)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        return self.rows[row]


@pytest.fixture
def fake_tfds(monkeypatch):
    """A stand-in for tensorflow_datasets; the calls it saw are its attribute `calls`."""
    module = types.ModuleType("tensorflow_datasets")
    module.calls = []
    module.splits = {"train": Records(30), "test": Records(10)}

    def data_source(name, **kwargs):
        module.calls.append((name, kwargs))
        return module.splits[kwargs["split"]]

    module.data_source = data_source
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return module


def make_tfds(root):
    (root / "mine").mkdir()
    return {"tfds_name": "mine:1.0.0"}


def make_cifar10(root):
    (root / "cifar10").mkdir()
    return {}


MAKE = {
    "digits": lambda root: {},
    "mnist": make_mnist,
    "binarized_mnist": make_binarized,
    "shakespeare": make_shakespeare,
    "promoters": make_promoters,
    "chorales": make_chorales,
    "glyph": lambda root: {},
    "cifar10": make_cifar10,
    "volcano": make_earth("volerup", "# where\nLatitude,Longitude\n"),
    "earthquake": make_earth("quakes_all", "# where\n# what\n# more\nLATITUDE,LONGITUDE\n"),
    "flood": make_earth("flood", "# where\nlat,long\n"),
    "torsions": make_torsions,
    "abalone": make_abalone,
    "wine": make_wine,
    "rotations": lambda root: {},
    "dirichlet": lambda root: {},
    "tree": lambda root: {},
    "poses": lambda root: {},
    "digit_counts": lambda root: {},
    **dict.fromkeys(
        ("eight_gaussians", "moons", "checkerboard", "moons_from_gaussians"), lambda root: {}
    ),
    "banknote": make_banknote,
    "abalone_weights": make_abalone,
    "table": make_table,
    "idx": make_idx,
    "npz": make_npz,
    "csv": make_csv,
    "text": make_text,
    "tfds": make_tfds,
}


@pytest.fixture
def config_of(tmp_path, fake_tfds):
    """name -> the configuration of a tiny data set of that name."""

    def make(name, **keys):
        root = Path(tmp_path) / name
        root.mkdir()
        return {"name": name, "dir": str(root), **MAKE[name](root), **keys}

    make.names = sorted(MAKE)
    return make
