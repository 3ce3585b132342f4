"""`smrx settle verify`: what is stored, derived once more from one of three sources. Parses, calls, prints.

Settlement shares no code with the inside of a node; where a node's log is the source, the two are put together here.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from smrx import compiling
from smrx.cli import options, output
from smrx.cli.exits import Exit
from smrx.cli.failures import Failure, explain
from smrx.cli.settle_shared import (
    compile_books,
    follow_options,
    node_ids,
    out_option,
    placed,
    stopping,
    told_as_failure,
)
from smrx.config import Config

if TYPE_CHECKING:
    from smrx.node.log_reader import History
    from smrx.settlement.reverify import Verified


@click.command()
@out_option
@click.option("--from-nodes", is_flag=True, help="Derive everything from the nodes' events instead of the sinks' rows.")
@click.option(
    "--log",
    "log_dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Compare with what the log in this data directory of a node leads to; the node must not run.",
)
@click.option(
    "--first-trade",
    type=click.IntRange(min=1),
    metavar="M",
    help="With --log, compare trades from this match id on; a log that was cut no longer has the first ones.",
)
@follow_options
@options.config_option
@options.json_option
def verify(
    out: str | None,
    from_nodes: bool,
    log_dir: Path | None,
    first_trade: int | None,
    until_sequence: int | None,
    idle: float | None,
    nodes: str | None,
    connect_timeout: float,
    as_json: bool,
) -> None:
    """Derive the books from scratch, and compare them with what is stored.

    Reads every trade and movement of each sink: match ids without a gap, notional and fees by the instrument's rules,
    and what they add up to against the books of the checkpoint. With --from-nodes reads every event from the first on
    from the nodes instead, as far as the checkpoint, and compares every stored trade with it. With --log makes every
    trade, movement and definition once more from the commands in a node's journal, compares each stored one with it,
    and the books with the balances and open orders of that state; no cluster is needed. Exit codes: 12 for the first
    one that is missing, stored twice or different, 8 for balances that differ, 6 for rows that contradict each other,
    9 for a sink.

    \b
    Examples:
      smrx settle verify --out settled
      smrx settle verify --out settled --log smrx-data/node-1
    """
    if log_dir is not None and from_nodes:
        raise click.UsageError("--log and --from-nodes: expected one of them, found both")
    if first_trade is not None and log_dir is None:
        raise click.UsageError("--first-trade: expected --log with it, found none")
    config = placed(options.config(), out)
    compile_books()
    with _told_as_json(as_json), told_as_failure():
        if log_dir is not None:
            found = _from_log(config, log_dir, first_trade)
        elif from_nodes:
            found = _from_nodes(config, node_ids(nodes), until_sequence, idle, connect_timeout)
        else:
            from smrx.settlement.reverify import from_sinks

            found = from_sinks(config)
    if as_json:
        output.print_json(msgspec.to_builtins(found) | {"error": None, "exit_code": int(Exit.OK)})
        return
    for line in found.lines():
        click.echo(line)


@contextmanager
def _told_as_json(as_json: bool) -> Iterator[None]:
    """Say what failed on standard output too, as `smrx settle run` does, where JSON is asked for."""
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        if as_json:
            code, sentence = explain(error)
            output.print_json({"error": sentence, "exit_code": int(code)})
        raise


def _from_nodes(
    config: Config, nodes: list[int] | None, until_sequence: int | None, idle: float | None, connect_seconds: float
) -> "Verified":
    from smrx.feed.sequencer import GapUnfillable
    from smrx.settlement.reverify import from_nodes

    try:
        with stopping() as stop:
            return from_nodes(
                config,
                node_ids=nodes,
                stop=stop,
                until_sequence=until_sequence,
                idle_seconds=idle,
                connect_seconds=connect_seconds,
            )
    except GapUnfillable as error:
        raise Failure(
            Exit.GAP, f"{error}; --log compares with the journal of a node that was stopped instead"
        ) from None


def _from_log(config: Config, directory: Path, first_trade: int | None) -> "Verified":
    from smrx.node.log_reader import TooEarly, TooLate, open_log

    compiling.ready_engine(lambda what: click.echo(what, err=True))
    with open_log(directory.expanduser(), config.cluster) as history:
        try:
            return compare(config, history, f"log of node {history.node_id} in {directory}", first_trade)
        except TooEarly as error:
            raise Failure(
                Exit.USAGE, f"{directory}: {error}; compare what is left of it with --first-trade {error.match_id + 1}"
            ) from None
        except TooLate as error:
            raise Failure(
                Exit.LOG, f"{directory}: {error}, and settlement went further; use the log of a node that did, too"
            ) from None


def compare(config: Config, history: "History", log: str, first_trade: int | None = None) -> "Verified":
    """Let a log make every trade again, and settlement compare it with what it stored.

    `log` names it in what is said. Raises what LogAudit does, and HistoryError of a log that does not reach so far.
    """
    from smrx.node.log_reader import replay_events, replay_trades
    from smrx.node.state_images import image
    from smrx.settlement.log_audit import LogAudit
    from smrx.wire import state_image

    with closing(LogAudit(config, log, first_trade)) as audit:
        if first_trade is not None and first_trade > audit.last_trade:
            raise click.UsageError(
                f"--first-trade: expected a trade that is settled, at most {audit.last_trade}, found {first_trade}"
            )
        for command, state_hash in audit.attested.items():
            state = image(history.state_after(command, state_hash).engine)
            audit.take_state(command, state_image.decode(state.data))
        if audit.first_trade <= audit.last_trade:
            replay_trades(history, audit.first_trade, audit.last_trade, lambda trade: audit.take_trade(trade.event))
        replay_events(history, audit.first_event, lambda applied: audit.take_events(applied.events))
        return audit.finish()
