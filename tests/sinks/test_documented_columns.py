"""docs/settled-rows.md names every column of the sinks, in their order."""

import re
from pathlib import Path

import pytest

from smrx.sinks.csv_rows import DEFINITION_COLUMNS, MOVEMENT_COLUMNS, TRADE_COLUMNS
from smrx.sinks.rows import DEFINITION_FIELDS, DEFINITION_ROW
from smrx.wire.codes import EventKind

PAGE = (Path(__file__).parents[2] / "docs/settled-rows.md").read_text(encoding="utf-8")


def table(title: str) -> list[list[str]]:
    """Return the rows of the table under a title."""
    section = PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return rows[2:]


@pytest.mark.parametrize(
    ("title", "columns"),
    [("Trades", TRADE_COLUMNS), ("Movements", MOVEMENT_COLUMNS), ("Definitions", DEFINITION_COLUMNS)],
)
def test_every_column_is_documented(title: str, columns: tuple[str, ...]) -> None:
    assert [row[0] for row in table(title)] == list(columns)
    assert all(row[-1] for row in table(title))


def test_kinds_of_definitions_are_documented() -> None:
    always = {*(DEFINITION_ROW.names or ())[:5], "time"}
    for column, kinds, _ in table("Definitions"):
        having = [EventKind(kind).name for kind, fields in DEFINITION_FIELDS.items() if column in fields]
        assert kinds == ("all" if column in always else ", ".join(having)), column


def test_format_is_documented() -> None:
    from smrx.sinks import csv_layout, lmdb_layout, parquet_layout

    found = re.search(r"\(CSV, Parquet, LMDB: (\d+);", PAGE)
    assert found is not None
    assert {csv_layout.FORMAT, lmdb_layout.FORMAT, parquet_layout.FORMAT} == {int(found[1])}
