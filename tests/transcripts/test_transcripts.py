"""Every transcript must read as written when it is run on the engine and on the oracle.

`pytest tests/transcripts --rewrite` writes the oracle's answers into the files; check the diff before you keep it.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from smrx.wire.codes import CommandKind, EventKind, Reason, TimeInForce
from tests.any_rules import EngineOfAnyRules
from tests.oracle import Oracle
from tests.transcripts.language import Script, transcript
from tests.transcripts.text import STP_WORDS

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*.txt"))

#: The first word of a line that sends a kind, if it is not the name of the kind.
_WORDS = {
    CommandKind.OPEN_ACCOUNT: "account",
    CommandKind.SUSPEND_ACCOUNT: "suspend",
    CommandKind.RESUME_ACCOUNT: "resume",
    CommandKind.OPEN_SESSION: "session",
    CommandKind.CLOSE_SESSION: "close",
    CommandKind.ADD_ASSET: "asset",
    CommandKind.ADD_INSTRUMENT: "instrument",
    CommandKind.SET_STATUS: "status",
    CommandKind.SET_LIMITS: "limits",
    CommandKind.SET_RULES: "rules",
    CommandKind.SET_RETENTION: "retention",
    CommandKind.SET_CAPACITY: "capacity",
    CommandKind.SET_VERSION: "version",
    CommandKind.ADD_CREDENTIAL: "credential",
    CommandKind.SET_CREDENTIAL: "restrict",
    CommandKind.REVOKE_CREDENTIAL: "revoke",
}
_LINE_OF = {kind: rf"^> {_WORDS.get(kind, kind.name.lower().replace('_', '-'))}\b" for kind in CommandKind}


def begun_with(make: Any, rules: int) -> Any:
    """Return what makes a state machine that begins with a version of the rules."""
    return lambda: make(rules=rules)


FIRST_ORACLE = begun_with(Oracle, 1)


@pytest.mark.parametrize("make", [EngineOfAnyRules, Oracle], ids=["engine", "oracle"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, make: Any, request: pytest.FixtureRequest) -> None:
    written = path.read_text(encoding="utf-8")
    if request.config.getoption("--rewrite"):
        path.write_text(transcript(written, FIRST_ORACLE), encoding="utf-8")
        return
    assert transcript(written, begun_with(make, 1)) == written


#: Those whose answers the version decides: they switch it, repeat a request with another content, or set what version 1
#: reserves.
OF_VERSIONS = {
    "session-answers",
    "details-malformed",
    *(path.stem for path in FILES if "\n> version" in path.read_text(encoding="utf-8")),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript_reads_the_same_with_the_newest_rules(path: Path) -> None:
    """All but the state hash, which contains the version; so that a page about orders need not say its version."""
    written = path.read_text(encoding="utf-8")
    newest = transcript(written, begun_with(Oracle, 2))
    same = re.sub(HASH, "", newest) == re.sub(HASH, "", written)
    assert same == (path.stem not in OF_VERSIONS)


HASH = re.compile(r"^  [0-9a-f]{16} after", re.MULTILINE)


def test_transcripts_show_every_event_and_order_kind() -> None:
    """The transcripts are documentation: what none of them shows is undocumented."""
    shown = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    assert [kind.name for kind in EventKind if not re.search(rf"^  {kind.name}\b", shown, re.MULTILINE)] == []
    words = {f" {tif.name.lower()} " for tif in TimeInForce} | {f" stp {word}" for word in STP_WORDS}
    words |= {
        " market ",
        " stop 1",
        " stop-limit 1",
        " post-only",
        " budget",
        " show ",
        " until ",
        " cancel-on-disconnect",
    }
    assert [word for word in sorted(words - {" stp newest"}) if word not in shown] == []
    assert [kind.name for kind in CommandKind if not re.search(_LINE_OF[kind], shown, re.MULTILINE)] == []
    assert len(FILES) >= 40


def test_transcripts_show_every_reason() -> None:
    shown = set("\n".join(path.read_text(encoding="utf-8") for path in FILES).split())
    assert [reason.name for reason in Reason if reason and reason.name not in shown] == []


def test_transcripts_show_resulting_books() -> None:
    """A transcript shows the resulting book, so that a reader need not derive it from the events."""
    level = re.compile(r"^> book \S+\n  side  price .*\n  (?:buy|sell) ", re.MULTILINE)
    assert sum(1 for path in FILES if level.search(path.read_text(encoding="utf-8"))) >= 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript_begins_with_a_comment_and_ends_with_a_hash(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert lines[-2] == "> hash"


def test_changed_answer_is_noticed() -> None:
    """A transcript with a wrong quantity differs from the answer."""
    source = "> market alice\n> place alice buy 3 BTC/USD @ 10\n"
    written = transcript(source, FIRST_ORACLE)
    assert "NEW #9 alice buy 3 BTC/USD @ 10 gtc | cum 0 leaves 3" in written
    assert transcript(written.replace("leaves 3", "leaves 2"), FIRST_ORACLE) == written


def test_unknown_command_raises() -> None:
    with pytest.raises(ValueError, match="unknown transcript command"):
        Script(Oracle()).run("buy low")
