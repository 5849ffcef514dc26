"""Variational autoencoders: `--config=configs/vae.py:PRESET`.

The default is the 8x8 digits, 17 grey levels. `--config.labels=True` conditions encoder and
decoder on the class; `configs/vr_iwae.py` trains the same models by bounds of many particles.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from configs import sections
from gmjax.networks import vae
from gmjax.types import lookup


def network(name: str, **values: Any) -> ConfigDict:
    """`config.network`: the encoder and decoder `name`, set by `values`."""
    keys = {k: row.default for own in vae.SETTINGS.values() for k, row in own.items()}
    return sections.section(keys, name=name, **values)


def digits() -> ConfigDict:
    """scikit-learn's 1797 handwritten digits, ten codes, a logistic law on the levels."""
    return ConfigDict(
        {
            "method": "vae",
            "seed": 0,
            "mode": "train",  # train (then evaluate and sample), evaluate, or sample
            "labels": False,  # condition on the class
            "data": sections.dataset("digits"),
            "model": {
                # or bernoulli (two values), categorical, gaussian (real numbers)
                "likelihood": "discretised_logistic",
                "binarise": False,  # grey levels as chances of a 1, drawn anew
            },
            "network": network("mlp", latent=10, hidden=(256, 128)),
            "bound": {
                "alpha": 0.0,  # in [0, 1); 0: IWAE
                "particles": 1,  # 1: the ELBO
                "gradient": "rep",  # or drep
                "kl": "analytic",  # or sampled
                "beta": 1.0,
                "free_bits": 0.0,  # nats a coordinate of the code
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 1e-3,
                "warmup": 100,
                "decay": "cosine",
                "weight_decay": 0.5,
                "b1": 0.9,
                "b2": 0.999,
                "clip": 0.0,
                "ema": 0.999,
            },
            "train": {
                "steps": 3000,
                "batch_size": 128,
                "accumulate": 1,
                "log_every": 50,
                "checkpoint_every": 1000,
                "evaluate_every": 0,  # 0: at the end only
                "keep": 3,
                "patience": 200,
                "workers": 0,
            },
            "evaluate": {
                "likelihood": "exact",  # of data that are not discrete
                "times": 200,  # draws of importance sampling, an example
                "chunk": 20,  # of them at a time
                "batch_size": 120,
                "limit": 0,  # 0: all
            },
            "sample": {
                "num_samples": 1024,
                "batch_size": 256,
                "noise": True,  # draw x given its code; False: the mean
            },
            "mesh": {"data": -1, "fsdp": 1},
        }
    )


def binarized_mnist() -> ConfigDict:
    """MNIST binarised once: 784-200-200-50 with tanh, 30 epochs."""
    config = digits()
    config.data = sections.dataset("binarized_mnist")
    config.model.likelihood = "bernoulli"
    config.network = network("mlp", latent=50, hidden=(200, 200), activation="tanh")
    config.optimizer.update(learning_rate=3e-3, weight_decay=0.0)
    config.train.update(steps=15_000, batch_size=100, log_every=100, checkpoint_every=5000)
    config.evaluate.update(batch_size=100)
    return config


def mnist() -> ConfigDict:
    """The same with pixels drawn anew from the grey levels in every batch."""
    config = binarized_mnist()
    config.train.steps = 18_000  # 60 000 examples
    config.data = sections.dataset("mnist")
    config.model.binarise = True
    config.sample.noise = False
    return config


def smoke() -> ConfigDict:
    """Seconds: every part of the job on the digits, far too short to learn them."""
    config = digits()
    config.network.update(hidden=(16,), latent=3)
    config.train.update(steps=20, batch_size=16, log_every=5, checkpoint_every=10)
    config.evaluate.update(times=6, chunk=4, limit=60, batch_size=64)
    config.sample.update(num_samples=64, batch_size=64)
    return config


PRESETS: dict[str, Callable[[], ConfigDict]] = {
    "digits": digits,
    "binarized_mnist": binarized_mnist,
    "mnist": mnist,
    "smoke": smoke,
}


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset.

    Raises:
        UserError: an unknown preset.
    """
    return lookup(PRESETS, preset, "config preset")().lock()
