"""Flow matching on any state space: `--config=configs/flow_matching.py:PRESET`.

Without a preset it is scikit-learn's 8x8 digits as numbers in [-1, 1], a few minutes on two cores
and no download. The kind of the data says which `config.path.name` there are: an interpolant
(`linear`, `trigonometric`, `bridge`, ...) in R^d and for levels, `geodesic` on manifolds, `masked`
or `uniform` on finite sets.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from configs import sections
from gmjax.types import lookup


def _path(name: str, **values: Any) -> ConfigDict:
    """`config.path`; every key of every path may be given."""
    keys = dict.fromkeys(
        ("strength", "radius", "delta", "start", "end", "alpha_min", "low", "high", "scale"), 1.0
    )
    return sections.section({**keys, "power": 1.0, "share": "", "classes": ""}, name=name, **values)


def digits() -> ConfigDict:
    """scikit-learn's 1797 handwritten digits as numbers, straight lines to noise."""
    return ConfigDict(
        {
            "method": "flow_matching",
            "seed": 0,
            "mode": "train",  # train (then evaluate and sample), evaluate, or sample
            "labels": False,  # condition on the class
            "data": sections.dataset("digits"),
            "path": _path("linear"),
            "coupling": {
                "name": "independent",  # exact, sinkhorn or paired
                "group": 0,  # rows that are coupled together; 0: the whole batch
                "regularisation": 0.05,  # of sinkhorn
                "iterations": 200,
            },
            "loss": {
                "objective": "flow",  # or mean: MeanFlow
                "head": "velocity",  # parts where the path has gamma; else any Gaussian head
                "weighting": "cross_entropy",  # of discrete data; or bound
                "t_min": 1e-3,
                "t_max": 1.0,
                "times": "uniform",  # or logit_normal
                "spread": "stratified",
                "label_dropout": 0.1,
                "data_std": 0.5,
                "share": 0.25,  # of examples with two times, and the
                "power": 1.0,  # weight's exponent, of MeanFlow
            },
            "network": sections.network("unet", channels=(32, 64), mixer=256, dropout=0.1),
            "optimizer": {
                "name": "adamw",
                "learning_rate": 3e-3,
                "warmup": 50,
                "decay": "cosine",
                "weight_decay": 0.01,
                "b1": 0.9,
                "b2": 0.999,
                "clip": 1.0,
                "ema": 0.995,
            },
            "train": {
                "steps": 2000,
                "batch_size": 64,
                "accumulate": 1,
                "log_every": 50,
                "checkpoint_every": 500,
                "evaluate_every": 0,  # 0: at the end only
                "keep": 3,
                "patience": 500,
                "workers": 0,
            },
            "evaluate": {
                "likelihood": "flow",  # elbo of discrete data; loss where there is neither
                "steps": 16,  # of the flow's integration, four evaluations each
                "probes": 1,  # 0: exact divergence; else Hutchinson's directions
                "probe": "rademacher",  # their law; or gaussian
                "times": 32,  # of the bound and of the loss
                "batch_size": 120,
                "limit": 0,  # 0: all
            },
            "sample": {
                "name": "midpoint",  # euler, sde, mean, corrected, exact
                "steps": 32,
                "grid": "uniform",  # or cosine
                "noise": 1.0,  # of sde
                "num_samples": 1024,
                "batch_size": 256,
                "guidance": 1.0,
                "interval": (0.0, 1.0),  # times at which it holds
                "rescale": 0.0,
                "observed": "",  # given of held-out data: top, left, border, start
                "infill": "",  # guidance where there is one; or replacement
                "guide": "posterior",  # or rates, of discrete data
                "corrector": {"steps": 1, "size": 1.0},
            },
            "mesh": {"data": -1, "fsdp": 1},
        }
    )


def smoke() -> ConfigDict:
    """Seconds: every part of the job on the digits, far too short to learn them."""
    config = digits()
    config.network = sections.network("mlp", width=32, blocks=1, frequencies=8)
    config.train.update(steps=20, batch_size=16, log_every=5, checkpoint_every=10)
    config.evaluate.update(steps=2, limit=60, batch_size=60)
    config.sample.update(steps=4, num_samples=64, batch_size=64)
    return config


def discrete() -> ConfigDict:
    """The digits as 17 grey levels, masked, with the discrete job's network."""
    config = digits()
    config.path = _path("masked")
    config.network = sections.network("unet", smoothing=1.5, dropout=0.1)
    config.evaluate.likelihood = "elbo"
    config.sample.update(name="euler", steps=64)
    return config


def discrete_uniform() -> ConfigDict:
    """The digits as 17 grey levels, from uniform ones, the known factor left to the formula."""
    config = discrete()
    config.path = _path("uniform", power=2.0)
    config.loss.update(head="leave_one_out", t_min=1e-2)
    return config


def meanflow() -> ConfigDict:
    """The digits in one evaluation."""
    config = digits()
    config.loss.update(objective="mean", times="logit_normal", share=0.5)
    config.train.steps = 3000
    config.optimizer.update(learning_rate=1e-3, ema=0.999)
    config.sample.update(name="mean", steps=1)
    return config


def shakespeare() -> ConfigDict:
    """128 characters of tiny Shakespeare, masked, with a transformer."""
    config = discrete()
    config.data = sections.dataset("shakespeare", length=128)
    config.network = sections.network("transformer", width=192, blocks=6, heads=6, dropout=0.1)
    config.optimizer.update(learning_rate=1e-3, warmup=200, ema=0.999)
    config.train.update(steps=10_000, checkpoint_every=1000)
    config.evaluate.update(times=8, batch_size=64, limit=256)
    config.sample.update(steps=128, num_samples=256, batch_size=64)
    return config


def _field(data: ConfigDict, path: ConfigDict, **network: Any) -> ConfigDict:
    """Small states: a residual MLP, exact divergence."""
    config = digits()
    config.data, config.path = data, path
    config.network = sections.network("mlp", **{"width": 256, "blocks": 3, **network})
    config.optimizer.update(learning_rate=1e-3, warmup=100, weight_decay=0.0, ema=0.999)
    config.train.update(steps=5000, batch_size=512, log_every=100, checkpoint_every=1000)
    config.evaluate.update(steps=32, probes=0, batch_size=256, limit=1024)
    config.sample.update(steps=50, num_samples=2048, batch_size=2048)
    return config


def gaussians() -> ConfigDict:
    """Eight Gaussians in the plane, pairs of least distance in groups of 128."""
    config = _field(sections.dataset("eight_gaussians"), _path("linear"), width=128, bandwidth=2.0)
    config.coupling.update(name="exact", group=128)
    config.train.steps = 3000
    return config


def moons() -> ConfigDict:
    """Two moons from noise, with the pairs as they fall."""
    config = gaussians()
    config.data = sections.dataset("moons")
    config.coupling.update(name="independent", group=0)
    return config


def transfer() -> ConfigDict:
    """Eight Gaussians carried to two moons by a bridge with noise."""
    config = moons()
    config.data = sections.dataset("moons_from_gaussians")
    config.path = _path("bridge", strength=0.25)
    config.loss.update(head="parts", t_max=1 - 1e-3)
    config.evaluate.likelihood = "loss"
    config.sample.update(name="sde", steps=200, grid="cosine", noise=0.5)
    return config


def meanflow_moons() -> ConfigDict:
    """Two moons in one evaluation."""
    config = moons()
    config.loss.update(objective="mean", share=0.5)
    config.train.steps = 10_000
    config.sample.update(name="mean", steps=1)
    return config


def volcano() -> ConfigDict:
    """827 volcanic eruptions on the sphere."""
    config = _field(
        sections.dataset("volcano"), _path("geodesic"), width=128, blocks=2, bandwidth=3.0
    )
    config.train.update(steps=4000, batch_size=256)
    config.evaluate.limit = 0
    return config


def earthquake() -> ConfigDict:
    """6120 earthquakes on the sphere."""
    config = volcano()
    config.data = sections.dataset("earthquake")
    return config


def torsions() -> ConfigDict:
    """Two torsion angles of proteins on T^2."""
    return _field(sections.dataset("torsions"), _path("geodesic"))


def rotations() -> ConfigDict:
    """Sixteen wrapped normals on SO(3)."""
    return _field(sections.dataset("rotations"), _path("geodesic"))


def simplex() -> ConfigDict:
    """Four Dirichlet laws on the simplex of three parts."""
    return _field(sections.dataset("dirichlet"), _path("geodesic"))


def hyperbolic() -> ConfigDict:
    """A binary tree in the hyperbolic plane, from a wrapped normal about its root."""
    return _field(sections.dataset("tree"), _path("geodesic", scale=2.0))


def poses() -> ConfigDict:
    """Positions and rotations that depend on each other, in SO(3) x R^3."""
    return _field(sections.dataset("poses"), _path("linear"))


def abalone() -> ConfigDict:
    """A table of numbers and classes: lines for the ones, masks for the others."""
    config = _field(sections.dataset("abalone"), _path("linear", classes="masked"))
    config.evaluate.likelihood = "loss"
    config.sample.name = "euler"
    config.sample.steps = 100
    return config


PRESETS: dict[str, Callable[[], ConfigDict]] = {
    "digits": digits,
    "smoke": smoke,
    "discrete": discrete,
    "discrete_uniform": discrete_uniform,
    "meanflow": meanflow,
    "shakespeare": shakespeare,
    "gaussians": gaussians,
    "moons": moons,
    "transfer": transfer,
    "meanflow_moons": meanflow_moons,
    "volcano": volcano,
    "earthquake": earthquake,
    "torsions": torsions,
    "rotations": rotations,
    "simplex": simplex,
    "hyperbolic": hyperbolic,
    "poses": poses,
    "abalone": abalone,
}


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset.

    Raises:
        UserError: an unknown preset.
    """
    return lookup(PRESETS, preset, "config preset")().lock()
