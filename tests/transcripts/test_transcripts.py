"""Every transcript, run on the engine and on the oracle, must read as written.

`pytest tests/transcripts --rewrite` writes what the oracle answers into the files; look at the diff before you keep it.
"""

from pathlib import Path
from typing import Any

import pytest

from smrx.engine import Engine
from smrx.engine.codes import EventKind, OrderType, TimeInForce
from tests.oracle import Oracle
from tests.transcripts.language import Script, transcript

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("machine", [Engine, Oracle], ids=["engine", "oracle"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, machine: Any, request: pytest.FixtureRequest) -> None:
    written = path.read_text(encoding="utf-8")
    if request.config.getoption("--rewrite"):
        path.write_text(transcript(written, Oracle), encoding="utf-8")
        return
    assert transcript(written, machine) == written


def test_transcripts_show_every_event_and_order_kind() -> None:
    """They are the documentation: what none of them shows is not documented."""
    shown = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    assert [kind.name for kind in EventKind if f"  {kind.name} " not in shown] == []
    words = {tif.name.lower() for tif in TimeInForce} | {kind.name.lower() for kind in OrderType} | {"post-only"}
    assert [word for word in sorted(words - {"limit"}) if word not in shown] == []
    assert len(FILES) >= 14


def test_changed_answer_is_noticed() -> None:
    """A transcript with another quantity in it is not what the machine answers."""
    source = "> market alice\n> place alice buy 3 BTC/USD @ 10\n"
    written = transcript(source, Oracle)
    assert "NEW #9 alice buy 3 BTC/USD @ 10 gtc | cum 0 leaves 3" in written
    assert transcript(written.replace("leaves 3", "leaves 2"), Oracle) == written


def test_unknown_word_is_an_error_of_the_file() -> None:
    with pytest.raises(ValueError, match="expected a command"):
        Script(Oracle()).run("buy low")
