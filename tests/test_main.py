"""The command: what it writes, how it goes on, and how it answers mistakes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gmjax import main

CONFIG = "configs/discrete_diffusion.py"
SMALL = (
    "--config.network.name=mlp",
    "--config.network.width=8",
    "--config.train.steps=6",
    "--config.train.checkpoint_every=3",
)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(Path(main.__file__).parents[1])


def run(workdir, *arguments, preset="smoke"):
    return main.main(["main", f"--config={CONFIG}:{preset}", f"--workdir={workdir}", *arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of the smallest network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(main.__file__).parents[1])
        directory = tmp_path_factory.mktemp("main") / "run"
        assert run(directory, *SMALL) == 0
    return directory


def test_a_run_writes_what_it_promises(trained):
    for name in ("config.json", "samples.png", "film.gif", "film.png", "loss.png", "samples.npy"):
        assert (trained / name).stat().st_size > 0, name
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert any("loss" in row and row["step"] == 6 for row in rows)
    assert list((trained / "events").iterdir())
    results = json.loads((trained / "results.json").read_text())
    wanted = """step bits_per_dim bits_per_dim_error pixel_frechet floor/pixel_frechet nn_accuracy
        feature_frechet independent/bits_per_dim class/bits_per_dim confident_share label_tv
        memorised_share nn_ratio nfe sample_seconds"""
    missing = set(wanted.split()) - set(results)
    assert not missing and results["step"] == 6 and results["nfe"] == 5
    assert np.load(trained / "samples.npy").shape == (64, 8, 8, 1)


def test_again_says_that_it_is_done(trained, capfd):
    before = (trained / "results.json").stat().st_mtime_ns
    assert run(trained, *SMALL) == 0
    assert "is done" in capfd.readouterr().out
    assert (trained / "results.json").stat().st_mtime_ns == before


def test_evaluate_and_sample_work_from_the_checkpoint(trained, capfd):
    before = json.loads((trained / "results.json").read_text())
    assert run(trained, *SMALL, "--config.mode=evaluate") == 0
    after = json.loads((trained / "results.json").read_text())
    assert after["bits_per_dim"] == before["bits_per_dim"]
    assert run(trained, *SMALL, "--config.mode=sample", "--config.sample.steps=7") == 0
    assert json.loads((trained / "results.json").read_text())["nfe"] == 8
    assert "network evaluations" in capfd.readouterr().out
    # The report is of other settings now: the same command does not take it for its own.
    (trained / "field.png").write_bytes(b"of a sampler before")
    stale = json.loads((trained / "results.json").read_text()) | {"bits_of_a_flow": 9.0}
    (trained / "results.json").write_text(json.dumps(stale))
    assert run(trained, *SMALL, "--config.mode=evaluate") == 0
    assert "bits_of_a_flow" not in json.loads((trained / "results.json").read_text())
    assert run(trained, *SMALL) == 0
    assert json.loads((trained / "results.json").read_text())["nfe"] == before["nfe"]
    assert not (trained / "field.png").exists()


@pytest.mark.parametrize(
    "chain",
    [
        "rates",
        pytest.param("uniform", marks=pytest.mark.slow),
        pytest.param("birth_death", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_other_chains_need_one_flag(chain, tmp_path):
    more = []
    if chain == "rates":
        ring = np.roll(np.eye(17), 1, 1) - np.eye(17)  # not reversible
        np.save(tmp_path / "ring.npy", ring)
        more = [f"--config.process.matrix={tmp_path / 'ring.npy'}"]
    flags = (*SMALL, f"--config.process.name={chain}", "--config.train.steps=2", *more)
    assert run(tmp_path / "run", *flags) == 0


MISTAKES = {
    "train.stepz": ["--config.train.stepz=3"],
    "config preset": "presett",
    "config.process.name": ["--config.process.name=unifrom"],
    "config.loss.terms": ["--config.process.name=uniform", "--config.loss.terms.masked_elbo=1"],
    "config.loss.parametrisation": ["--config.loss.parametrisation=eps"],
    "config.loss.times": ["--config.loss.times=late"],
    "config.loss.spread": ["--config.loss.spread=wide"],
    "config.sample.name": ["--config.sample.name=ddim"],
    "config.sample.grid": ["--config.sample.grid=karras"],
    "config.sample.steps": ["--config.sample.steps=0"],
    "config.sample.guidance": ["--config.sample.guidance=2.0"],
    "config.sample.ordinal": ["--config.sample.name=tau_leaping", "--config.sample.ordinal=True"],
    "config.network.name": ["--config.network.name=resnet"],
    "width": [*SMALL, "--config.network.width=-1"],
    "config.data.name": ["--config.data.name=mnistt"],
    "config.process.schedule.name": ["--config.process.schedule.name=sine"],
    "alpha_min": ["--config.process.schedule.alpha_min=2.0"],
    "sigma0": ["--config.process.name=gaussian"],
    "config.loss.t_min": ["--config.loss.t_min=1.5"],
    "config.loss.t_min=0": ["--config.loss.t_min=0.0"],
    "train.batch_size": ["--config.train.batch_size=0"],
    "train.steps": ["--config.train.steps=-5"],
    "config.train.accumulate": ["--config.train.accumulate=3"],
    "config.optimizer.name": ["--config.optimizer.name=adamm"],
    "config.optimizer.learning_rate": ["--config.optimizer.learning_rate=-1.0"],
    "config.mode": ["--config.mode=trian"],
    "mesh": ["--config.mesh.fsdp=3"],
    "config.method": ["--config.method=gan"],
    "config.evaluate.limit": ["--config.evaluate.limit=-5"],
    "config.data.angles": ["--config.data.angles=4"],
    "config.loss.label_dropout": ["--config.loss.label_dropout=2.0"],
    "config.evaluate.times": ["--config.evaluate.times=0"],
    "config.process.matrix": ["--config.process.name=rates"],
    "--config.train.steps": ["--config.train.steps=many"],
    "extra": ["extra"],
    "wrokdir": ["--wrokdir=x"],
}


@pytest.mark.parametrize("key", MISTAKES)
def test_mistakes_end_in_one_line_and_code_two(key, tmp_path, capfd):
    given = MISTAKES[key]
    preset, arguments = (given, []) if isinstance(given, str) else ("smoke", given)
    code = run(tmp_path / "run", *arguments, preset=preset)
    error = capfd.readouterr().err.strip()
    assert code == 2, error
    assert key.split("=")[0] in error and "\n" not in error, error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "matrix, word",
    [
        (np.zeros((17, 3)), "square"),
        (-np.eye(17) + np.roll(np.eye(17), 1, 1) * 2, "sum"),
        (np.eye(17) - np.roll(np.eye(17), 1, 1), ">= 0"),
        (np.roll(np.eye(5), 1, 1) - np.eye(5), "17"),
    ],
)
def test_a_wrong_rate_matrix_is_named(matrix, word, tmp_path, capfd):
    np.save(tmp_path / "m.npy", matrix)
    flags = ["--config.process.name=rates", f"--config.process.matrix={tmp_path / 'm.npy'}"]
    assert run(tmp_path / "run", *flags) == 2
    error = capfd.readouterr().err.strip()
    assert "config.process.matrix" in error and word in error and "\n" not in error


def test_wrong_data_are_named(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("GMJAX_DATA_DIR", raising=False)
    assert run(tmp_path / "run", preset="mnist") == 2
    assert "config.data.dir" in capfd.readouterr().err
    np.savez(tmp_path / "mine.npz", x=np.full((20, 4), 7))
    own = ["--config.data.name=npz", f"--config.data.dir={tmp_path}", *SMALL]
    own += ["--config.data.train_file=mine.npz", "--config.data.num_values=5"]
    assert run(tmp_path / "run", *own) == 2
    error = capfd.readouterr().err.strip()
    assert "config.data.num_values" in error and "7" in error
    assert run(tmp_path / "run", "--config.mode=sample") == 2
    assert not (tmp_path / "run").exists()


def test_a_directory_of_another_config_is_refused(trained, capfd):
    before = (trained / "config.json").read_text()
    assert run(trained, *SMALL, "--config.seed=5") == 2
    assert "seed" in capfd.readouterr().err
    assert (trained / "config.json").read_text() == before


def test_a_checkpoint_of_another_model_is_refused(trained, tmp_path, capfd):
    other = [*SMALL, "--config.network.width=16"]
    shutil.copytree(trained / "checkpoints", tmp_path / "run" / "checkpoints")
    record = json.loads((trained / "config.json").read_text())
    record["network"]["width"] = 16
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    assert run(tmp_path / "run", *other) == 2
    assert "model" in capfd.readouterr().err


def test_the_default_directory_names_config_and_preset():
    assert main.default_workdir("configs/a.py") == Path("runs/a")
    assert main.default_workdir("configs/a.py:b") == Path("runs/a-b")


@pytest.mark.slow
def test_the_general_job_writes_the_same(tmp_path, capfd):
    arguments = ["--config=configs/markov_diffusion.py:smoke", f"--workdir={tmp_path / 'run'}"]
    assert main.main(["main", *arguments]) == 0
    for name in ("config.json", "samples.png", "film.gif", "film.png", "loss.png", "samples.npz"):
        assert (tmp_path / "run" / name).stat().st_size > 0, name
    results = json.loads((tmp_path / "run/results.json").read_text())
    wanted = "step elbo elbo_error energy floor/energy independent/nll nn_accuracy nfe"
    assert not set(wanted.split()) - set(results) and results["step"] == 20
    assert "negative log-likelihood" in capfd.readouterr().out
    assert main.main(["main", *arguments, "--config.mode=sample"]) == 0


def test_data_off_their_space_are_refused(tmp_path, capfd):
    np.savez(tmp_path / "points.npz", x=2 * np.eye(3, dtype=np.float32)[np.arange(40) % 3])
    arguments = [
        "--config=configs/markov_diffusion.py:flood",
        "--config.data.name=npz",
        f"--config.data.train_file={tmp_path / 'points.npz'}",
        "--config.data.kind=sphere",
        f"--workdir={tmp_path / 'run'}",
    ]
    assert main.main(["main", *arguments]) == 2
    error = capfd.readouterr().err
    assert "unit vectors" in error and "config.data.name='npz'" in error
    assert not (tmp_path / "run").exists()


def test_mistakes_of_sampling_are_told_before_the_training(tmp_path, capfd):
    arguments = ["--config.labels=True", "--config.sample.guidance=2.0"]
    arguments += ["--config.sample.interval=(0.9,0.1)", f"--workdir={tmp_path / 'run'}"]
    code = main.main(["main", "--config=configs/gaussian_diffusion.py:smoke", *arguments])
    error = capfd.readouterr().err
    assert code == 2 and "config.sample.interval=(0.9, 0.1)" in error
    assert not (tmp_path / "run").exists()


def test_what_is_noted_of_the_data_is_said_once_it_is_read(tmp_path, capfd):
    (tmp_path / "t.csv").write_text("1,0,2\n0,1,2\n" * 20)
    data = ("--config.data.name=csv", f"--config.data.train_file={tmp_path}/t.csv")
    assert run(tmp_path / "run", *SMALL, *data, "--config.network.name=none") == 2
    said = capfd.readouterr().err.splitlines()
    assert said[0].startswith("data: 4 of 4 held-out examples (100.0%) are training examples too")
    assert said[1].startswith("error: config.network.name='none'") and len(said) == 2


@pytest.mark.slow
def test_what_other_threads_raise_is_not_printed(tmp_path):
    """Orbax's threads raise where nobody catches; `wait` and `restore` tell of it in one line."""
    code = (
        "import sys, threading\n"
        "from gmjax.training import checkpoints\n"
        "checkpoints.hush()\n"
        "class Broken:\n"
        "    def __del__(self): raise RuntimeError('left behind')\n"
        "Broken()\n"
        "thread = threading.Thread(target=lambda: 1 / 0)\n"
        "thread.start(); thread.join()\n"
        "raise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "")


JOB = "--config=configs/{}.py"
ADVICE = {
    "config.network.smoothing=0.0": [JOB.format("discrete_diffusion"), "image"],
    "configs/flow_matching.py": [JOB.format("discrete_diffusion"), "--config.data.name=moons"],
    "valid: gaussian": [JOB.format("vae"), "--config.data.name=moons"],
    "config.process.name=half_line": [JOB.format("markov_diffusion") + ":smoke", "half_line"],
    "configs/vr_iwae.py": ["--config=runs/a/config.json"],
    "configs/classical.py": ["--config=configs"],
    "configs/vae.py": [],
}


@pytest.mark.parametrize("cure", ADVICE)
def test_a_key_that_nobody_set_comes_with_its_cure(cure, tmp_path, capfd):
    arguments = list(ADVICE[cure])
    if arguments and arguments[-1] in ("image", "half_line"):
        kind, file = arguments.pop(), tmp_path / "own.npz"
        shape = (40, 8, 8) if kind == "image" else (40, 2)
        x = np.random.default_rng(0).integers(1, 99, shape)
        np.savez(file, x=x.astype(np.uint8 if kind == "image" else np.float32))
        own = {"name": "npz", "train_file": file, "kind": kind}
        arguments += [f"--config.data.{key}={value}" for key, value in own.items()]
    assert main.main(["main", f"--workdir={tmp_path / 'run'}", *arguments]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and cure in error
    assert not (tmp_path / "run").exists()


def test_what_a_preset_says_of_its_data_yields_to_another_set():
    other = ["--config.data.name=npz", "--config.data.kind=torus"]
    words = ["main", JOB.format("markov_diffusion") + ":torsions4"]
    assert main.parse(words).config.data.angles == 4
    assert main.parse([*words, *other]).config.data.angles is None
    # What was asked for stays, to be refused.
    assert main.parse([*words, *other, "--config.data.angles=2"]).config.data.angles == 2
