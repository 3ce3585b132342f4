"""What all commands share: help, errors in one line, exit codes, and a fast start."""

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from smrx import cli
from smrx.cli import cli_errors
from smrx.cli.exit_codes import Exit
from smrx.client.client_errors import Refused, Unavailable
from smrx.config import ConfigError
from smrx.wire.codes import Reason


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `smrx book` raise."""

    @click.command()
    def broken() -> None:
        raise error

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda self, ctx, name: broken)


@pytest.mark.parametrize("name", cli_errors.EXIT_CODES)
def test_every_listed_exception_exists(name: str) -> None:
    module, _, kind = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), kind), Exception)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("x.toml: nodes: at least one node is required"), Exit.USAGE, "at least one node"),
        (cli_errors.CliError(Exit.DIVERGED, "node 2 has diverged"), Exit.DIVERGED, "node 2 has diverged"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "tape.csv"),
            Exit.USAGE,
            "tape.csv: No such file",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "out.csv"), Exit.RESOURCE, "out.csv: No space left"),
        (Unavailable("no answer within 10 s"), Exit.UNAVAILABLE, "no answer within 10 s"),
        (
            Refused("account 7", Reason.ACCOUNT_EXISTS),
            Exit.REFUSED,
            "account 7 was refused: the account exists already (ACCOUNT_EXISTS)",
        ),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), Exit.RESOURCE, "temporarily unavailable"),
        (MemoryError("Unable to allocate 3 GiB"), Exit.RESOURCE, "not enough memory: Unable to allocate 3 GiB"),
        (MemoryError(), Exit.RESOURCE, "not enough memory: the system"),
        (RuntimeError("can't start new thread"), Exit.RESOURCE, "allows no more threads"),
        (ZeroDivisionError("oops"), Exit.INTERNAL, "--debug"),
    ],
)
def test_error_is_one_line_and_an_exit_code(
    error: Exception, code: Exit, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(error, monkeypatch)
    monkeypatch.delenv("SMRX_DEBUG", raising=False)
    assert cli.run(["book"]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("how", ["option", "environment"])
def test_debug_shows_the_traceback(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(ZeroDivisionError("oops"), monkeypatch)
    monkeypatch.setenv("SMRX_DEBUG", "1" if how == "environment" else "0")
    with pytest.raises(ZeroDivisionError):
        cli.run(["--debug", "book"] if how == "option" else ["book"])


def test_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(KeyboardInterrupt(), monkeypatch)
    assert cli.run(["book"]) == 130
    assert capsys.readouterr().err.strip().endswith("interrupted")


@pytest.mark.parametrize("arguments", [["nonsense"], ["cluster", "nonsense"], ["node"], ["node", "--id", "one"]])
def test_invalid_command_line_exits_with_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == Exit.USAGE
    assert "Error:" in capsys.readouterr().err


def test_wrong_type_in_the_configuration_names_file_key_and_types(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('[[nodes]]\nid = "one"\nport = 7110\n', encoding="utf-8")
    assert cli.run(["--config", str(path), "cluster", "down"]) == Exit.USAGE
    printed = capsys.readouterr().err
    for part in (str(path), "nodes[0].id: expected int, got str"):
        assert part in printed


@pytest.mark.parametrize("place", ["before", "after"])
def test_config_option_works_before_and_after_the_command(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = ["--config", str(tmp_path / "missing.toml")]
    arguments = [*option, "cluster", "down"] if place == "before" else ["cluster", "down", *option]
    assert cli.run(arguments) == Exit.USAGE
    assert "missing.toml" in capsys.readouterr().err


def test_unknown_node_id_lists_the_known_ids(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["node", "--id", "9"]) == Exit.USAGE
    assert "its nodes are 1, 2, 3" in capsys.readouterr().err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == Exit.OK
    assert capsys.readouterr().out.startswith("smrx 0.")


def test_help_does_not_import_heavy_packages() -> None:
    code = (
        "import sys; from smrx.cli import run; run(['--help']); "
        "print(sorted({'numba', 'numpy', 'zmq', 'pysyncobj', 'lmdb'} & set(sys.modules)))"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert completed.stdout.splitlines()[-1] == "[]"


def test_closed_output_pipe_is_not_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    completed = subprocess.run(
        [sys.executable, "-m", "smrx", "--help"], stdout=write, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(write)
    assert completed.returncode == Exit.OK
    assert b"Traceback" not in completed.stderr
