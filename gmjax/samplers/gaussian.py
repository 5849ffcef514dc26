"""The solvers of Gaussian paths, by name: diffusion, flow matching and everything between.

`SOLVERS[name](path, read, **options)` is a `Stepper`; `read` says how the network's output becomes
E[x0 | x] (`gaussian_steps.reader`), so every solver takes every path and every head.

    name             evaluations a step   order
    ancestral        1                    1, weak
    ddim             1                    1 (weak where eta > 0)
    euler_maruyama   1                    1, weak
    exponential      1                    1, weak
    euler            1                    1
    heun             2                    2
    edm              2                    2
    dpmpp_2s         2                    2
    dpmpp_2m         1                    2
    dpmpp_3m         1                    3
    dpmpp_sde        1                    2, weak, where E[x0 | x] is linear
    unipc            1                    one more than its option: 3, or 4

Rules in t (euler, heun, euler_maruyama) follow sigma by straight lines: where it spans decades
(karras, variance_exploding) a few steps leave noise of the size of the first, and ten or so of the
others end nearer the data.
"""

from collections.abc import Callable
from typing import Any

from gmjax.paths.gaussian import GaussianPath
from gmjax.samplers import gaussian_flow, gaussian_multistep, gaussian_noise
from gmjax.samplers.gaussian_steps import Read, denoise, reader
from gmjax.types import Stepper, UserError, lookup

__all__ = ["KEYS", "SOLVERS", "build", "corrected", "denoise", "reader"]

corrected = gaussian_noise.corrected

SOLVERS: dict[str, Callable[..., Stepper]] = {
    "ancestral": gaussian_noise.ancestral,
    "ddim": gaussian_flow.ddim,
    "euler_maruyama": gaussian_noise.euler_maruyama,
    "exponential": gaussian_noise.exponential,
    "euler": gaussian_flow.euler,
    "heun": gaussian_flow.heun,
    "edm": gaussian_flow.edm,
    "dpmpp_2s": gaussian_flow.dpmpp_2s,
    "dpmpp_2m": gaussian_multistep.dpmpp_2m,
    "dpmpp_3m": gaussian_multistep.dpmpp_3m,
    "dpmpp_sde": gaussian_multistep.dpmpp_sde,
    "unipc": gaussian_multistep.unipc,
}
# The options of each solver, with their defaults; of those not named there are none.
KEYS: dict[str, dict[str, Any]] = {
    **{name: {} for name in SOLVERS},
    "ancestral": {"variance": "small"},
    "ddim": {"eta": 0.0},
    "edm": {"churn": 0.0, "s_min": 0.0, "s_max": float("inf"), "s_noise": 1.0},
    "unipc": {"order": 2},
}


def build(config: dict[str, Any], path: GaussianPath, read: Read) -> Stepper:
    """The solver of `config.sample`: a name in `SOLVERS` with its options; others are ignored.

    Where config["corrector_steps"] is positive, Langevin steps of config["snr"] follow each step.

    Raises:
        UserError: an unknown name, or a value that is not valid.
    """
    make = lookup(SOLVERS, config["name"], "config.sample.name")
    own = {k: config[k] for k in KEYS[config["name"]] if config.get(k) is not None}
    stepper = make(path, read, **own)
    if config.get("corrector_steps"):
        if config["name"] == "unipc":
            raise UserError(
                f"config.sample.corrector_steps={config['corrector_steps']}: unipc corrects its own"
                " last step, and would undo these; valid: 0"
            )
        snr = config.get("snr")  # None where a configuration leaves it to the default
        return corrected(
            stepper, path, read, 0.16 if snr is None else snr, config["corrector_steps"]
        )
    return stepper
