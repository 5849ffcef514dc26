"""Tables of cells: rows of text, the cells parted by commas, semicolons, tabs, bars or blanks.

What parts the cells is told from the first rows, and so is whether the first row holds names: some
column whose other cells are numbers begins with a word. A column is one of numbers where at least
half of its cells are; then every cell must be one, and what is missing or cannot be read is named
by its column, its row as an editor counts them, and its contents. Other columns hold words.
"""

import csv
import io
import re
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gmjax.data.files import Config, read_text
from gmjax.types import UserError

DELIMITERS = {"\\t": "\t", "tab": "\t", "space": " "}  # words for what is hard to type
MISSING = {"", "?", "-", "--", ".", "na", "n/a", "#n/a", "<na>", "nan", "none", "null", "nil"}
# What is meant as a number and is none: 1,000  3,14  1 000  $5  12%; these may be words: 12 kg  3M
MEANT = re.compile(r"[^\w\s]?\s*[+-]?\d+(?:[.,' \u00a0\u202f]\d+)*\s*[^\w\s]?")
MEASURED = re.compile(r"[<>~]?\s*[+-]?\d[\d.,' ]*\s*\w{1,4}")
HEADERS = ("", "yes", "no")
FEW, MANY = 20, 1000  # words of a column that may all be different, and words in all
SAMPLE = 100  # rows that are looked at for what parts the cells and for a header


class Grid(NamedTuple):
    """A table as it was read, c columns of n cells."""

    path: Path
    names: tuple[str, ...]  # of the header, else "0", "1", ...
    columns: tuple[Sequence[str], ...]  # the cells of each
    lines: array  # [n], where each row begins, from 1
    headed: bool


def read_grid(path: Path, delimiter: str = "", header: str = "") -> Grid:
    """A table of cells.

    Blank lines, lines before the first row that begin with "#", and a delimiter at the end
    of every row are passed over. The last of those lines is the header where it holds as many
    cells as the first row.

    Args:
        path: the file.
        delimiter: one character, or a word of `DELIMITERS`; empty: told from the first rows.
        header: "yes", "no", or empty: told from the first rows.

    Raises:
        UserError: no rows, rows of unequal length, a quotation that does not end, two columns
            of one name, or a delimiter or a header that cannot be.
    """
    if header not in HEADERS:
        raise UserError(f"config.data.header={header!r}; valid: yes, no, or empty: by the rows")
    text = read_text(path)
    body = text.lstrip("\n")
    comment = ""
    while body.startswith("#"):
        comment, _, body = body.partition("\n")
        body = body.lstrip("\n")
    skipped = text.count("\n", 0, len(text) - len(body))
    parts = _delimiter(path, delimiter, body)
    rows, lines = split_rows(path, body, parts, skipped)
    if not rows:
        raise UserError(f"{path} has no rows")
    _cut(rows)
    above = split_rows(path, comment.lstrip("# \t"), parts)[0] if comment and header != "no" else []
    first: list[str] = []
    if not header and _is_header(path, rows):
        header = "yes"
    elif header != "no" and above and len(above[0]) == len(rows[0]) > 1:
        header, first = "no", above[0]
    if header == "yes":
        first, lines = rows.pop(0), lines[1:]
    if not rows:
        raise UserError(f"{path} has no rows below its header")
    width = len(rows[0])
    for row, line in zip(rows, lines, strict=True):
        if len(row) != width:
            raise UserError(
                f"{path}: row {line} has {len(row)} cells, row {lines[0]} has {width};"
                f" valid: rows of one length, cells parted by {parts!r} (config.data.delimiter)"
            )
    names = tuple(name.strip() or str(i) for i, name in enumerate(first or [""] * width))
    if len(names) != width:
        raise UserError(f"{path}: {len(names)} names above {width} cells; valid: a name a column")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        where = " and ".join(str(i + 1) for i, name in enumerate(names) if name == twice[0])
        raise UserError(
            f"{path}: columns {where} are named {twice[0]!r}; valid: each name once"
            " (config.data.header=no where the first row holds no names)"
        )
    return Grid(path, names, tuple(zip(*rows, strict=True)), lines, bool(first))


def read_sides(paths: Sequence[Path], config: Config) -> list[Grid]:
    """The tables of the training file and, perhaps, the test file, which have the same columns.

    Args:
        paths: the files.
        config: reads `delimiter` and `header`.

    Raises:
        UserError: as `read_grid`, or the columns are others.
    """
    grids = [read_grid(path, config["delimiter"], config["header"]) for path in paths]
    widths = {len(grid.names) for grid in grids}
    if len(widths) > 1:
        raise UserError(f"config.data.test_file: rows of {sorted(widths)} cells; valid: one length")
    headed = [grid for grid in grids if grid.headed]
    for grid in headed[1:]:
        for first, other in zip(headed[0].names, grid.names, strict=True):
            if first != other:
                raise UserError(
                    f"config.data.test_file: a column {other!r} where train_file has {first!r};"
                    " valid: the same columns in the same order"
                )
    return [grid._replace(names=headed[0].names) for grid in grids] if headed else grids


def split_rows(
    path: Path, text: str, delimiter: str, skipped: int = 0
) -> tuple[list[list[str]], array]:
    """The rows of a text that are not blank, and the lines where they begin.

    Args:
        path: for the message.
        text: lines that end in \\n.
        delimiter: one character; a space stands for blanks of any length.
        skipped: lines before the text.

    Raises:
        UserError: a cell of more than 131072 characters, or a quotation that does not end.
    """
    if delimiter == " ":
        text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows, lines, at = [], array("q"), skipped
    try:
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):
                rows.append(row)
                lines.append(at + 1)
            at = skipped + reader.line_num
    except csv.Error as error:
        raise UserError(
            f"{path}: row {at + 1}: {error}; valid: cells of at most {csv.field_size_limit()}"
            ' characters, each quotation mark with its twin: "a ""quoted"" cell"'
        ) from error
    return rows, lines


def numbers(grid: Grid, column: int, cure: str = "") -> np.ndarray:
    """The numbers of a column, [n] float64.

    Args:
        grid: the table.
        column: which.
        cure: what else is valid, for the message.

    Raises:
        UserError: a cell is missing, or no finite number.
    """
    cells = grid.columns[column]
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        values = np.array([float(cell) if is_number(cell) else np.nan for cell in cells])
    wrong = np.flatnonzero(~np.isfinite(values))
    if not wrong.size:
        return values
    holes = [i for i in wrong.tolist() if is_missing(cells[i])]
    told = [i for i in wrong.tolist() if not is_missing(cells[i])] or holes
    if told is holes:
        kind, valid = _count(holes, "hole"), "a number in every row"
        cure = " (leave those rows out, or fill them in)"
    elif all(is_number(cells[i]) for i in told):
        kind, valid, cure = "numbers that are not finite", "finite numbers", ""
    else:
        kind, valid = (
            f"{_count(told, 'cell')} that cannot be read as numbers",
            "numbers such as 1000.5",
        )
    where = f"row {grid.lines[told[0]]}, cell {_short(cells[told[0]])!r}"
    raise UserError(
        f"{grid.path}: column {grid.names[column]!r} holds {kind} in {len(cells)} rows, first in"
        f" {where}; valid: {valid}{cure}"
    )


def holds_words(grids: Sequence[Grid], column: int) -> bool:
    """Does a column hold words: are its numbers, or what is meant as such, few?

    Few are less than half of what is not missing, and not more than `FEW` different ones.
    """
    if all(all_numbers(grid.columns[column]) for grid in grids):
        return False
    cells = (cell.strip() for grid in grids for cell in grid.columns[column])
    filled = [cell for cell in cells if not is_missing(cell)]
    figures = [cell for cell in filled if is_number(cell)]
    words = [cell for cell in filled if not is_number(cell)]
    plain = len(figures)
    if 2 * plain >= len(filled) or len(set(figures)) > FEW:
        return False
    meant = plain + sum(bool(MEANT.fullmatch(word)) for word in words)
    if plain or len(set(words)) > FEW:
        meant += sum(bool(MEASURED.fullmatch(w)) and not MEANT.fullmatch(w) for w in words)
    return 2 * meant < len(filled)


def check_words(grid: Grid, column: int, cells: Sequence[str], cure: str = "") -> None:
    """Raises `UserError` if nearly every row of a column of words has its own, as names have."""
    words = len(set(cells))
    if words > min(max(FEW, len(cells) / 2), MANY):
        raise UserError(
            f"{grid.path}: column {grid.names[column]!r} holds {words} words in {len(cells)} rows,"
            f" such as {_short(cells[0])!r}; valid: each in two rows or more, {MANY} in all{cure}"
        )


def holes(name: str, cells: Sequence[str]) -> tuple[str, ...]:
    """A line on what is missing of a column of words, or none."""
    found = [cell for cell in cells if is_missing(cell)]
    if not found:
        return ()
    words = ", ".join(map(repr, sorted(set(found))))
    return (
        f"data: column {name!r} lacks {len(found)} of {len(cells)} words; {words} counts as a word",
    )


def all_numbers(cells: Iterable[str]) -> bool:
    """Do all cells hold numbers?"""
    try:
        deque(map(float, cells), maxlen=0)
    except ValueError:
        return False
    return True


def is_number(cell: str) -> bool:
    """Does a cell hold a number?"""
    return all_numbers([cell])


def is_missing(cell: str) -> bool:
    """Does a cell say that its value is not known?"""
    return cell.strip().lower() in MISSING


def _delimiter(path: Path, asked: str, text: str) -> str:
    """The character that parts the cells: `asked`, or the one that suits the first rows."""
    parts = DELIMITERS.get(asked, asked)
    if parts and (len(parts) > 1 or parts.isalnum() or parts in '"\n\r.+-#_'):
        raise UserError(
            f"config.data.delimiter={asked!r}; valid: one character such as , ; | or \\t or space,"
            " or empty: told from the rows"
        )
    head = "\n".join(text.split("\n", 2 * SAMPLE)[: 2 * SAMPLE])
    found = _suitable(head)
    if not parts or parts == found:
        return found
    if found != "," and _widths(head, parts) == {1}:
        raise UserError(
            f"config.data.delimiter={asked!r} parts no cells of {path}; valid there: {found!r}"
        )
    return parts


def _suitable(head: str) -> str:
    """The delimiter by which the rows have one length above one; blanks if some are numbers."""
    for parts in "\t;|,":
        widths = _widths(head, parts)
        if len(widths) == 1 and widths != {1}:
            return parts
    rows = [line.split() for line in head.split("\n") if line.strip()]
    widths = {len(row) for row in rows}
    if (
        len(widths) == 1
        and widths != {1}
        and any(all_numbers(c[1:]) for c in zip(*rows, strict=True))
    ):
        return " "
    return max(",;\t|", key=head.split("\n")[0].count)


def _widths(head: str, parts: str) -> set[int]:
    lines = head.split("\n")
    if parts == " ":
        lines = [" ".join(line.split()) for line in lines]
    try:
        rows = list(csv.reader((line + "\n" for line in lines), delimiter=parts))
    except csv.Error:
        return set()
    return {len(row) for row in rows if any(cell.strip() for cell in row)}


def _cut(rows: list[list[str]]) -> None:
    """Drop an empty cell that a delimiter at the end of every row makes."""
    below = rows[1:] or rows
    one_more = len(rows[0]) + 1 == len(below[0])
    if len(below[0]) < 2 or not (one_more or not rows[0][-1].strip()):
        return
    if all(len(row) == len(below[0]) and not row[-1].strip() for row in below):
        for row in below if one_more else rows:
            row.pop()


def _is_header(path: Path, rows: list[list[str]]) -> bool:
    """Does the first row hold names?

    Raises:
        UserError: the rows leave it open: a word above numbers, but values beside it, or numbers
            that count on, such as years.
    """
    first, below = rows[0], rows[1 : SAMPLE + 1]
    if not below:
        return False
    names, figures, new, old, whole = [], [], 0, 0, False
    for cell, *column in zip(map(str.strip, first), *below, strict=False):
        filled = [c.strip() for c in column if not is_missing(c)]
        if is_missing(cell):
            continue
        if 2 * sum(map(is_number, filled)) <= len(filled):  # words, perhaps of a few classes
            new += 2 * len(set(filled)) <= len(filled) and cell not in filled
            old += cell in filled
        elif is_number(cell):
            figures.append(cell)
            whole |= all(c.isdecimal() for c in filled)
        elif not cell[0].isdigit() and re.search(r"[^\W\d]", cell):
            names.append(cell)
    counts_on = bool(figures) and all(cell.isdecimal() for cell in figures)
    counts_on &= len(figures) == len(first) - new and (new > 0 or len(figures) > 1)
    if counts_on:
        counts_on = all(int(b) - int(a) == 1 for a, b in pairwise(figures))
        counts_on &= new > 0 or len(figures) > 3 or not whole
    open_ = names if len(names) + new <= len(figures) + old else []
    if open_ or (counts_on and not names):
        raise UserError(
            f"{path}: the first row, with {_short((open_ or figures)[0])!r}, may hold names or"
            " values; valid: config.data.header=yes, if it holds names, or config.data.header=no"
        )
    return bool(names)


def _count(items: Sequence, noun: str) -> str:
    return f"{len(items)} {noun}{'s' * (len(items) > 1)}"


def _short(cell: str) -> str:
    cell = cell.strip()
    return cell if len(cell) <= 40 else cell[:40] + "..."
