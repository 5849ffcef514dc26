"""Runs of the toy program that several tests look at, each in processes of its own."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import training_toy as toy
from jax.experimental.compilation_cache import compilation_cache

from gmjax.training import loop
from gmjax.training import workdir as workdirs

SECONDS = 100  # after which a process of ours is taken for hung


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


def start(*arguments, devices=1, **options):
    """The toy program, in the background."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    env["JAX_COMPILATION_CACHE_DIR"] = env["GMJAX_TEST_CACHE"]
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, Path(__file__).with_name("training_toy.py"), *arguments]
    return subprocess.Popen(
        [str(word) for word in command], env=env, stderr=subprocess.PIPE, text=True, **options
    )


def start_pair(workdir, changes, pause=0.0):
    """Two processes of one run, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        start(
            *("--run", workdir, json.dumps(changes), "--pause", pause),
            *("--coordinator", f"127.0.0.1:{port}", "--num_processes", 2, "--process_id", index),
        )
        for index in range(2)
    ]


def finish(process):
    """(exit code, standard error) of a process of ours."""
    try:
        _, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, errors


def reaches(workdir, step):
    """Waits until a run has a checkpoint at `step` or later."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        names = os.listdir(workdir / "checkpoints") if (workdir / "checkpoints").exists() else []
        if any(name.isdigit() and int(name) >= step for name in names):
            return
        time.sleep(0.02)
    raise TimeoutError(f"{workdir} never reached step {step}")


def arrays(workdir, process=0):
    with np.load(workdir / f"final-{process}.npz") as file:
        return dict(file)


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
    runs = {"1": 1, "4": 4, "8": 8, "resumed": 4}
    words = [("--run", folder / name, json.dumps({"mesh.fsdp": n})) for name, n in runs.items()]
    code, errors = finish(start(*itertools.chain(*words), devices=8))
    assert code == 0 and "at step 30 of 40" in errors, errors
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
        reaches(workdir, 10)
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
