"""Continuous-time discrete diffusion on real data.

`--config=configs/discrete_diffusion.py` is the default job, the 8x8 digits in about four
minutes on two cores; `:PRESET` after the path chooses another, and `--config.KEY=VALUE` changes
any key. The chain is `config.process.name`: absorbing, uniform, birth_death, gaussian or rates.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import sections
from gmjax.losses.discrete import TERMS
from gmjax.types import lookup


def digits() -> ConfigDict:
    """scikit-learn's 1797 handwritten digits, 17 grey levels, the absorbing chain."""
    return ConfigDict(
        {
            "method": "discrete_diffusion",
            "seed": 0,
            "mode": "train",  # train (then evaluate and sample), evaluate, or sample
            "labels": False,  # condition on the class
            "data": sections.dataset("digits"),
            "process": sections.process("absorbing", sections.schedule("log_linear")),
            "loss": {
                # term -> weight; all zero: the bound that suits the chain
                "terms": dict.fromkeys(TERMS, 0.0),
                "parametrisation": "leave_one_out",
                "t_min": 1e-3,
                "times": "noise",
                "spread": "stratified",
                "label_dropout": 0.1,
            },
            "network": sections.network("unet", smoothing=1.5, dropout=0.1),
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
                "patience": 200,
                "workers": 0,
            },
            "evaluate": {"times": 32, "batch_size": 120, "limit": 0},  # limit 0: all
            "sample": {
                "name": "tweedie",
                "steps": 64,
                "grid": "noise",
                "finish": "sample",
                "num_samples": 1024,
                "batch_size": 256,
                "ordinal": False,
                "guidance": 1.0,
                "interval": (0.0, 1.0),  # times at which it holds
                "rescale": 0.0,
                "observed": "",  # given of held-out data: top, left, border, start
                "clean": True,  # what is given; False: as noisy as the rest
                "corrector": {"steps": 0, "size": 1.5, "below": 1.0},
            },
            "mesh": {"data": -1, "fsdp": 1},
        }
    )


def smoke() -> ConfigDict:
    """Seconds: every part of the job on the digits, far too short to learn them."""
    config = digits()
    config.network = sections.network("unet", channels=(8, 16), mixer=16, smoothing=1.5)
    config.train.update(steps=20, batch_size=16, log_every=5, checkpoint_every=10)
    config.evaluate.update(times=2, limit=60, batch_size=64)
    config.sample.update(steps=4, num_samples=64, batch_size=64)
    return config


def mnist() -> ConfigDict:
    """MNIST at 256 grey levels, the discretised Gaussian chain; hours on two cores."""
    config = digits()
    config.data = sections.dataset("mnist")
    config.process = sections.process(
        "gaussian", sections.schedule("geometric", a=3.0, b=100.0), sigma0=512.0, sigma_rate=6.0
    )
    config.network = sections.network(
        "unet",
        channels=(64, 128, 128),
        blocks=2,
        attention=(2,),
        embed=32,
        dropout=0.1,
        smoothing=4.0,
    )
    config.loss.update(t_min=0.01, times="uniform")
    config.optimizer.update(learning_rate=2e-4, warmup=1000, ema=0.9999)
    config.train.update(steps=100_000, batch_size=128, checkpoint_every=5000, log_every=200)
    config.evaluate.update(times=8, batch_size=200, limit=1000)
    config.sample.update(name="tau_leaping", ordinal=True, grid="uniform", steps=500)
    config.sample.update(num_samples=512, batch_size=128)
    return config


def cifar10() -> ConfigDict:
    """The settings of Campbell et al. (2022) for CIFAR-10, read from TFDS; for accelerators."""
    config = mnist()
    config.data = sections.dataset("cifar10")
    config.network = sections.network(
        "unet",
        channels=(128, 256, 256, 256),
        blocks=2,
        attention=(1,),
        dropout=0.1,
        mixer=0,
        embed=64,
        head="logistic",
    )
    config.loss.terms.update(ct_elbo=1.0, cross_entropy=0.001)
    config.loss.parametrisation = "posterior"
    config.optimizer.update(warmup=5000, decay="constant")
    config.train.update(steps=2_000_000, evaluate_every=50_000, workers=8)
    config.sample.update(steps=1000, finish="argmax")
    return config


def shakespeare() -> ConfigDict:
    """128 characters of tiny Shakespeare, masked, with a transformer."""
    config = _sequence("shakespeare")
    config.data.length = 128
    return config


def promoters() -> ConfigDict:
    """300 letters of human promoters, the uniform chain."""
    config = _sequence("promoters")
    config.process = sections.process("uniform", sections.schedule("log_linear"))
    return config


def chorales() -> ConfigDict:
    """Four-part chorales given their first eighth, the uniform chain, as the paper's piano."""
    config = _sequence("chorales")
    config.process = sections.process("uniform", sections.schedule("log_linear"))
    return config


def _sequence(name: str) -> ConfigDict:
    config = digits()
    config.data = sections.dataset(name)
    config.network = sections.network("transformer", width=192, blocks=6, heads=6, dropout=0.1)
    config.optimizer.update(learning_rate=1e-3, warmup=200, ema=0.999)
    config.train.update(steps=10_000, checkpoint_every=1000)
    config.evaluate.update(times=8, batch_size=64, limit=256)
    config.sample.update(steps=128, num_samples=256, batch_size=64)
    return config


def glyph() -> ConfigDict:
    """The 2-D toy of Campbell et al. (2022) with exactly known marginals."""
    config = digits()
    config.data = sections.dataset("glyph")
    config.process = sections.process(
        "gaussian", sections.schedule("geometric", a=5.0, b=5.0), sigma0=8.0, sigma_rate=1.0
    )
    config.network = sections.network("mlp", width=128, blocks=2)
    config.loss.update(t_min=0.01, times="uniform")
    config.optimizer.update(learning_rate=1e-3, ema=0.999)
    config.train.update(steps=10_000, batch_size=256, checkpoint_every=2000, log_every=200)
    config.evaluate.update(times=64, batch_size=500, limit=2000)
    config.sample.update(name="tau_leaping", ordinal=True, grid="uniform", steps=200)
    config.sample.update(num_samples=20_000, batch_size=5000)
    return config


PRESETS: dict[str, Callable[[], ConfigDict]] = {
    "digits": digits,
    "smoke": smoke,
    "mnist": mnist,
    "cifar10": cifar10,
    "shakespeare": shakespeare,
    "promoters": promoters,
    "chorales": chorales,
    "glyph": glyph,
}


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset.

    Raises:
        UserError: an unknown preset.
    """
    return lookup(PRESETS, preset, "config preset")().lock()
