"""Linear and mixture models and autoencoders: `--config=configs/classical.py:PRESET`.

All presets take the digits; `--config.data.name=mnist` or a set of kind euclidean takes others.
PCA is exact when `train.steps` batches are one epoch, EM when a batch is all the data.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from configs import sections
from gmjax.types import lookup

DIGITS = 1437  # training examples


def _job(name: str, **model: Any) -> ConfigDict:
    return ConfigDict(
        {
            "method": "classical",
            "seed": 0,
            "mode": "train",  # train (then evaluate and sample), evaluate, or sample
            "labels": False,
            "data": sections.dataset("digits"),
            "model": {
                "name": name,  # pca, ppca, gmm or autoencoder
                "components": 10,  # of pca and ppca the dimension, of gmm the number
                "covariance": "diagonal",  # or full, tied, spherical
                "restarts": 4,
                "floor": 1e-6,  # added to variances
                "lloyd": 20,  # iterations of k-means before EM
                "stepwise": 0.0,  # in (0.5, 1]: online EM on small batches
                **model,
            },
            "network": {"latent": 10, "hidden": ()},
            "loss": {"noise": 0.0},  # added to what an autoencoder is shown
            "optimizer": {
                "name": "adamw",
                "learning_rate": 1e-2,
                "warmup": 50,
                "decay": "cosine",
                "weight_decay": 0.0,
                "b1": 0.9,
                "b2": 0.999,
                "clip": 0.0,
                "ema": 0.99,
            },
            "train": {
                "steps": 1,
                "batch_size": DIGITS,
                "accumulate": 1,
                "log_every": 1,
                "checkpoint_every": 1000,
                "evaluate_every": 0,  # 0: at the end only
                "keep": 3,
                "patience": 0,
                "workers": 0,
            },
            "evaluate": {
                "likelihood": "exact",  # of data that are not discrete
                "times": 16,  # draws in the likelihood of an autoencoder
                "batch_size": 360,
                "limit": 0,  # 0: all
            },
            "sample": {"num_samples": 1000, "batch_size": 1000, "noise": True},
            "mesh": {"data": -1, "fsdp": 1},
        }
    )


def pca() -> ConfigDict:
    """Ten principal components; samples lie in their plane."""
    config = _job("pca")
    config.sample.noise = False
    return config


def ppca() -> ConfigDict:
    """The same with the noise off the plane."""
    return _job("ppca")


def gmm() -> ConfigDict:
    """Twenty-five Gaussians with diagonal covariances, the best of four runs of EM."""
    config = _job("gmm", components=25)
    config.train.update(steps=60, log_every=5)
    return config


def linear_autoencoder() -> ConfigDict:
    """Reaches the squared error of PCA."""
    config = _job("autoencoder")
    config.sample.noise = False
    config.optimizer.update(learning_rate=3e-2, b2=0.99)
    config.train.update(steps=3000, log_every=50)
    return config


def autoencoder() -> ConfigDict:
    """Hidden layers: a smaller squared error at the same number of codes."""
    config = linear_autoencoder()
    config.network.hidden = (256, 128)
    config.loss.noise = 0.1
    config.optimizer.update(learning_rate=2e-3, b2=0.999, weight_decay=1e-3)
    config.train.update(batch_size=256, steps=4000)
    return config


def smoke() -> ConfigDict:
    """Seconds: a small mixture, a few steps of everything."""
    config = gmm()
    config.model.update(components=3, restarts=2, lloyd=2)
    config.train.update(steps=4, batch_size=200, log_every=1)
    config.evaluate.limit = 100
    config.sample.update(num_samples=100, batch_size=100)
    return config


PRESETS: dict[str, Callable[[], ConfigDict]] = {
    "pca": pca,
    "ppca": ppca,
    "gmm": gmm,
    "linear_autoencoder": linear_autoencoder,
    "autoencoder": autoencoder,
    "smoke": smoke,
}


def get_config(preset: str = "ppca") -> ConfigDict:
    """The configuration of a preset.

    Raises:
        UserError: an unknown preset.
    """
    return lookup(PRESETS, preset, "config preset")().lock()
