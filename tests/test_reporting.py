"""What the report asks of the data before anything is trained."""

from types import SimpleNamespace

import numpy as np
import pytest

from gmjax import reporting
from gmjax.data import sources
from gmjax.spaces.sphere import sphere
from gmjax.types import UserError


def test_every_point_is_held_against_its_space():
    x = np.tile(np.eye(3), (10_000, 1))
    x[17_501] *= 1.5
    data = sources.build({"x": x}, {"x": x[:9]}, kind="sphere")
    config = SimpleNamespace(data=SimpleNamespace(name="npz"))
    method = SimpleNamespace(check=sphere(2).check)
    with pytest.raises(
        UserError, match="config.data.name='npz', train: norms differ .* 0.5; valid"
    ):
        reporting.check(method, data, config)
    reporting.check(method, data._replace(train=data.test), config)
