import pytest

from gmjax.networks import settings
from gmjax.types import UserError

TABLE = {
    "width": settings.size(8),
    "channels": settings.sizes((4, 8)),
    "smoothing": settings.length(0.0),
    "dropout": settings.share(0.0),
    "remat": settings.flag(False),
    "head": settings.choice("logits", ("logits", "logistic")),
}


def test_reads_what_is_given_and_defaults_for_the_rest():
    values = settings.read({"name": "x", "width": 3, "channels": [1, 2], "dropout": None}, TABLE)
    defaults = {k: row.default for k, row in TABLE.items()}
    assert values == {**defaults, "width": 3, "channels": (1, 2)}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("wdith", 3),
        ("width", 0),
        ("width", -2),
        ("width", 2.5),
        ("width", True),
        ("width", "8"),
        ("channels", ()),
        ("channels", (4, 0)),
        ("channels", 4),
        ("smoothing", -1.0),
        ("smoothing", float("nan")),
        ("smoothing", float("inf")),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("remat", 1),
        ("head", "softmax"),
        ("head", ["logits"]),
    ],
)
def test_a_bad_key_or_value_is_named_in_one_line(key, value):
    with pytest.raises(UserError) as error:
        settings.read({key: value}, TABLE)
    message = str(error.value)
    assert f"config.network.{key}={value!r}" in message and "\n" not in message
