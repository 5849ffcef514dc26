import numpy as np
import pytest

from gmjax import data
from gmjax.data import sources
from gmjax.types import UserError

# These need no file.
MADE = {"digits", "glyph", "rotations", "dirichlet", "tree", "poses", "digit_counts"}
MADE |= {"eight_gaussians", "moons", "checkerboard", "moons_from_gaussians"}
RANKS = sources.KINDS | sources.SPACES


def dtype_of(part, spec):
    """What `take` promises: integers where there is a number of values, and for counts."""
    if spec.kind == "table":
        return {"numeric": np.float32, "classes": np.int32}[part]
    return np.int32 if spec.num_values or spec.kind == "counts" else np.float32


def parts(x):
    return x if isinstance(x, dict) else {"": x}


@pytest.mark.parametrize("name", sorted(data.DATASETS))
def test_protocol(name, config_of):
    dataset = data.load(config_of(name))
    spec = dataset.spec
    shapes = parts(spec.shape)
    if not isinstance(spec.shape, dict):
        assert len(spec.shape) == RANKS[spec.kind]
    for source in (dataset.train, dataset.test):
        assert source.size > 0
        rows = np.array([source.size - 1, 0, source.size // 2])
        out = source.take(rows)
        every = source.take(np.arange(min(source.size, 2000)))
        assert set(parts(out["x"])) == set(shapes)
        assert set(parts(every["x"])) == set(shapes)
        for part, x in parts(out["x"]).items():
            assert x.shape == (3, *shapes[part])
            assert x.dtype == dtype_of(part, spec)
            whole = parts(every["x"])[part]
            if x.dtype == np.float32:
                assert np.isfinite(whole).all()
            elif spec.kind != "counts":
                assert 0 <= whole.min() <= whole.max() < spec.num_values
        assert ("label" in out) == (spec.num_classes > 0)
        if "label" in out:
            assert out["label"].shape == (3,)
            assert out["label"].dtype == np.int32
            assert 0 <= every["label"].min() <= every["label"].max() < spec.num_classes
        if "observed" in out:
            assert out["observed"].shape == out["x"].shape
            assert out["observed"].dtype == bool
        for i, row in enumerate(rows):  # random access: a row does not depend on its company
            alone = source.take([row])
            assert set(alone) == set(out)
            for column, values in out.items():
                for part, x in parts(values).items():
                    np.testing.assert_array_equal(parts(alone[column])[part][0], x[i])
    with pytest.raises(IndexError):
        dataset.train.take([dataset.train.size])


@pytest.mark.parametrize("name", sorted(data.DATASETS))
def test_names_are_of_the_coordinates(name, config_of):
    spec = data.load(config_of(name)).spec
    shapes = parts(spec.shape)
    names = parts(spec.names) if spec.names else {}
    assert all(shapes[part] == (len(n),) for part, n in names.items())


@pytest.mark.parametrize("name", sorted(data.DATASETS))
def test_defaults(name, config_of):
    """A loader reads no other key: `load` fills in exactly these, and reading is by index."""
    defaults, config = data.defaults(name), config_of(name)
    assert set(config) <= set(defaults)
    assert (defaults["name"], defaults["dir"]) == (name, "")
    assert data.load({**defaults, **config}).spec == data.load(config).spec
    assert data.defaults(name) is not defaults


def test_defaults_of_an_unknown_name():
    with pytest.raises(UserError, match="config.data.name='nope'"):
        data.defaults("nope")


@pytest.mark.parametrize("name", sorted(data.DATASETS))
def test_same_data_from_a_config_dict(name, config_of):
    from ml_collections import ConfigDict

    plain = config_of(name)
    a, b = data.load(plain), data.load(ConfigDict(plain))
    assert a.spec == b.spec
    for column, values in a.train.take([1, 2]).items():
        np.testing.assert_equal(values, b.train.take([1, 2])[column])


def test_unknown_name():
    with pytest.raises(UserError, match=r"config.data.name='nope' is unknown; valid: .*digits"):
        data.load({"name": "nope", "dir": ""})


@pytest.mark.parametrize("name", sorted(set(data.DATASETS) - MADE))
def test_missing_directory_and_file(name, config_of, tmp_path):
    config = config_of(name)
    with pytest.raises(UserError, match=r"config.data.dir='' and GMJAX_DATA_DIR is unset"):
        data.load({**config, "dir": ""})
    with pytest.raises(UserError, match=r"config.data.dir='.*/absent' is no directory"):
        data.load({**config, "dir": str(tmp_path / "absent")})
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"no (file )?/.*/empty/.*") as caught:
        data.load({**config, "dir": str(empty)})
    assert "config.data." in str(caught.value)
    assert "GMJAX_DATA_DIR" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_directory_of_the_environment(config_of, monkeypatch):
    config = config_of("csv")
    monkeypatch.setenv("GMJAX_DATA_DIR", config["dir"])
    assert data.load({**config, "dir": ""}).train.size == 54
    monkeypatch.setenv("GMJAX_DATA_DIR", "/nowhere")
    assert data.load(config).train.size == 54, "config.data.dir goes before the environment"
    with pytest.raises(UserError, match=r"GMJAX_DATA_DIR='/nowhere' is no directory"):
        data.load({**config, "dir": ""})


@pytest.mark.parametrize("name", sorted(data.DATASETS))
def test_decoder(name, config_of):
    config = config_of(name)
    decode = data.decoder(config)
    assert (decode is None) == (name not in data.DECODERS)
    if decode:
        x = data.load(config).test.take([0, 1])["x"]
        strings = decode(x)
        assert len(strings) == 2
        assert all(isinstance(s, str) for s in strings)
        assert strings[0] != strings[1] or all((a[0] == a[1]).all() for a in parts(x).values())


def test_default_path_imports_no_tensorflow_and_no_optional_package():
    import subprocess
    import sys

    code = (
        "import sys; from gmjax import data; data.load({'name': 'digits', 'dir': ''});"
        "assert not {'tensorflow', 'tensorflow_datasets', 'grain'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
