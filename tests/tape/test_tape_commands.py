"""The commands `smrx tape` and `smrx replay` without a cluster: output, JSON, errors, exit codes."""

import json
from pathlib import Path

import pytest

from smrx.cli import options, run, venue_client
from smrx.cli.exit_codes import Exit
from smrx.client import Client
from tests.tape import synthetic_recording


@pytest.fixture
def made(tmp_path: Path) -> synthetic_recording.Files:
    return synthetic_recording.write(tmp_path, messages=400)


def test_generate_then_replay_in_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "day.tape"
    assert run(["tape", "generate", str(path), "--commands", "500", "--seed", "3", "--json"]) == Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert (told["symbol"], told["commands"], told["seed"]) == ("AMZN-USD", 500, 3)
    assert run(["replay", str(path), "--verify-only", "--json"]) == Exit.OK
    engine = json.loads(capsys.readouterr().out)["engine"]
    assert (engine["commands"], engine["refused"], engine["trades"]) == (500, 0, told["trades"])
    assert engine["verified"] is True
    assert run(["replay", str(path), "--verify-only", "--limit", "100"]) == Exit.OK
    assert "engine      100 commands, 0 refused" in capsys.readouterr().out


def test_recording_is_verified(made: synthetic_recording.Files, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["replay", str(made.messages), "--orderbook", str(made.orderbook), "--verify-only"]
    assert run(arguments) == Exit.OK
    text = capsys.readouterr().out
    assert f"levels      {made.truth.messages - 1} of {made.truth.messages - 1} rows equal" in text
    assert "verified    the engine reproduced the recording" in text
    assert run([*arguments, "--json"]) == Exit.OK
    history = json.loads(capsys.readouterr().out)["history"]
    assert history["rows_equal"] == made.truth.messages - 1
    assert len(history["exceptions"]) == len(made.truth.exceptions)


def test_missing_orderbook_is_reported(made: synthetic_recording.Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", "--format", "lobster", str(made.messages), "--verify-only"]) == Exit.OK
    told = capsys.readouterr()
    assert "Without --orderbook no price levels can be compared" in told.err
    assert "rows equal" not in told.out


def test_altered_recording_is_not_verified(made: synthetic_recording.Files, capsys: pytest.CaptureFixture[str]) -> None:
    rows = made.orderbook.read_text().splitlines()
    columns = rows[200].split(",")
    columns[1] = str(int(columns[1]) + 1)
    made.orderbook.write_text("\n".join([*rows[:200], ",".join(columns), *rows[201:]]) + "\n")
    code = run(["replay", str(made.messages), "--orderbook", str(made.orderbook), "--verify-only"])
    assert code == Exit.DIVERGED
    text = capsys.readouterr().out
    assert "FAILED      row 200 (line 201): ask level 1: expected " in text
    assert "NOT VERIFIED" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["replay", "none.tape"], "none.tape: cannot be read: No such file or directory"),
        (["replay", "words.txt", "--format", "smrx"], "not a tape file (`smrx tape generate` writes them)"),
        (["replay", "words.txt"], "words.txt: line 1: expected 6 columns"),
        (["replay", "t.tape", "--orderbook", "b.csv"], "--orderbook and --symbol are only for LOBSTER files"),
        (["replay", "words.txt", "--limit", "0"], "0 is not in the range x>=1"),
        (["tape", "generate", "no/such/folder/t.tape", "--commands", "5"], "cannot be written"),
        (["tape", "generate", "t.tape", "--commands", "5", "--market-id", "840"], "market id: expected 1 to"),
    ],
)
def test_invalid_arguments_are_reported(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["tape", "generate", "t.tape", "--commands", "5"]) == Exit.OK
    Path("words.txt").write_text("some words\n", encoding="ascii")
    assert run(arguments) == Exit.USAGE
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_recording_with_conflicts_is_not_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.csv"
    path.write_text("34200,1,7,10,1000000,1\n34201,1,7,10,1000000,1\n", encoding="ascii")
    assert run(["replay", str(path)]) == Exit.USAGE
    assert "line 2: a new order with the id 7 of an open order (1 message like this)" in capsys.readouterr().err


MESSAGES = "34200.004241176,1,16113575,18,5853300,1\n34200.1,1,16113576,10,5853400,-1\n34201,4,16113576,5,5853400,-1\n"


@pytest.mark.parametrize("text", [MESSAGES.replace("\n", ",null\n"), MESSAGES + "\n"])
def test_recording_as_users_have_it_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text, encoding="ascii")
    assert run(["replay", "--format", "lobster", "--verify-only", str(path)]) == Exit.OK
    assert "recording   3 messages, 1 executions, 0 outside the book" in capsys.readouterr().out


def test_halts_and_cross_trades_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.csv"
    more = "34202,5,0,5,5853400,-1\n34203,7,0,0,-1,-1\n34204,7,0,0,0,-1\n34205,6,-1,900,5853400,-1\n34205,7,0,0,1,-1\n"
    path.write_text(MESSAGES + more, encoding="ascii")
    assert run(["replay", "--verify-only", str(path)]) == Exit.OK
    text = capsys.readouterr().out
    assert "recording   8 messages, 1 executions, 5 outside the book" in text
    assert "            1 hidden execution (type 5): not in the book, not sent" in text
    assert "            1 cross trade (type 6): executed in an auction, not sent" in text
    assert "            3 halt messages (type 7: halt, quoting or trading resumes): not sent, the instrument" in text
    assert run(["replay", "--verify-only", "--json", str(path)]) == Exit.OK
    counts = json.loads(capsys.readouterr().out)["history"]["counts"]
    assert (counts["hidden"], counts["cross_trades"], counts["halts"], counts["skipped"]) == (1, 1, 3, 5)


def test_replay_without_cluster_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        venue_client, "connect", lambda **_: Client(options.config(), account=venue_client.VENUE, timeout=0.3)
    )
    config = tmp_path / "cluster.toml"
    # Port 9 (discard) on loopback: nothing of ours listens there.
    config.write_text('cluster = "none"\n[[nodes]]\nid = 1\nport = 9\n', encoding="ascii")
    tape = tmp_path / "t.tape"
    assert run(["tape", "generate", str(tape), "--commands", "5"]) == Exit.OK
    assert run(["--config", str(config), "replay", str(tape)]) == Exit.UNAVAILABLE
    assert "Traceback" not in capsys.readouterr().err
