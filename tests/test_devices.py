"""The same command on one device, on eight, sharded, and in two processes."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import gmjax
from configs import discrete_diffusion
from gmjax import data, methods
from gmjax.training import loop

ROOT = Path(gmjax.__file__).parents[1]
FLAGS = ("--config.network.name=mlp", "--config.network.width=16", "--config.train.steps=8")
pytestmark = pytest.mark.slow


def start(workdir, *more, devices=1):
    """The command in the background."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "gmjax.main", "--config=configs/discrete_diffusion.py:smoke"]
    command += [f"--workdir={workdir}", *FLAGS, *more]
    return subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)


def finish(process):
    try:
        _, errors = process.communicate(timeout=500)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, errors[-2000:]


def parameters(workdir):
    config = discrete_diffusion.get_config("smoke").unlock()
    config.network.update(name="mlp", width=16)
    config.train.steps = 8
    method = methods.build(config, data.load(config.data).spec)
    _, state = loop.load(method, config, workdir)
    return jax.device_get(state.params)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finish(start(workdir))
    return workdir


def compare(alone, other):
    """Parameters to float tolerance: sums of 16 examples in another order, over 8 Adam steps."""
    a, b = parameters(alone), parameters(other)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5), a, b)
    one, two = (json.loads((run / "results.json").read_text()) for run in (alone, other))
    np.testing.assert_allclose(one["bits_per_dim"], two["bits_per_dim"], rtol=1e-4)


@pytest.mark.parametrize("fsdp", [1, 4])
def test_eight_devices_give_the_parameters_of_one(alone, tmp_path, fsdp):
    finish(start(tmp_path / "run", f"--config.mesh.fsdp={fsdp}", devices=8))
    compare(alone, tmp_path / "run")


def test_figures_are_those_of_one_device(alone, tmp_path):
    """The same parameters judged on four devices, in batches of 62 and of 120."""
    found = []
    for name, devices, size in (("one", 1, 120), ("four", 4, 62)):
        shutil.copytree(alone, tmp_path / name)
        flags = ("--config.mode=evaluate", f"--config.evaluate.batch_size={size}")
        finish(start(tmp_path / name, *flags, devices=devices))
        found.append(json.loads((tmp_path / name / "results.json").read_text()))
    for key in ("bits_per_dim", "bits_diffusion", "bits_prior", "bits_reconstruction"):
        np.testing.assert_allclose(found[0][key], found[1][key], rtol=1e-6)


def test_two_processes_give_the_parameters_of_one(alone, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pair = [
        start(
            tmp_path / "run",
            f"--coordinator=127.0.0.1:{port}",
            "--num_processes=2",
            f"--process_id={i}",
        )
        for i in range(2)
    ]
    for process in pair:
        finish(process)
    compare(alone, tmp_path / "run")


def test_a_batch_that_the_mesh_does_not_divide_is_refused(tmp_path):
    process = start(tmp_path / "run", "--config.train.batch_size=12", devices=8)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "batch_size=12" in errors and "\n" not in errors.strip()
    assert not (tmp_path / "run").exists()
