"""The frame around every command: help, errors as one sentence, exit codes, and a start that imports nothing heavy."""

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
def test_every_known_error_exists_under_its_name(name: str) -> None:
    module, _, kind = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), kind), Exception)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ConfigError("x.toml: nodes: expected at least one, found none"), Exit.USAGE, "expected at least one"),
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
        (ZeroDivisionError("oops"), Exit.INTERNAL, "--debug"),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(
    error: Exception, code: Exit, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(error, monkeypatch)
    monkeypatch.delenv("SMRX_DEBUG", raising=False)
    assert cli.run(["book"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err


@pytest.mark.parametrize("how", ["option", "environment"])
def test_debug_shows_the_traceback(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(ZeroDivisionError("oops"), monkeypatch)
    monkeypatch.setenv("SMRX_DEBUG", "1" if how == "environment" else "0")
    with pytest.raises(ZeroDivisionError):
        cli.run(["--debug", "book"] if how == "option" else ["book"])


def test_an_interrupt_is_no_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(KeyboardInterrupt(), monkeypatch)
    assert cli.run(["book"]) == 130
    assert capsys.readouterr().err.strip().endswith("interrupted")


@pytest.mark.parametrize("arguments", [["nonsense"], ["cluster", "nonsense"], ["node"], ["node", "--id", "one"]])
def test_a_wrong_command_line_is_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == Exit.USAGE
    assert "Error:" in capsys.readouterr().err


def test_a_configuration_with_a_wrong_type_names_file_key_and_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('[[nodes]]\nid = "one"\nport = 7110\n', encoding="utf-8")
    assert cli.run(["--config", str(path), "cluster", "down"]) == Exit.USAGE
    said = capsys.readouterr().err
    for part in (str(path), "nodes[0].id", "Expected `int`", "got `str`"):
        assert part in said


@pytest.mark.parametrize("place", ["before", "after"])
def test_config_is_accepted_before_and_after_the_command(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = ["--config", str(tmp_path / "missing.toml")]
    arguments = [*option, "cluster", "down"] if place == "before" else ["cluster", "down", *option]
    assert cli.run(arguments) == Exit.USAGE
    assert "missing.toml" in capsys.readouterr().err


def test_a_node_that_is_not_in_the_cluster_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["node", "--id", "9"]) == Exit.USAGE
    assert "expected one of 1, 2, 3" in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == Exit.OK
    assert capsys.readouterr().out.startswith("smrx 0.")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from smrx.cli import run; run(['--help']); "
        "print(sorted({'numba', 'numpy', 'zmq', 'pysyncobj', 'lmdb'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_output_that_nobody_reads_any_more_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "smrx", "--help"], stdout=write, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(write)
    assert ended.returncode == Exit.OK
    assert b"Traceback" not in ended.stderr
