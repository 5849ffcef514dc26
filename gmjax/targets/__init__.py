"""Laws of data that are known exactly under noise: the truth that samplers are held against."""

from collections.abc import Callable

from gmjax.targets import sphere
from gmjax.targets.laws import Target
from gmjax.targets.mixtures import GAUSSIAN
from gmjax.targets.products import PRODUCTS

TARGETS: dict[str, Callable[..., Target]] = {**GAUSSIAN, **PRODUCTS, "sphere": sphere.sphere}
