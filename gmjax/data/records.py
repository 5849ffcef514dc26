"""Prepared TensorFlow Datasets, read at random access and without TensorFlow.

A directory prepared in the array_record format is a table of encoded records; TFDS reads and
decodes them one by one with NumPy alone, so a split larger than memory is a `Source` like
any other.
"""

from typing import Any

import numpy as np

from gmjax.data.checks import as_indices
from gmjax.data.files import Config, directory
from gmjax.data.sources import checked_kind
from gmjax.types import Dataset, DataSpec, Source, UserError

PREPARE = "prepared with file_format='array_record'"


def tfds(config: Config) -> Dataset:
    """Any prepared TFDS data set with a feature of fixed shape and integer type.

    Args:
        config: `dir` (or GMJAX_DATA_DIR), the TFDS data directory; `tfds_name` such as
            "mnist" or "cifar10:3.0.2"; `feature` ("image"); `label_feature` ("label"; empty:
            none); `train_split` ("train"), `test_split` ("test"); `num_values` (0: 256 for
            uint8 data, otherwise required); `num_classes` (0: by the data set's own account);
            `kind`, `ordinal` (False).

    Raises:
        UserError: TFDS is not installed, the directory was not prepared for random access, or
            it has no such split or feature.
    """
    feature = config["feature"]
    label = config["label_feature"]
    train = _records(config, config["train_split"])
    test = _records(config, config["test_split"])
    first = train[0]
    for key, name in (("feature", feature), ("label_feature", label)):
        if name and name not in first:
            raise UserError(f"config.data.{key}={name!r}; valid: {', '.join(sorted(first))}")
    example = np.asarray(first[feature])
    shape = example.shape + (1,) if example.ndim == 2 else example.shape
    num_values = config["num_values"] or (256 if example.dtype == np.uint8 else 0)
    if example.dtype.kind not in "biu":
        raise UserError(
            f"config.data.feature={feature!r} is of type {example.dtype}; valid: an integer feature"
        )
    if num_values < 1:
        raise UserError(
            f"config.data.num_values={num_values}; valid: the number of values of "
            f"{feature!r}, at least 1"
        )
    num_classes = config["num_classes"] if label else 0
    if label and not num_classes:
        num_classes = getattr(train.dataset_info.features[label], "num_classes", 0) or 0
    if label and not num_classes:
        raise UserError(
            f"config.data.num_classes=0: {config['tfds_name']!r} does not say how many classes"
            f" {label!r} has; valid: their number, or config.data.label_feature="
        )
    spec = DataSpec(
        shape,
        num_values,
        kind=checked_kind(config["kind"], shape),
        ordinal=bool(config["ordinal"]),
        num_classes=num_classes,
    )
    return Dataset(spec, _source(train, spec, feature, label), _source(test, spec, feature, label))


def cifar10(config: Config) -> Dataset:
    """CIFAR-10 from TFDS: 50000 train, 10000 test, 32x32x3 at 256 levels, 10 classes.

    Args:
        config: `dir` (or GMJAX_DATA_DIR), the TFDS data directory.
    """
    fixed = {
        "tfds_name": "cifar10",
        "feature": "image",
        "label_feature": "label",
        "train_split": "train",
        "test_split": "test",
        "num_values": 256,
        "num_classes": 10,
        "kind": "image",
        "ordinal": True,
    }
    return tfds({**config, **fixed})


def _records(config: Config, split: str) -> Any:
    """The random-access records of a split."""
    name = config["tfds_name"]
    if not name:
        raise UserError("config.data.tfds_name=''; valid: the name of a prepared TFDS data set")
    base = name.split(":")[0]
    folder = directory(config, f"{base}/, {PREPARE}")
    if not (folder / base).is_dir():
        raise UserError(f"config.data.dir (or GMJAX_DATA_DIR): no {folder / base}/, {PREPARE}")
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            f"config.data.name={config['name']!r} needs TensorFlow Datasets: "
            "pip install gmjax[tfds]"
        ) from error
    try:
        records = tensorflow_datasets.data_source(
            name, data_dir=str(folder), split=split, download=False
        )
    except Exception as error:  # whatever it is, it concerns the directory, the name or the split
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"config.data.tfds_name={name!r}, split {split!r} of {folder} ({PREPARE}?): {reason}"
        ) from error
    if not len(records):
        raise UserError(f"config.data.tfds_name={name!r}: split {split!r} is empty")
    return records


def _source(records: Any, spec: DataSpec, feature: str, label: str) -> Source:
    many = getattr(records, "__getitems__", lambda rows: [records[row] for row in rows])

    def take(indices: Any) -> dict[str, np.ndarray]:
        rows = many([int(i) for i in np.asarray(indices)])
        x, _ = as_indices(np.stack([r[feature] for r in rows]), spec.num_values, "num_values")
        out = {"x": x.reshape(-1, *spec.shape).astype(np.int32)}
        if label:
            labels = np.stack([r[label] for r in rows])
            out["label"] = as_indices(labels, spec.num_classes, "num_classes")[0].astype(np.int32)
        return out

    return Source(len(records), take)
