"""The page docs/formats.md names the format numbers that the code writes.

    python -m tests.golden.test_formats

puts the numbers of the code into the page; what the page says of other formats is for its author to check.
"""

import re
from pathlib import Path

import pytest

from smrx.consensus import disk_journal, messages, recovery, snapshot_files
from smrx.engine import migrations, snapshot
from smrx.follower import checkpoint_store
from smrx.history import history_layout
from smrx.node import replicated_state
from smrx.settlement import ledger
from smrx.sinks import csv_layout, lmdb_layout, parquet_layout, postgresql_schema
from smrx.tape import tape_file
from smrx.wire import batches, record_schema, state_image

PATH = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
PAGE = PATH.read_text(encoding="utf-8")
#: First and third column of the table.
ROWS = dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|", PAGE, re.MULTILINE))

EXPECTED = {
    "state snapshot (engine)": f"{snapshot.FORMAT}, layout {migrations.LAYOUT_VERSION}",
    "node snapshot: metadata": snapshot_files.FORMAT,
    "node snapshot: envelope of the state": replicated_state._FORMAT,
    "node snapshot: events": record_schema.FILE_FORMAT,
    "journal": disk_journal.FORMAT,
    "log entries": batches.VERSION,
    "term, vote, members": recovery._FORMAT,
    "messages between members": messages.PROTOCOL,
    "state image": state_image.FORMAT,
    "books": ledger._FORMAT,
    "events since the books": record_schema.FILE_FORMAT,
    "settlement checkpoint": checkpoint_store._FORMAT,
    "order history": history_layout.FORMAT,
    "CSV sink": csv_layout.FORMAT,
    "Parquet sink": parquet_layout.FORMAT,
    "LMDB sink": lmdb_layout.FORMAT,
    "PostgreSQL sink": max(postgresql_schema.migrations()),
    "tapes": tape_file.VERSION,
}


@pytest.mark.parametrize("what", EXPECTED)
def test_page_names_the_format(what: str) -> None:
    assert ROWS[what] == str(EXPECTED[what])


def test_every_row_is_checked() -> None:
    assert set(ROWS) - {"what", "---"} == set(EXPECTED)


def rewrite(page: str) -> str:
    """Return the page with the numbers of the code."""
    for what, number in EXPECTED.items():
        row = re.compile(rf"^(\| {re.escape(what)} \| [^|]+ \| )[^|]+( \|)", re.MULTILINE)
        page = row.sub(rf"\g<1>{number}\g<2>", page)
    return page


def test_rewriting_changes_nothing_here_and_mends_a_wrong_number() -> None:
    assert rewrite(PAGE) == PAGE
    row = "| journal | `journal.lmdb` | "
    assert row in PAGE
    assert rewrite(PAGE.replace(row, row + "9")) == PAGE


if __name__ == "__main__":
    PATH.write_text(rewrite(PAGE), encoding="utf-8")
