"""Diffusion on any state space: `--config=configs/markov_diffusion.py:PRESET`.

The preset chooses data and process together; without one it is the 2-angle torus, which needs
GMJAX_DATA_DIR as all but the synthetic sets do. `config.sample.name` is `walk` (the reversed
process) or `flow` (its probability flow).
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from configs import sections
from gmjax.networks import field
from gmjax.types import lookup


def _job(data: ConfigDict, process: ConfigDict, **network: Any) -> ConfigDict:
    keys = {key: row.default for key, row in field.SETTINGS.items()}
    return ConfigDict(
        {
            "method": "markov_diffusion",
            "seed": 0,
            "mode": "train",  # train (then evaluate and sample), evaluate, or sample
            "labels": False,  # condition on the class
            "data": data,
            "process": process,
            "loss": {
                "weighting": "simple",  # or likelihood: the variational bound itself
                "t_min": 1e-2,
                "times": "uniform",
                "spread": "stratified",
                "label_dropout": 0.1,
                "observed": 0.0,  # share of entries given, in half of every batch
            },
            "network": sections.section(keys, **network),
            "optimizer": {
                "name": "adamw",
                "learning_rate": 1e-3,
                "warmup": 100,
                "decay": "cosine",
                "weight_decay": 0.0,
                "b1": 0.9,
                "b2": 0.999,
                "clip": 1.0,
                "ema": 0.999,
            },
            "train": {
                "steps": 5000,
                "batch_size": 512,
                "accumulate": 1,
                "log_every": 100,
                "checkpoint_every": 1000,
                "evaluate_every": 0,  # 0: at the end only
                "keep": 3,
                "patience": 500,
                "workers": 0,
            },
            "evaluate": {
                "likelihood": "flow",  # or elbo
                "steps": 64,  # of the flow's integration, four evaluations each
                "probes": 0,  # 0: exact divergence; else Hutchinson's directions
                "probe": "rademacher",  # their law; or gaussian
                "times": 32,  # of the bound
                "batch_size": 256,
                "limit": 1024,  # 0: all
            },
            "sample": {
                "name": "walk",
                "steps": 200,
                "grid": "uniform",
                "num_samples": 2048,
                "batch_size": 2048,
                "guidance": 1.0,
                "interval": (0.0, 1.0),  # times at which it holds
                "rescale": 0.0,
            },
            "mesh": {"data": -1, "fsdp": 1},
        }
    )


def _clock(last: float, first: float = 1e-3) -> ConfigDict:
    """tau(t) = first (b^t - 1), b = 1 + last / first: equal times on equal factors of tau."""
    return sections.schedule("geometric", a=first, b=1 + last / first)


def _earth(name: str, first: float = 1e-3) -> ConfigDict:
    noise = sections.process("sphere", _clock(8.0, first))
    config = _job(
        sections.dataset(name), noise, width=128, blocks=2, bandwidth=8.0, frequencies=128
    )
    config.optimizer.learning_rate = 2e-3
    config.train.update(steps=9000, batch_size=256)
    config.evaluate.limit = 0
    return config


def volcano() -> ConfigDict:
    """827 volcanic eruptions on the sphere."""
    return _earth("volcano", 1e-5)


def earthquake() -> ConfigDict:
    """6120 earthquakes on the sphere."""
    return _earth("earthquake")


def flood() -> ConfigDict:
    """4875 floods on the sphere."""
    return _earth("flood")


def torsions() -> ConfigDict:
    """Two torsion angles of proteins on T^2: a Ramachandran plot."""
    return _job(sections.dataset("torsions"), sections.process("torus", _clock(8.0)))


def torsions4() -> ConfigDict:
    """Four torsion angles on T^4."""
    return _job(sections.dataset("torsions", angles=4), sections.process("torus", _clock(8.0)))


def rotations() -> ConfigDict:
    """Sixteen wrapped normals on SO(3)."""
    return _job(sections.dataset("rotations"), sections.process("rotations", _clock(8.0)))


def simplex() -> ConfigDict:
    """Four Dirichlet laws on the simplex of three parts, Wright-Fisher noise."""
    config = _job(
        sections.dataset("dirichlet"),
        sections.process("wright_fisher", sections.schedule("linear", start=0.2, end=8.0)),
    )
    config.evaluate.likelihood = "elbo"
    return config


def banknote() -> ConfigDict:
    """Four measurements of banknotes in R^4."""
    return _job(sections.dataset("banknote"), sections.process("vp", _clock(10.0)))


def langevin() -> ConfigDict:
    """The same with velocities: critically damped Langevin noise."""
    config = _job(sections.dataset("banknote"), sections.process("langevin", _clock(4.0, 0.25)))
    config.evaluate.likelihood = "elbo"
    return config


def weights() -> ConfigDict:
    """Four weights of abalones, positive numbers, under Cox-Ingersoll-Ross noise."""
    return _job(sections.dataset("abalone_weights"), sections.process("half_line", _clock(10.0)))


def counts() -> ConfigDict:
    """The digits as 64 counts of ink, under immigration and death."""
    noise = sections.process("counts", _clock(8.0, 1e-2), cap=16, arrival=4.9)
    config = _job(sections.dataset("digit_counts"), noise)
    config.evaluate.likelihood = "elbo"
    return config


def hyperbolic() -> ConfigDict:
    """A binary tree in the hyperbolic plane."""
    return _job(sections.dataset("tree"), sections.process("hyperbolic", _clock(4.0)))


def poses() -> ConfigDict:
    """Positions and rotations that depend on each other, in SO(3) x R^3."""
    config = _job(sections.dataset("poses"), sections.process("poses", _clock(8.0)))
    config.loss.observed = 0.5
    config.evaluate.likelihood = "elbo"
    return config


def abalone() -> ConfigDict:
    """A table of numbers and classes; `config.data.observed=sex` imputes the rest given it."""
    config = _job(
        sections.dataset("abalone"), sections.process("table", _clock(10.0), chain="uniform")
    )
    config.loss.observed = 0.5
    config.evaluate.likelihood = "elbo"
    return config


def wine() -> ConfigDict:
    """Eleven measurements, quality and colour of wines."""
    config = abalone()
    config.data = sections.dataset("wine")
    return config


def smoke() -> ConfigDict:
    """Seconds: the poses, a small network, a few steps of everything."""
    config = poses()
    config.network.update(width=16, blocks=1, frequencies=8)
    config.train.update(steps=20, batch_size=32, log_every=5, checkpoint_every=10)
    config.evaluate.update(times=2, limit=60, batch_size=60)
    config.sample.update(steps=5, num_samples=100, batch_size=100)
    return config


PRESETS: dict[str, Callable[[], ConfigDict]] = {
    "volcano": volcano,
    "earthquake": earthquake,
    "flood": flood,
    "torsions": torsions,
    "torsions4": torsions4,
    "rotations": rotations,
    "simplex": simplex,
    "banknote": banknote,
    "langevin": langevin,
    "weights": weights,
    "counts": counts,
    "hyperbolic": hyperbolic,
    "poses": poses,
    "abalone": abalone,
    "wine": wine,
    "smoke": smoke,
}


def get_config(preset: str = "torsions") -> ConfigDict:
    """The configuration of a preset.

    Raises:
        UserError: an unknown preset.
    """
    return lookup(PRESETS, preset, "config preset")().lock()
