"""What an experiment leaves behind, read back."""

import csv
import re


def read(out, table, said, *more):
    """Rows of `table` as dictionaries, once `out` is seen to hold what an experiment writes.

    Args:
        said: the verdicts as lines, or a text that holds them.
        more: names of further tables.
    """
    names = {table, *more, "figure.png", "figure.pdf", "verdicts.txt"}
    assert {p.name for p in out.iterdir()} == names
    verdicts = (out / "verdicts.txt").read_text()
    assert verdicts in (said if isinstance(said, str) else "\n".join(said) + "\n")
    assert re.fullmatch(r"\d+ holds?, \d+ do(es)? not, \d+ undecided", verdicts.splitlines()[-1])
    with (out / table).open() as file:
        return list(csv.DictReader(file))
