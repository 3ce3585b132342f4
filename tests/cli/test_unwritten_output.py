"""Standard output that is full, closed or a broken pipe: what a command did is reported, and the exit code holds."""

import fcntl
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from smrx.cli import smrx, standard_streams
from smrx.cli.exit_codes import Exit
from smrx.client import Client
from smrx.config import load
from smrx.local import LocalCluster
from tests.cli.test_exchange import DEMO

FULL, CLOSED = ">/dev/full", ">&-"

#: Commands that change something which outlives them; every other one must be in standard_streams.READS.
CHANGES = {
    *("account deposit", "account limits", "account open", "account resume", "account suspend", "account withdraw"),
    *("asset add", "cluster add", "cluster down", "cluster keygen", "cluster remove", "cluster transfer", "cluster up"),
    *("cluster upgrade", "compile", "gateway", "key add", "key create", "key restrict", "key revoke"),
    *("instrument add", "instrument cancel-only", "instrument close", "instrument halt", "instrument resume"),
    *(
        "instrument rules",
        "market apply",
        "market capacity",
        "market kill",
        "market retention",
        "market revive",
        "node",
        "order cancel",
        "order place",
    ),
    *("order reduce", "order replace", "replay", "settle run", "snapshot backup", "snapshot restore", "snapshot take"),
    *("tape generate",),
}


class Ended(NamedTuple):
    code: int
    error: str


Shell = Callable[[str], Ended]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("unwritten"), nodes=1) as cluster:
        cluster.wait_leader()
        yield cluster


@pytest.fixture(scope="module")
def shell(cluster: LocalCluster) -> Shell:
    """Return a function that runs one line of shell, in which `smrx` is this command line."""

    def run(line: str) -> Ended:
        command = f'smrx() {{ {shlex.quote(sys.executable)} -m smrx "$@"; }}; {line}'
        environment = {**os.environ, "SMRX_CONFIG": str(cluster.config_path)}
        environment.pop("SMRX_DEBUG", None)
        done = subprocess.run(
            ["bash", "-c", command], env=environment, cwd=cluster.directory, capture_output=True, text=True, timeout=120
        )
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        return Ended(done.returncode, done.stderr)

    assert run(f"smrx market apply {DEMO}").code == Exit.OK
    return run


def orders(cluster: LocalCluster) -> list[Any]:
    with Client(load(str(cluster.config_path)), account=0) as client:
        return list(client.orders(all_accounts=True))


def below(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from below(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def test_every_command_either_reads_or_changes() -> None:
    names = {name for name, _ in below(smrx)}
    reads = {name for name in names if {name, name.split()[0]} & set(standard_streams.READS)}
    assert names - reads == CHANGES
    assert all(any((name + " ").startswith(f"{read} ") for name in names) for read in standard_streams.READS)


@pytest.mark.parametrize(("where", "why"), [(FULL, "No space left on device"), (CLOSED, "it is closed")])
def test_placed_order_is_reported_on_stderr_with_its_ids(
    shell: Shell, cluster: LocalCluster, where: str, why: str
) -> None:
    number = 71 if where == FULL else 72
    line = f"smrx order place --account 7 BTC-USD buy 0.1 --price 100.00 --client-order-id {number} {where}"
    code, error = shell(line)
    assert code == Exit.UNREPORTED, error
    found = next(order for order in orders(cluster) if order.client_order_id == str(number))
    first, answer, ids = error.splitlines()
    assert first.startswith(f"smrx: the command is done, but its answer could not be written to standard output: {why}")
    assert answer.startswith(f"order {found.order_id}: New, filled ")
    for part in (f"order id {found.order_id}", f"client order id {number}", "account 7", "request id ", "sequence "):
        assert part in ids
    # Repeating the command with the same client order id is harmless while the order is open.
    before = len(orders(cluster))
    code, error = shell(line)
    assert (code, "DUPLICATE_CLIENT_ORDER_ID" in error) == (Exit.REFUSED, True)
    assert len(orders(cluster)) == before


def test_client_order_id_is_free_again_after_a_cancel(shell: Shell) -> None:
    place = "smrx order place --account 7 BTC-USD buy 0.1 --price 100.00 --client-order-id 73 >/dev/null"
    cancel = "smrx order cancel --account 7 --client-order-id 73 >/dev/null"
    assert [shell(line).code for line in (place, cancel, place)] == [Exit.OK] * 3


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("order place --account 7 BTC-USD buy 0.1 --price 100.00 --json", '"order_id": '),
        ("order cancel --account 7 --all", "cancelled (command "),
        ("account deposit 7 5.00 USD --transfer-id 991", "transfer id 991"),
        ("account withdraw 7 5.00 USD --transfer-id 992", "transfer 992 is done"),
        ("account open 99", "account 99 is open"),
        ("asset add NEW --decimals 2", "asset NEW has id "),
        ("instrument add NEW-USD --base BTC --quote USD --tick 0.01 --lot 0.001", "instrument NEW-USD has id "),
        (f"market apply {DEMO}", "unchanged"),
        ("snapshot take", "node 1: snapshot-"),
        ("cluster add 1", "node 1 is already a member"),
        ("--config keys.toml cluster keygen", "node 1: secret key in "),
        ("tape generate tape.csv --commands 1000", "tape.csv: "),
    ],
)
def test_each_command_that_changes_something_reports_it_on_stderr(
    shell: Shell, cluster: LocalCluster, line: str, reported: str
) -> None:
    nodes = 'cluster = "keys"\ndata_dir = "keys"\n[[nodes]]\nid = 1\nport = 7110\n'
    (cluster.directory / "keys.toml").write_text(nodes, encoding="utf-8")
    code, error = shell(f"smrx {line} {FULL}")
    assert code == Exit.UNREPORTED, error
    assert reported in error.split("The answer:")[1]


@pytest.mark.parametrize("where", [FULL, CLOSED])
@pytest.mark.parametrize(
    "line", ["order list", "account balances --json", "--help", "order place --help", f"market apply {DEMO} --dry-run"]
)
def test_command_that_only_reads_ends_with_a_sentence_and_7(shell: Shell, line: str, where: str) -> None:
    code, error = shell(f"smrx {line} {where}")
    assert code == Exit.RESOURCE
    assert error.startswith("smrx: the answer could not be written to standard output: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
def test_exit_code_holds_if_stderr_cannot_be_written(shell: Shell, cluster: LocalCluster, where: str) -> None:
    before = len(orders(cluster))
    place = "smrx order place --account 7 BTC-USD buy 0.1 --price 100.00"
    assert shell(f"{place} {CLOSED} {where}") == (Exit.UNREPORTED, "")
    assert shell(f"{place} {FULL} {where}") == (Exit.UNREPORTED, "")
    assert len(orders(cluster)) == before + 2
    assert shell(f"{place} {where} >/dev/null") == (Exit.OK, "")
    assert shell(f"smrx account open 7 {where}") == (Exit.REFUSED, "")
    assert shell(f"smrx account list {FULL} {where}") == (Exit.RESOURCE, "")


def test_refusal_keeps_its_exit_code(shell: Shell) -> None:
    code, error = shell(f"smrx account open 7 {FULL}")
    assert (code, "ACCOUNT_EXISTS" in error, error.count("\n")) == (Exit.REFUSED, True, 1)


@pytest.mark.parametrize("line", ["account list", "order place --account 7 BTC-USD buy 0.1 --price 100.00"])
def test_reader_that_closes_the_pipe_is_no_error(shell: Shell, line: str) -> None:
    # `true` ends before the command writes.
    assert shell(f"smrx {line} | true; exit ${{PIPESTATUS[0]}}") == (Exit.OK, "")


@pytest.mark.parametrize(("name", "code"), [("book", Exit.RESOURCE), ("market", Exit.UNREPORTED), ("quiet", Exit.OK)])
def test_error_at_the_close_of_standard_output_is_reported(tmp_path: Path, name: str, code: Exit) -> None:
    """A network file system reports a full disk when a file is closed: a stand-in for the close of a copy of it."""
    program = f"""
import os, sys, click
from smrx import cli
close = os.close
def failing_close(descriptor):
    is_copy = descriptor > 2 and os.fstat(descriptor).st_ino == os.fstat(1).st_ino
    close(descriptor)
    if is_copy:
        raise OSError(28, "No space left on device")
os.close = failing_close
answer = None if "{name}" == "quiet" else "the answer"
command = click.Command("{name}", callback=lambda: answer and click.echo(answer))
cli.LazyGroup.get_command = lambda *arguments: command
sys.exit(cli.run(["{name}"]))
"""
    with open(tmp_path / "output", "wb") as output:
        ended = subprocess.run(
            [sys.executable, "-c", program], stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert ended.returncode == code, ended.stderr
    assert ("No space left on device" in ended.stderr) == (code != Exit.OK)
    assert ("the answer\n" in ended.stderr) == (code == Exit.UNREPORTED)


def test_output_without_blocking_is_written_completely(cluster: LocalCluster) -> None:
    """A pipe that another process set to non-blocking fills up: the command waits for its reader."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    code = "import sys, click; from smrx import cli; cli.LazyGroup.get_command = lambda *a: click.Command('book', "
    code += "callback=lambda: click.echo('x' * 100_000)); sys.exit(cli.run(['book']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=write)
    os.close(write)
    with open(read, "rb") as output:
        assert output.read() == b"x" * 100_000 + b"\n"
    assert process.wait(60) == Exit.OK
