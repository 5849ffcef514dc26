import math

import numpy as np
import pytest

from gmjax.metrics.bits import bits_per_dim, mean_and_error


def test_uniform_law_costs_log2_of_the_number_of_values():
    nats = np.full(3, 64 * math.log(17))
    np.testing.assert_allclose(bits_per_dim(nats, 64), math.log2(17))


def test_mean_and_error_by_hand():
    mean, error = mean_and_error(np.array([1.0, 2.0, 3.0, 6.0]))
    assert mean == 3.0
    assert error == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3 / 4))


def test_one_value_has_no_error():
    mean, error = mean_and_error([2.0])
    assert mean == 2.0
    assert math.isnan(error)
