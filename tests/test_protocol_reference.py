"""docs/protocol.md matches the code, and says enough: every field has a note, every example decodes to its values."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smrx.cli.protocol_examples import EXAMPLES, example, frame_examples
from smrx.cli.protocol_reference import FIELD_NOTES, FRAME_NOTES, protocol
from smrx.wire import frames, records
from smrx.wire.codes import CommandKind, EventKind
from smrx.wire.frames import FrameKind

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/protocol.md"
LAYOUTS = [
    *records.COMMAND_LAYOUTS.values(),
    *records.DETAILS_LAYOUTS.values(),
    *records.EVENT_LAYOUTS.values(),
    records.OUTCOME,
]


def test_protocol_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == protocol(), "docs/protocol.md is out of date; run scripts/docs"


def test_every_field_has_a_note_and_every_note_a_field() -> None:
    names = {name for layout in LAYOUTS for name in layout.names or () if not name.startswith("reserved")}
    assert names == set(FIELD_NOTES)


def test_every_frame_kind_has_a_note_and_an_example() -> None:
    assert set(FRAME_NOTES) == set(FrameKind)
    assert set(frame_examples()) == {kind.name for kind in FrameKind}


def test_every_layout_has_an_example() -> None:
    shown = {id(layout) for _, layout, _ in EXAMPLES}
    assert all(id(layout) in shown for layout in LAYOUTS)


def test_every_kind_has_a_layout_and_fields() -> None:
    assert set(records.COMMAND_LAYOUTS) == set(records.COMMAND_FIELDS) == set(CommandKind)
    assert set(records.EVENT_LAYOUTS) == set(records.EVENT_FIELDS) == set(EventKind)
    for kinds, layouts in (
        (records.COMMAND_FIELDS, records.COMMAND_LAYOUTS),
        (records.DETAILS_FIELDS, records.DETAILS_LAYOUTS),
        (records.EVENT_FIELDS, records.EVENT_LAYOUTS),
    ):
        for kind, names in kinds.items():
            assert set(names) <= set(layouts[kind].names or ()), kind  # type: ignore[index]


def test_fields_of_a_layout_do_not_overlap() -> None:
    for layout in LAYOUTS:
        assert _overlap(layout) is None
    faulty = np.dtype({"names": ["a", "b"], "formats": ["<u4", "<u4"], "offsets": [0, 2]})
    assert _overlap(faulty) == "b"


def _overlap(layout: "np.dtype[Any]") -> str | None:
    """Return a field that begins before another ends, or None."""
    assert layout.fields is not None
    end = 0
    for name, place in sorted(layout.fields.items(), key=lambda item: item[1][1]):
        if place[1] < end:
            return str(name)
        end = place[1] + place[0].itemsize
    return None


def _shown_bytes() -> Iterator[tuple[str, bytes]]:
    """Yield (title, bytes) of the examples as the page shows them."""
    text = PAGE.read_text(encoding="utf-8").split("## Examples")[1]
    for title, block in re.findall(r"\n(\S.*)\n\n```text\n([0-9a-f\n]+)```", text):
        yield title, bytes.fromhex(block.replace("\n", ""))


@pytest.mark.parametrize(("name", "layout", "values"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_record_example_decodes_to_its_values(
    name: str, layout: "np.dtype[Any]", values: dict[str, int | bytes]
) -> None:
    shown = dict(_shown_bytes())[f"{name}: {example(layout, **values)[0]}"]
    row = np.frombuffer(shown, layout)[0]
    found = {field: row[field].item() for field in layout.names or ()}
    assert {field: value for field, value in found.items() if any(row[field].tobytes())} == {
        field: value for field, value in values.items() if value
    }


def test_frame_examples_decode() -> None:
    shown = dict(_shown_bytes())
    for kind in FrameKind:
        frame = frames.decode(shown[f"Frame {kind.name}"])
        assert frame.kind is kind
    commands = frames.command_list(frames.decode(shown["Frame COMMANDS"]))
    assert commands.details["client_order_id"].tolist() == [b"x-4f9a6c1e2b7d4c0f9d1e"]
