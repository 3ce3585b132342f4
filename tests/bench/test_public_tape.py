"""Workloads of the public benchmark: the file format, the commands they become, and the form of the reports."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smrx.bench import engine_bench, public_tape, tapes
from smrx.tape.tape_error import TapeError

#: type, side, ioc, quantity, order id, price; and the reports that they cause.
MESSAGES = [
    (0, 0, 0, 10, 1, 100),
    (0, 0, 0, 5, 2, 100),
    (0, 1, 0, 4, 3, 100),  # fills order 1 in part
    (2, 0, 0, 11, 1, 100),  # all 11 lots are open again, behind order 2
    (0, 1, 1, 30, 4, 99),  # fills both; the rest is cancelled
    (1, 0, 0, 5, 2, 100),
    (2, 0, 0, 6, 2, 100),
    (0, 1, 0, 7, 5, 101),
    (2, 1, 0, 8, 5, 102),
    (1, 1, 0, 7, 5, 101),
]
REPORTS = """\
0,0,0,1,100,10
0,1,0,2,100,5
0,2,1,3,100,4
1,2,100,4,1,3
3,3,0,1,100,11
0,4,1,4,99,30
1,4,100,5,2,4
1,4,100,11,1,4
2,4,1,4,99
4,5,2
5,6,2
0,7,1,5,101,7
3,8,1,5,102,8
2,9,1,5,102"""


def write(path: Path, messages: Sequence[tuple[int, ...]], magic: int = 0x4D4542575F303031) -> str:
    rows = np.zeros(len(messages), public_tape._MESSAGE)
    for at, row in enumerate(messages):
        for name, value in zip(("type", "side", "ioc", "quantity", "order_id", "price"), row, strict=True):
            rows[name][at] = value
    rows["sequence"] = np.arange(len(messages))
    header = np.array([(magic, 1, len(messages))], public_tape._HEADER)
    path.write_bytes(header.tobytes() + rows.tobytes())
    return str(path)


def test_reports_have_the_form_of_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "orders.bin", MESSAGES)
    expected = hashlib.sha256(REPORTS.encode()).hexdigest()
    assert tapes.public_reports(path) == expected
    # Reports of several calls of the engine are those of one.
    monkeypatch.setattr(public_tape, "_REPORT_BATCH", 3)
    assert tapes.public_reports(path) == expected
    assert public_tape.scenario_of(expected) is None
    assert [public_tape.scenario_of(found) for found in public_tape.PUBLISHED.values()] == list(public_tape.PUBLISHED)


def test_a_modification_opens_all_its_lots_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "orders.bin", MESSAGES)
    right = tapes.public_reports(path)
    monkeypatch.setattr(public_tape, "add_filled_lots", lambda *_: None)
    assert tapes.public_reports(path) != right


def test_the_engine_benchmark_reports_the_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "orders.bin", MESSAGES)
    figures = engine_bench.run(tape="public", files=[path])
    assert (figures["commands"], figures["trades"]) == (9, 3)
    assert figures["report_sha256"] == hashlib.sha256(REPORTS.encode()).hexdigest()
    assert figures["published_for"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: b"", "found 0 bytes"), (lambda raw: raw[:-1], "expected 416 bytes for 10 messages, found 415"),
        (lambda raw: b"x" + raw[1:], "found another file"), (lambda raw: raw[:16] + b"\x07" + raw[17:], "type 0 to 2"),
    ],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = write(tmp_path / "orders.bin", MESSAGES)
    Path(path).write_bytes(change(Path(path).read_bytes()))
    with pytest.raises(TapeError, match=message):
        tapes.public(path)


def test_one_file_is_expected() -> None:
    with pytest.raises(ValueError, match="expected one with --tape public"):
        tapes.flow("public", 10, 1)
