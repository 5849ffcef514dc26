"""Tables of cells: how they are parted, what is a header, and what is told of a bad cell."""

import numpy as np
import pytest

from gmjax.data import cells
from gmjax.types import UserError


def read(tmp_path, content, *args):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return cells.read_grid(path, *args)


def rows(grid):
    return [[cell.strip() for cell in row] for row in zip(*grid.columns, strict=True)]


PLAIN = "h,q,c\n0.5,1,a\n1.5,2,b\n2.5,1,a\n"
BODY = [["0.5", "1", "a"], ["1.5", "2", "b"], ["2.5", "1", "a"]]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        "\n\n" + PLAIN.replace("\n", "\n\n \n"),
        PLAIN.replace(",", ", "),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        PLAIN.replace(",", "  "),
        PLAIN.replace(",", " \t "),
        PLAIN.replace("\n", ",\n"),
        PLAIN.replace("\n", ",\n").replace("c,", "c"),
        "# from here, and there\n#\n" + PLAIN,
        "# from here\n# " + PLAIN,
        '"h","q","c"\n"0.5","1","a"\n1.5,"2",b\n"2.5",1,"a"',
    ],
)
def test_one_table_in_many_hands(content, tmp_path):
    grid = read(tmp_path, content)
    assert grid.names == ("h", "q", "c") and grid.headed
    assert rows(grid) == BODY
    np.testing.assert_array_equal(cells.numbers(grid, 0), [0.5, 1.5, 2.5])


@pytest.mark.parametrize(
    ("content", "args", "names", "body"),
    [
        ("1,2\n3,4\n", (), ("0", "1"), [["1", "2"], ["3", "4"]]),
        ("a,b\r\n1, 2 \r\n\r\n3,4", (), ("a", "b"), [["1", "2"], ["3", "4"]]),
        ("x,y\nred,green\n", (), ("0", "1"), [["x", "y"], ["red", "green"]]),
        ("1 2\n3 4\n", (" ",), ("0", "1"), [["1", "2"], ["3", "4"]]),
        ("1\t2\n3\t4\n", ("\\t",), ("0", "1"), [["1", "2"], ["3", "4"]]),
        ("1,5;2,5\n3,5;4,5\n", (), ("0", "1"), [["1,5", "2,5"], ["3,5", "4,5"]]),
        ('a,b\n1,"x, ""y""\nz"\n', (), ("a", "b"), [["1", 'x, "y"\nz']]),
        ("id,2020,kind\n1,2,a\n2,3,b\n3,3,b\n4,1,a\n", (), ("id", "2020", "kind"), None),
        ("2019,2020\n1,2\n3,4\n", (), ("0", "1"), [["2019", "2020"], ["1", "2"], ["3", "4"]]),
        ("2019,2020\n1,2\n3,4\n", ("", "yes"), ("2019", "2020"), [["1", "2"], ["3", "4"]]),
        ("h,q\n1,2\n", ("", "no"), ("0", "1"), [["h", "q"], ["1", "2"]]),
        ("12 kg,2\n1,2\n2,3\n", (), ("0", "1"), [["12 kg", "2"], ["1", "2"], ["2", "3"]]),
        ("NA,2\n1,2\n2,3\n", (), ("0", "1"), [["NA", "2"], ["1", "2"], ["2", "3"]]),
        (",h,q\n0,5,6\n1,7,8\n", (), ("0", "h", "q"), [["0", "5", "6"], ["1", "7", "8"]]),
        ("1,2,\n3,4,\n", (), ("0", "1"), [["1", "2"], ["3", "4"]]),
        ("h,q,c\n1,2,\n3,4,\n", (), ("h", "q", "c"), [["1", "2", ""], ["3", "4", ""]]),
    ],
)
def test_headers_and_delimiters(content, args, names, body, tmp_path):
    grid = read(tmp_path, content, *args)
    assert grid.names == names
    assert body is None or rows(grid) == body


@pytest.mark.parametrize(
    ("content", "args", "message"),
    [
        ("", (), "t.csv has no rows"),
        ("\n \n", (), "no rows"),
        ("# only this\n", (), "no rows"),
        ("a,b\n", ("", "yes"), "no rows below its header"),
        ("1,2\n3\n", (), "row 2 has 1 cells, row 1 has 2; valid: rows of one length"),
        ('# c\na,b\n1,"2\n2"\n\n3,4,5\n', (), "row 6 has 3 cells, row 3 has 2"),
        ("a,a,b\n1,2,3\n", (), "columns 1 and 2 are named 'a'; valid: each name once"),
        (
            "unknown,3,a\n1,2,a\n2,3,b\n1,2,b\n2,2,a\n",
            (),
            "first row, with 'unknown', .*header=yes, if",
        ),
        ("2019,2020\n.5,1.5\n2.5,3.5\n", (), "with '2019', may hold names or values"),
        ("2019,2020,kind\n1,2,a\n2,3,a\n1,2,b\n2,2,b\n", (), "with '2019', may hold names"),
        ("0,1,2,3,4\n1,2,3,1,2\n2,1,0,0,0\n", (), "with '0', may hold names"),
        ("1;2\n3;4\n", (",",), r"config.data.delimiter=',' parts no cells of .*; valid there: ';'"),
        (
            "1,2\n",
            (";;",),
            r"config.data.delimiter=';;'; valid: one character such as , ; | or \\t",
        ),
        ("1,2\n", ("x",), "config.data.delimiter='x'"),
        ("1,2\n", ('"',), "config.data.delimiter"),
        ("1,2\n", ("\n",), "config.data.delimiter"),
        ("1,2\n", (",", "perhaps"), "config.data.header='perhaps'; valid: yes, no"),
        ("1,2\n3," + "a" * 200_000, (), "row 2: field larger than field limit .131072."),
        ('1,2\n3,"4\n5,6\n', (), "row 2: unexpected end of data; valid: .*each quotation mark"),
        (b"1,\xff\n", (), "not UTF-8 text: byte 2; valid: a text saved as UTF-8"),
        ("1,2\n".encode("utf-16"), (), "not UTF-8 text: byte 0"),
        (bytes(100), (), "is no text: character 1 is a zero byte"),
    ],
)
def test_bad_tables_of_cells(content, args, message, tmp_path):
    with pytest.raises(UserError, match=message.replace("|", r"\|")) as caught:
        read(tmp_path, content, *args)
    assert "\n" not in str(caught.value)


HOLES = ["", " ", "NA", "na", "N/A", " n/a ", "NaN", "nan", "?", "None", "null", "NULL", "-"]
STRANGE = [
    '"1,000"',
    "12 kg",
    "1.000.5",
    "12%",
    "$5",
    "abc",
    '"3,14"',
    "1 000",
    "=A1",
    "1e",
    "0x1F",
]


@pytest.mark.parametrize("cell", HOLES + STRANGE + ["inf", "-Infinity", "1e999"])
def test_a_column_of_numbers_stays_one_and_its_bad_cell_is_named(cell, tmp_path):
    body = [f"{i},{i * i}" for i in range(30)]
    body[4] = body[17] = f"4,{cell}"
    grid = read(tmp_path, "id,size\n\n" + "\n".join(body))
    assert not cells.holds_words([grid], 1)
    np.testing.assert_array_equal(cells.numbers(grid, 0)[[3, 5]], [3, 5])
    kind = {**dict.fromkeys(HOLES, "2 holes"), **dict.fromkeys(STRANGE, "2 cells that cannot be")}
    with pytest.raises(UserError) as caught:
        cells.numbers(grid, 1)
    text = str(caught.value)
    shown = cell.strip().strip('"')
    assert f"column 'size' holds {kind.get(cell, 'numbers that are not finite')}" in text
    assert f"in 30 rows, first in row 7, cell {shown!r}; valid: " in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (["a", "b", "c"] * 10, True),
        (["red", "?", ""] * 10, True),
        (["1st", "2nd", "3rd"] * 10, True),
        (["2WD", "4WD", "none"] * 10, True),
        (["10-19", "20-29"] * 15, True),
        (["7", "x", "y"] * 10, True),
        (["1", "2", "x"] * 10, False),
        ([str(i) if i % 3 == 0 else "unknown" for i in range(90)], False),
        (["1", "", ""] * 10, False),
        (["?", "NA"], False),
        (["1,000", "2,500"] * 15, False),
        (["3,14", "2,71"] * 15, False),
        (["12%", "7%"] * 15, False),
        ([f"{i} kg" for i in range(30)], False),
        (["12 kg", "7", "8 kg"] * 10, False),
    ],
)
def test_words_and_numbers(column, words, tmp_path):
    grid = read(tmp_path, "\n".join(f'{i},"{cell}"' for i, cell in enumerate(column)), ",", "no")
    assert cells.holds_words([grid], 1) == words


def test_names_are_no_classes(tmp_path):
    grid = read(tmp_path, "\n".join(f"{i},2020-01-{i + 1}" for i in range(30)))
    with pytest.raises(
        UserError, match="column '1' holds 30 words in 30 rows, such as '2020-01-1'"
    ):
        cells.check_words(grid, 1, grid.columns[1])
    few = ["2020-01-1", "2020-01-2"] * 15
    cells.check_words(grid, 1, few)
