import numpy as np
import pytest

from gmjax import data
from gmjax.data import text
from gmjax.types import DataSpec, UserError


@pytest.mark.parametrize("alphabet", ["abc", "cab", "né€𝄞 \n", "x"])
def test_encode_and_decode_are_inverse(alphabet):
    rng = np.random.default_rng(0)
    x = rng.integers(0, len(alphabet), (5, 40))
    strings = text.decode(x, alphabet)
    for row, string in zip(x, strings, strict=True):
        assert string == "".join(alphabet[i] for i in row)
        np.testing.assert_array_equal(text.encode(string, alphabet), row)


@pytest.mark.parametrize("stranger", ["a", "z", "m", "é", "\n"])
def test_encode_names_the_stranger(stranger):
    with pytest.raises(UserError) as caught:
        text.encode("bcd" + stranger + "w", "bcdw")
    assert f"lacks the character {stranger!r}" in str(caught.value)


def write(tmp_path, **files):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return {"name": "text", "dir": str(tmp_path), "train_file": "train"}


def test_pieces(tmp_path):
    string = "".join(np.random.default_rng(0).choice(list("abcd"), 200))
    config = {**write(tmp_path, train=string), "length": 7, "stride": 3, "test_fraction": 0.2}
    dataset = data.load(config)
    assert dataset.spec == DataSpec((7,), 4, kind="sequence")
    decode = data.decoder(config)
    assert decode(np.arange(4)[None]) == ["abcd"], "sorted, whatever order a set has"
    train = decode(dataset.train.take(np.arange(dataset.train.size))["x"])
    test = decode(dataset.test.take(np.arange(dataset.test.size))["x"])
    assert train == [string[i : i + 7] for i in range(0, 154, 3)]
    assert test == [string[160 + i : 167 + i] for i in range(0, 34, 7)]


def test_held_out_text_and_lines(tmp_path):
    config = write(tmp_path, train="abcabc" * 5, test="cdd" * 5)
    dataset = data.load({**config, "test_file": "test", "length": 5})
    assert dataset.spec.num_values == 4
    assert (dataset.train.size, dataset.test.size) == (26, 3)
    lines = {**write(tmp_path, train="ab\nba\n" * 10), "lines": True}
    dataset = data.load(lines)
    assert (dataset.train.size, dataset.test.size) == (18, 2)
    assert dataset.spec == DataSpec((2,), 2, kind="sequence")
    assert set(data.decoder(lines)(dataset.train.take(range(18))["x"])) == {"ab", "ba"}
    assert data.load({**lines, "test_file": "train"}).test.size == 20


def test_alphabet_is_kept_in_its_order(tmp_path):
    config = {**write(tmp_path, train="abc" * 100), "alphabet": "cbad", "length": 3}
    dataset = data.load(config)
    assert dataset.spec.num_values == 4
    np.testing.assert_array_equal(dataset.train.take([0])["x"], [[2, 1, 0]])


@pytest.mark.parametrize(
    ("content", "keys", "message"),
    [
        ("abc" * 9, {"alphabet": "ab", "length": 2}, "config.data.alphabet='ab' lacks .* 'c'"),
        ("abc" * 9, {"alphabet": "abca", "length": 2}, "config.data.alphabet='abca'; valid: every"),
        ("abc" * 9, {"length": 20}, "config.data.length=20; valid: at most 3 here"),
        ("abc" * 9, {"length": 0}, "config.data.length=0"),
        ("abc" * 9, {"length": 2, "stride": 0}, "config.data.stride=0"),
        ("abc" * 9, {"length": 2, "num_values": 2}, "config.data.num_values=2; valid: 0 or .* 3"),
        ("ab\nabc\n", {"lines": True}, "line 2 has 3 characters, line 1 has 2"),
        ("", {}, "config.data.train_file='train' is empty"),
        ("\n\n", {"lines": True}, "config.data.train_file"),
    ],
)
def test_bad_text(tmp_path, content, keys, message):
    config = {**write(tmp_path, train=content), **keys}
    with pytest.raises(UserError, match=message):
        data.load(config)
