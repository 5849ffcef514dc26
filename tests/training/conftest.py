"""Runs of the toy program that several tests look at."""

import itertools
import json
import os
import shutil
import signal
from pathlib import Path
from typing import NamedTuple

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from training import toy
from training.runs import arrays, finish, reaches, start, start_pair

from gmjax.training import loop
from gmjax.training import workdir as workdirs


class Run(NamedTuple):
    workdir: Path
    arrays: dict


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A compilation cache that the processes of these tests share, for they compile alike."""
    folder = str(tmp_path_factory.mktemp("cache"))
    os.environ["GMJAX_TEST_CACHE"] = folder
    return folder


@pytest.fixture(scope="module", autouse=True)
def use_cache(cache):
    before = jax.config.jax_compilation_cache_dir
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def reference(tmp_path_factory, cache):
    """One uninterrupted run on one device, in this process."""
    workdir = workdirs.prepare(tmp_path_factory.mktemp("reference"), toy.config())
    state = loop.train(toy.method(), toy.batch, toy.config(), workdir, toy.evaluate)
    return Run(workdir, toy.flat(state))


@pytest.fixture(scope="session")
def eight_devices(tmp_path_factory, reference):
    """{name: final state} on eight devices; `resumed` has done three quarters on one device."""
    folder = tmp_path_factory.mktemp("eight")
    shutil.copytree(reference.workdir, folder / "resumed")
    shutil.rmtree(folder / "resumed" / "checkpoints" / "40")
    runs = {"1": 1, "4": 4, "8": 8, "resumed": 8}
    words = [("--run", folder / name, json.dumps({"mesh.fsdp": n})) for name, n in runs.items()]
    code, errors = finish(start(*itertools.chain(*words), devices=8))
    assert code == 0 and "from step 30 of 40" in errors, errors
    return {name: arrays(folder / name) for name in runs}


class Pair(NamedTuple):
    workdir: Path
    stopped: list  # (exit code, standard error) of the run that got a signal
    finished: list  # of its continuation
    arrays: list


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory):
    """Two processes that share the state. One is told to stop midway; what it wrote of the
    newest checkpoint is damaged; then both go on.
    """
    workdir = tmp_path_factory.mktemp("pair")
    changes = {"mesh.fsdp": 2}
    pair = start_pair(workdir, changes, pause=0.05)
    try:
        reaches(pair[0], workdir, 10)
        pair[1].send_signal(signal.SIGTERM)
        stopped = [finish(process) for process in pair]
        newest = max(workdir.glob("checkpoints/[0-9]*"), key=lambda path: int(path.name))
        for path in newest.glob("state/ocdbt.process_1/d/*"):
            path.write_bytes(b"")
        pair = start_pair(workdir, changes)
        finished = [finish(process) for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [code for code, _ in finished] == [0, 0], (stopped, finished)
    return Pair(workdir, stopped, finished, [arrays(workdir, index) for index in range(2)])
