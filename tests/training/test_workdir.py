"""A work directory belongs to one configuration."""

import json
import os
from contextlib import ExitStack

import pytest
from training import toy

from gmjax.training import workdir as workdirs
from gmjax.types import UserError


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_new_empty_and_again(tmp_path):
    config = toy.config()
    path = tmp_path / "a" / "b"
    assert workdirs.prepare(path, config) == path.resolve()
    assert json.loads((path / "config.json").read_text()) == workdirs.to_dict(config)
    workdirs.prepare(path, config)
    assert os.listdir(path) == ["config.json"]
    (tmp_path / "empty").mkdir()
    workdirs.prepare(tmp_path / "empty", config)


def test_keys_that_change_nothing_trained_may_differ(tmp_path):
    workdirs.prepare(tmp_path, {**toy.config().to_dict(), "mode": "train"})
    changed = {**toy.config(**{"mesh.data": 1, "train.log_every": 9}).to_dict(), "mode": "sample"}
    workdirs.prepare(tmp_path, changed)
    assert json.loads((tmp_path / "config.json").read_text()) == workdirs.to_dict(changed)


def test_another_config_is_refused_by_key_and_nothing_is_written(tmp_path):
    workdirs.prepare(tmp_path, toy.config())
    before = snapshot(tmp_path)
    changed = toy.config(**{"seed": 1, "train.steps": 41, "train.keep": 9}).to_dict()
    changed["model"] = {"width": 3}
    with pytest.raises(UserError) as error:
        workdirs.prepare(tmp_path, changed)
    message = str(error.value)
    assert "seed (0 there, 1 here)" in message
    assert "train.steps (40 there, 41 here)" in message
    assert 'model (nothing there, {"width": 3} here)' in message
    assert "train.keep" not in message and "--workdir" in message and "\n" not in message
    assert snapshot(tmp_path) == before


def test_a_key_that_begins_like_a_free_one_is_not_free(tmp_path):
    workdirs.prepare(tmp_path, {"mode": 1, "model": 1, "sample": {"n": 1}, "sampler": 1})
    workdirs.prepare(tmp_path, {"mode": 2, "model": 1, "sample": {"n": 2}, "sampler": 1})
    for changes in ({"model": 2}, {"sampler": 2}):
        with pytest.raises(UserError):
            config = {"mode": 2, "model": 1, "sample": {"n": 2}, "sampler": 1, **changes}
            workdirs.prepare(tmp_path, config)


def test_strangers_are_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="thesis.tex"):
        workdirs.prepare(tmp_path, toy.config())
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_killed_before_the_config_was_complete(tmp_path):
    (tmp_path / ".config.json.123").write_text("{")
    workdirs.prepare(tmp_path, toy.config())
    assert (tmp_path / "config.json").exists()


def test_what_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="workdir="):
            workdirs.prepare(path, toy.config())
    with pytest.raises(UserError, match="holds no run"):
        workdirs.prepare(tmp_path / "new", toy.config(), create=False)
    assert not (tmp_path / "new").exists()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        workdirs.prepare(tmp_path / "broken", toy.config())


def test_one_process_at_a_time(tmp_path):
    with ExitStack() as hold:
        workdirs.prepare(tmp_path / "run", toy.config(), hold=hold)
        with ExitStack() as other, pytest.raises(UserError, match=f"held by process {os.getpid()}"):
            workdirs.prepare(tmp_path / "run", toy.config(), hold=other)
    with ExitStack() as hold:
        workdirs.prepare(tmp_path / "run", toy.config(), hold=hold)
    assert os.listdir(tmp_path / "run") == ["config.json"]


def test_what_a_killed_write_left_is_cleared(tmp_path):
    workdirs.prepare(tmp_path, toy.config())
    for litter in (".config.json.123", ".results.json.4"):
        (tmp_path / litter).write_text("{")
    (tmp_path / ".mine.txt").write_text("kept")
    with ExitStack() as hold:
        workdirs.prepare(tmp_path, toy.config(), hold=hold)
    assert sorted(os.listdir(tmp_path)) == [".mine.txt", "config.json"]


@pytest.mark.parametrize("text", ["[]", "3", "", "{", "null", "[" * 100_000])
def test_a_damaged_record_is_named(tmp_path, text):
    workdirs.prepare(tmp_path, toy.config())
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json cannot be read"):
        workdirs.prepare(tmp_path, toy.config())


def test_a_trained_model_may_be_judged_on_another_file(tmp_path):
    config = {"mode": "train", "data": {"test_file": "a.npz", "name": "npz"}}
    workdirs.prepare(tmp_path, config)
    other = {"mode": "evaluate", "data": {"test_file": "b.npz", "name": "npz"}}
    workdirs.prepare(tmp_path, other, create=False)
    assert json.loads((tmp_path / "config.json").read_text()) == config
    with pytest.raises(UserError, match="data.test_file"):
        workdirs.prepare(tmp_path, {**other, "mode": "train"})
