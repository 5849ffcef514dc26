"""Gaussian diffusion on real data: `--config=configs/gaussian_diffusion.py:PRESET`.

The default is the 8x8 digits, 17 grey levels, in about four minutes on two cores. Paths, heads,
weightings, solvers and grids are names; any key is a flag, as `--config.sample.name=ddim`.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import sections
from gmjax.types import lookup


def digits() -> ConfigDict:
    """scikit-learn's 1797 handwritten digits, v-prediction, the cosine path, DPM-Solver++."""
    return ConfigDict(
        {
            "method": "gaussian_diffusion",
            "seed": 0,
            "mode": "train",  # train (then evaluate and sample), evaluate, or sample
            "labels": False,  # condition on the class
            "data": sections.dataset("digits"),
            "path": sections.path("vp_cosine", alpha_min=1e-4),
            "loss": {
                "head": "v",  # x0, eps, v, score, velocity or edm
                "weighting": "simple",  # or eps, likelihood, min_snr, sigmoid, edm
                "steps": 0,  # T discrete steps; 0: continuous time
                "variance": "small",  # of discrete steps: small, large or learned
                "variance_weight": 1e-3,
                "t_min": 3e-3,
                "times": "uniform",  # or log_snr, log_normal, logit_normal
                "mean": 0.0,
                "std": 1.0,  # of the two last
                "spread": "stratified",
                "data_std": 1.0,
                "label_dropout": 0.1,
            },
            "network": sections.network("unet", channels=(32, 64), mixer=256, waves=4, dropout=0.1),
            "optimizer": {
                "name": "adamw",
                "learning_rate": 2e-3,
                "warmup": 100,
                "decay": "cosine",
                "weight_decay": 0.01,
                "b1": 0.9,
                "b2": 0.999,
                "clip": 1.0,
                "ema": 0.998,
            },
            "train": {
                "steps": 3000,
                "batch_size": 64,
                "accumulate": 1,
                "log_every": 50,
                "checkpoint_every": 500,
                "evaluate_every": 0,  # 0: at the end only
                "keep": 3,
                "patience": 200,
                "workers": 0,
            },
            "evaluate": {
                "likelihood": "elbo",  # or flow: the probability flow, with dequantisation
                "times": 32,  # of the bound, an example
                "steps": 64,  # of the flow, four evaluations each
                "grid": "log_snr",  # of the flow
                "probes": 1,  # of the flow's divergence; 0: exactly
                "probe": "rademacher",  # their law; or gaussian
                "batch_size": 120,
                "limit": 0,  # 0: all
            },
            "sample": sections.solver(
                "dpmpp_2m",
                steps=32,
                grid="log_snr",
                clip=1.0,  # of x0, at the edge of the levels; 0: none
                rtol=1e-4,  # of the solver "adaptive"
                num_samples=1024,
                batch_size=256,
                observed="",  # given of held-out data: top, left, border, start
                infill="",  # guidance where there is one; or replacement
                guidance=1.0,
                interval=(0.0, 1.0),  # times at which it holds
                rescale=0.0,
            ),
            "mesh": {"data": -1, "fsdp": 1},
        }
    )


def smoke() -> ConfigDict:
    """Seconds: every part of the job on the digits, far too short to learn them."""
    config = digits()
    config.network.update(channels=(8, 16), mixer=16)
    config.train.update(steps=20, batch_size=16, log_every=5, checkpoint_every=10)
    config.evaluate.update(times=2, limit=60, batch_size=64)
    config.sample.update(steps=4, num_samples=64, batch_size=64)
    return config


def ddpm() -> ConfigDict:
    """The digits by T = 1000 steps: the published schedule, eps-prediction, ancestral sampling."""
    config = digits()
    config.path = sections.path("ddpm")
    config.loss.update(head="eps", steps=1000, times="uniform")
    config.sample.update(name="ancestral", steps=1000, grid="discrete")
    return config


def improved_ddpm() -> ConfigDict:
    """The same with learned variances (Nichol and Dhariwal 2021) and 100 steps of sampling."""
    config = ddpm()
    config.loss.variance = "learned"
    config.sample.update(variance="learned", steps=100)
    return config


def variational() -> ConfigDict:
    """The digits by the bound itself, with a learned schedule (Kingma et al. 2021)."""
    config = digits()
    config.path = sections.path("learned", high=10.0, low=-8.0)
    config.loss.weighting = "likelihood"
    return config


def edm() -> ConfigDict:
    """The digits with the settings of Karras et al. (2022): preconditioning, noise levels, Heun."""
    config = digits()
    config.path = sections.path("karras", low=0.01, high=80.0)
    config.loss.update(head="edm", times="log_normal", mean=-1.2, std=1.2, data_std=0.8)
    config.sample.update(name="edm", steps=18, grid="uniform")
    return config


def mnist() -> ConfigDict:
    """MNIST at 256 grey levels; hours on two cores."""
    config = digits()
    config.data = sections.dataset("mnist")
    config.network = sections.network(
        "unet", channels=(64, 128, 128), blocks=2, attention=(2,), waves=8, dropout=0.1
    )
    config.optimizer.update(learning_rate=2e-4, warmup=1000, ema=0.9999)
    config.train.update(steps=100_000, batch_size=128, checkpoint_every=5000, log_every=200)
    config.evaluate.update(times=8, batch_size=200, limit=1000)
    config.sample.update(steps=50, num_samples=512, batch_size=128)
    return config


def cifar10() -> ConfigDict:
    """CIFAR-10 from TFDS with the settings of Ho et al. (2020); for accelerators."""
    config = ddpm()
    config.data = sections.dataset("cifar10")
    config.loss.variance = "large"
    config.network = sections.network(
        "unet", channels=(128, 256, 256, 256), blocks=2, attention=(1,), dropout=0.1
    )
    config.optimizer.update(
        learning_rate=2e-4, warmup=5000, decay="constant", ema=0.9999, weight_decay=0.0
    )
    config.train.update(
        steps=800_000, batch_size=128, checkpoint_every=10_000, evaluate_every=50_000, workers=8
    )
    config.sample.update(variance="large", num_samples=1024, batch_size=128)
    return config


def imagenet64() -> ConfigDict:
    """Downsampled ImageNet from TFDS, a DiT in bfloat16 on the cosine path; for accelerators."""
    config = digits()
    config.data = sections.dataset(
        "tfds",
        tfds_name="downsampled_imagenet/64x64",
        test_split="validation",
        num_values=256,
        kind="image",
        ordinal=True,
    )
    config.loss.update(times="logit_normal", weighting="sigmoid")
    config.network = sections.network(
        "transformer", width=768, blocks=12, heads=12, patch=4, dtype="bfloat16"
    )
    config.optimizer.update(learning_rate=1e-4, warmup=5000, decay="constant", ema=0.9999)
    config.train.update(
        steps=500_000, batch_size=256, checkpoint_every=10_000, evaluate_every=50_000, workers=16
    )
    config.evaluate.update(times=4, batch_size=128, limit=2048)
    config.sample.update(steps=50, num_samples=1024, batch_size=128)
    return config


def toy() -> ConfigDict:
    """Two moons in the plane: density, vector field and film of the flow."""
    config = digits()
    config.data = sections.dataset("moons")
    config.network = sections.network("mlp", width=128, blocks=3)
    config.optimizer.update(learning_rate=1e-3, ema=0.999, weight_decay=0.0)
    config.train.update(steps=5000, batch_size=512)
    config.evaluate.update(likelihood="flow", probes=0, batch_size=512, limit=2048)
    config.sample.update(num_samples=2048, batch_size=2048, clip=0.0)
    return config


PRESETS: dict[str, Callable[[], ConfigDict]] = {
    "digits": digits,
    "smoke": smoke,
    "ddpm": ddpm,
    "improved_ddpm": improved_ddpm,
    "variational": variational,
    "edm": edm,
    "mnist": mnist,
    "cifar10": cifar10,
    "imagenet64": imagenet64,
    "toy": toy,
}


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset.

    Raises:
        UserError: an unknown preset.
    """
    return lookup(PRESETS, preset, "config preset")().lock()
