"""Autoencoders trained by the VR-IWAE bound: `--config=configs/vr_iwae.py:PRESET`.

The presets of `configs/vae.py`, with `bound.particles` draws an example, order `bound.alpha` (0:
the IWAE) and the doubly reparameterised gradient.
"""

from ml_collections import ConfigDict

from configs import vae
from gmjax.types import lookup

PRESETS = vae.PRESETS


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset.

    Raises:
        UserError: an unknown preset.
    """
    config = lookup(PRESETS, preset, "config preset")()
    config.bound.update(alpha=0.2, particles=5, gradient="drep", kl="sampled")
    return config.lock()
