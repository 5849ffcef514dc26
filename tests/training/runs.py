"""The toy program in processes of its own, which can be stopped, killed and waited for."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import gmjax

SECONDS = 100  # after which a process of ours is taken for hung


def start(*arguments, devices=1, **options):
    """The toy program, in the background."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    env["PYTHONPATH"] = str(Path(gmjax.__file__).parents[1])
    env["JAX_COMPILATION_CACHE_DIR"] = env["GMJAX_TEST_CACHE"]
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, Path(__file__).with_name("toy.py"), *arguments]
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


def reaches(process, workdir, step):
    """Waits until a run of ours has a checkpoint at `step` or later."""
    deadline, folder = time.monotonic() + SECONDS, workdir / "checkpoints"
    while not any(name.isdigit() and int(name) >= step for name in listing(folder)):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"{workdir} did not reach step {step}: {process.stderr.read()}")
        time.sleep(0.02)


def listing(folder):
    return os.listdir(folder) if folder.exists() else []


def arrays(workdir, process=0):
    with np.load(workdir / f"final-{process}.npz") as file:
        return dict(file)
