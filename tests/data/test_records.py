import subprocess
import sys

import numpy as np
import pytest

from gmjax import data
from gmjax.types import DataSpec, UserError


def test_tfds_reads_the_directory_and_never_downloads(config_of, fake_tfds):
    config = config_of("tfds", train_split="train", test_split="test")
    dataset = data.load(config)
    assert dataset.spec == DataSpec((32, 32, 3), 256, "image", False, 10)
    assert [(name, kw["split"]) for name, kw in fake_tfds.calls] == [
        ("mine:1.0.0", "train"),
        ("mine:1.0.0", "test"),
    ]
    for _, keywords in fake_tfds.calls:
        assert keywords["data_dir"] == config["dir"]
        assert keywords["download"] is False
    out = dataset.train.take(np.array([7, 2]))
    rows = fake_tfds.splits["train"].rows
    np.testing.assert_array_equal(out["x"], [rows[7]["image"], rows[2]["image"]])
    np.testing.assert_array_equal(out["label"], [rows[7]["label"], rows[2]["label"]])


def test_tfds_settings(config_of, fake_tfds):
    config = config_of("tfds")
    assert data.load({**config, "label_feature": ""}).spec.num_classes == 0
    spec = data.load({**config, "num_values": 300, "num_classes": 12, "ordinal": True}).spec
    assert spec == DataSpec((32, 32, 3), 300, "image", True, 12)
    for split in fake_tfds.splits.values():
        for row in split.rows:
            row["image"] = row["image"][:, :, 0]
    dataset = data.load(config)
    assert dataset.spec.shape == (32, 32, 1)
    assert dataset.train.take([0])["x"].shape == (1, 32, 32, 1)


def test_tfds_uses_the_bulk_read_where_there_is_one(config_of, fake_tfds):
    """TFDS reads many records at a time when it is given a list of plain integers."""
    asked = []
    train = fake_tfds.splits["train"]
    train.__class__ = type(
        "Bulk",
        (type(train),),
        {"__getitems__": lambda self, rows: asked.append(rows) or [self.rows[i] for i in rows]},
    )
    data.load(config_of("tfds")).train.take(np.array([3, 1]))
    assert asked == [[3, 1]]
    assert all(type(i) is int for i in asked[0])


def test_cifar10(config_of, fake_tfds):
    dataset = data.load(config_of("cifar10"))
    assert fake_tfds.calls[0][0] == "cifar10"
    assert dataset.spec == DataSpec((32, 32, 3), 256, "image", True, 10)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tfds_name": ""}, "config.data.tfds_name=''; valid: the name of a prepared"),
        ({"tfds_name": "other"}, "no .*/other/, prepared with file_format='array_record'"),
        ({"feature": "audio"}, "config.data.feature='audio'; valid: image, label"),
        ({"label_feature": "y"}, "config.data.label_feature='y'; valid: image, label"),
        ({"train_split": "tarin"}, "config.data.tfds_name='mine:1.0.0', split 'tarin'"),
        ({"kind": "sequence"}, "config.data.kind='sequence' does not fit"),
        ({"num_values": -3}, "config.data.num_values=-3"),
    ],
)
def test_bad_tfds(keys, message, config_of):
    with pytest.raises(UserError, match=message):
        data.load({**config_of("tfds"), **keys})


def test_values_out_of_range_are_named_when_read(config_of, fake_tfds):
    config = config_of("tfds")
    fake_tfds.splits["train"].rows[3]["image"][0, 0, 0] = 255
    source = data.load({**config, "num_values": 255}).train
    with pytest.raises(UserError, match="config.data.num_values=255: data hold 255; valid: 0..254"):
        source.take([3])
    source = data.load({**config, "num_classes": 3}).train
    with pytest.raises(UserError, match="config.data.num_classes=3: data hold 9; valid: 0..2"):
        source.take([9])


def test_other_integers_need_num_values(config_of, fake_tfds):
    config = config_of("tfds")
    for row in fake_tfds.splits["train"].rows:
        row["image"] = row["image"].astype(np.int64)
    with pytest.raises(UserError, match="config.data.num_values=0; valid: the number of values"):
        data.load(config)


def test_without_tensorflow_datasets(config_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for name in ("tfds", "cifar10"):
        with pytest.raises(UserError, match=r"name='\w+' needs .*: pip install gmjax\[tfds\]"):
            data.load(config_of(name))


PREPARE = """
import io, sys
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = None

    @classmethod
    def get_metadata(cls):
        return tfds.core.dataset_metadata.DatasetMetadata(
            description="", citation="", tags=[])

    def _info(self):
        features = {"image": tfds.features.Image(shape=(4, 4, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=3)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(0, 20), "test": self._generate_examples(20, 28)}

    def _generate_examples(self, first, last):
        for i in range(first, last):
            file = io.BytesIO()
            pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) + i
            Image.fromarray(pixels).save(file, "png")
            file.seek(0)
            yield i, {"image": file, "label": i % 3}

Tiny(data_dir=sys.argv[1], file_format=sys.argv[2]).download_and_prepare()
"""

READ = """
import sys
import numpy as np
from gmjax import data
from gmjax.data import batches
from gmjax.types import UserError

def main():
    config = {"name": "tfds", "dir": sys.argv[1], "tfds_name": "tiny"}
    dataset = data.load(config)
    assert dataset.spec == ((4, 4, 3), 256, "image", False, 3), dataset.spec
    out = [s.take(np.arange(s.size)) for s in (dataset.train, dataset.test)]
    for part, want in zip(out, (range(20), range(20, 28))):
        first = part["x"][:, 0, 0, 0]
        assert sorted(first) == list(want), first
        assert (part["label"] == first % 3).all()
        pixels = np.arange(48).reshape(4, 4, 3) + first[:, None, None, None]
        assert (part["x"] == pixels).all()
    make = batches.batcher(dataset.train, 6, seed=0, workers=2)
    for step in range(5):
        made, wanted = make(step), batches.batch(dataset.train, 6, 0, step)
        assert all((made[k] == wanted[k]).all() for k in wanted)
    for bad in ({"test_split": "valid"}, {"tfds_name": "tiny:9.9.9"}):
        try:
            data.load({**config, **bad})
        except UserError as error:
            print(error)
            assert "tfds_name='tiny" in str(error) and chr(10) not in str(error)
        else:
            raise AssertionError(bad)
    assert "tensorflow" not in sys.modules

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_a_really_prepared_directory(tmp_path):
    """Write an array_record directory and read it, both without TensorFlow."""
    pytest.importorskip("tensorflow_datasets")
    for name, code in (("prepare", PREPARE), ("read", READ)):
        (tmp_path / f"{name}.py").write_text(code)
    run = lambda *words: subprocess.run([sys.executable, *words], check=True, timeout=120)
    run(tmp_path / "prepare.py", tmp_path / "data", "array_record")
    run(tmp_path / "read.py", tmp_path / "data")
