import numpy as np
import pytest

from gmjax.data import checks
from gmjax.types import UserError


def test_as_indices_infers_and_checks():
    assert checks.as_indices(np.array([0, 3]), 0, "num_values")[1] == 4
    assert checks.as_indices(np.array([0, 3]), 7, "num_values")[1] == 7
    assert checks.as_indices(np.array([0.0, 3.0]), 0, "num_values")[0].dtype.kind == "i"
    for values, message in {
        (0, 4): "config.data.num_values=4: data hold 4; valid: 0..3",
        (-2, 1): "config.data.num_values=4: data hold -2; valid: 0..3",
        (0.5, 1.0): "config.data.num_values: data hold 0.5; valid: integers",
        (1.0, float("nan")): "config.data.num_values: data hold nan; valid: integers",
        (1.0, float("inf")): "data hold",
        ("a", "b"): "config.data.num_values: data of type <U1; valid: integers",
    }.items():
        with pytest.raises(UserError, match=message):
            checks.as_indices(np.array(values), 4, "num_values")
    with pytest.raises(UserError, match="num_values=-1; valid: 0"):
        checks.as_indices(np.array([0]), -1, "num_values")
    with pytest.raises(UserError, match="data hold -1"):
        checks.as_indices(np.array([-1, 1]), 0, "num_values")


@pytest.mark.parametrize("value", [0, -3, 2.5, "8", True, None])
def test_positive_refuses(value):
    with pytest.raises(UserError, match=r"config.data.length=.*; valid: an integer of at least 1"):
        checks.positive({"length": value}, "length")


@pytest.mark.parametrize(
    ("values", "size", "message"),
    [
        (
            np.array([5 * 10**9]),
            0,
            r"num_values=0: data hold 5000000000; valid: 0..1048575 \(np.unique",
        ),
        (
            np.array([2**20]),
            0,
            "data hold 1048576; valid: 0..1048575, or 1048577 for config.data.num_",
        ),
        (np.array([2**63], np.uint64), 0, "data hold 9223372036854775808"),
        (np.array([1e30]), 0, r"data hold 1e\+30; valid: integers below 2\^31"),
        (np.array([3e9]), 0, "data hold 3000000000"),
        (np.array([0]), 2**31, "num_values=2147483648; valid: 0 or at most 2147483647"),
        (np.array([0]), 2.5, "num_values=2.5; valid: 0"),
        (np.array([0]), True, "num_values=True; valid: 0"),
        (np.array([1j]), 0, "data of type complex128; valid: integers"),
        (np.zeros(1, [("a", "i4")]), 0, "data of type .*; valid: integers"),
    ],
)
def test_integers_that_do_not_fit_are_named(values, size, message):
    with pytest.raises(UserError, match=message) as caught:
        checks.as_indices(values, size, "num_values")
    assert "\n" not in str(caught.value)


def test_integers_of_any_type_keep_their_values():
    for dtype in (np.uint8, np.int8, np.uint64, np.int64, np.float16, np.float32, np.longdouble):
        found, size = checks.as_indices(np.array([0, 7, 100], dtype), 0, "num_values")
        assert size == 101
        np.testing.assert_array_equal(found.astype(np.int32), [0, 7, 100])
    assert checks.as_indices(np.array([True, False]), 0, "num_values")[1] == 2
    assert checks.as_indices(np.array([2**24]), 2**24 + 1, "num_values")[1] == 2**24 + 1


def test_counts_reach_as_far_as_int32():
    np.testing.assert_array_equal(checks.as_counts(np.array([2.0**31 - 1])), [2**31 - 1])
    for bad in (2**31 + 5, 2.0**31, -1):
        with pytest.raises(
            UserError, match=f"kind='counts': data hold {int(bad)}; valid: 0..2147483647"
        ):
            checks.as_counts(np.array([0, bad]))
