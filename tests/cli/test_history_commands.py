"""`smrx history` as people see it: tables, the configured directory, and what is refused."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from smrx.cli import run
from smrx.cli.exit_codes import Exit
from smrx.config import Config, Settlement, dump
from smrx.wire.codes import EventKind
from tests.history.test_history_store import ENDS, EXPECTED, fill, store


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The cluster file of a history of all events of a market."""
    directory = tmp_path_factory.mktemp("settled")
    writer = store(directory / "history")
    writer.open("test")
    fill(writer, ENDS[[-1]])
    writer.close()
    path = directory / "cluster.toml"
    path.write_text(dump(Config(cluster="test", settlement=Settlement(directory=str(directory), history="history"))))
    return str(path)


def shown(config: str, capsys: pytest.CaptureFixture[str], *arguments: str, code: Exit = Exit.OK) -> str:
    """Return what a command prints, or its error."""
    assert run(["history", *arguments, "--config", config]) == code
    captured = capsys.readouterr()
    return captured.out if code is Exit.OK else captured.err


def test_orders_are_listed_in_pages(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    own = EXPECTED.updates[(EXPECTED.updates["account"] == 1) & (EXPECTED.updates["is_first"] == 1)]
    page = shown(config, capsys, "orders", "--account", "1", "--limit", "3").splitlines()
    assert page[0].split()[:2] == ["ORDER", "CLIENT"]
    assert [int(line.split()[-1]) for line in page[1:4]] == own["event_sequence"][::-1][:3].tolist()
    assert page[-1] == f"the list continues: --before {own['event_sequence'][-3]}"
    last = shown(config, capsys, "orders", "--account", "1", "--before", str(own["event_sequence"][1])).splitlines()
    assert len(last) == 2
    assert "no orders" in shown(config, capsys, "orders", "--account", "77")


def test_order_is_shown_with_its_life(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill_ = EXPECTED.updates[EXPECTED.updates["match_id"] != 0][0]
    life = shown(config, capsys, "order", str(fill_["order_id"]))
    assert f"order id        {fill_['order_id']}" in life
    steps = [line.split()[2] for line in life.partition("REASON\n")[2].splitlines()]
    kinds = EXPECTED.updates["kind"][EXPECTED.updates["order_id"] == fill_["order_id"]]
    assert steps == [EventKind(kind).name for kind in kinds.tolist()]


def test_fills_are_listed(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    own = EXPECTED.updates[(EXPECTED.updates["account"] == 2) & (EXPECTED.updates["match_id"] != 0)]
    lines = shown(config, capsys, "fills", "--account", "2", "--limit", "2").splitlines()
    assert [int(line.split()[2]) for line in lines[1:]] == own["match_id"][::-1][:2].tolist()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["order"], Exit.USAGE, "name the order by its id, or by --account and --client-order-id"),
        (["order", "5", "--client-order-id", "a"], Exit.USAGE, "name the order by its id"),
        (["order", "--client-order-id", "a"], Exit.USAGE, "name the order by its id"),
        (["order", "--account", "1", "--client-order-id", "a"], Exit.REFUSED, "has no such order"),
        (["orders", "--account", "1", "--status", "New,Gone"], Exit.USAGE, "expected statuses of New, PartiallyFilled"),
        (["orders", "--account", "1", "--history", "nowhere"], Exit.SINK, "is not the LMDB environment"),
        (["serve", "--host", "192.0.2.1"], Exit.USAGE, "expected a loopback address, found 192.0.2.1"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    config: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: Exit, text: str
) -> None:
    assert text in shown(config, capsys, *arguments, code=code)


def test_history_that_is_not_configured_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(dump(Config()))
    assert "name the directory with --history" in shown(str(path), capsys, "fills", "--account", "1", code=Exit.USAGE)


def test_missing_package_is_named(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_uvicorn(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "uvicorn":
            raise ModuleNotFoundError(name=name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_uvicorn)
    assert "install it with: pip install smrx[http]" in shown(config, capsys, "serve", code=Exit.USAGE)
