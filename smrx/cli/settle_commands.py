"""`smrx settle`: the verifier outside the cluster. Parses, runs, prints; the work is in smrx/settlement."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from smrx import compiling
from smrx.cli import options
from smrx.cli.settle_report import report
from smrx.cli.settle_shared import (
    Stop,
    compile_books,
    follow_options,
    node_ids,
    out_option,
    placed,
    stopping,
    told_as_failure,
)
from smrx.cli.settle_text import finish, live
from smrx.cli.settle_verify import verify
from smrx.config import Config, ConfigError
from smrx.sinks.sink_errors import SinkFault

if TYPE_CHECKING:
    from smrx.client.asker import Ask
    from smrx.settlement.follower.alarms import Alarms
    from smrx.settlement.follower.runner import Settlement as Running
    from smrx.settlement.follower.settler import Settling

#: How long a node may take to say its balances.
_ASK_SECONDS: Final = 1.0


@click.group()
def settle() -> None:
    """Verify the event feed and keep the books outside the cluster.

    \b
    Example:
      smrx settle run --out settled --idle 5
      smrx settle verify --out settled
      smrx settle report --out settled
    """


@settle.command()
@out_option
@click.option(
    "--join",
    is_flag=True,
    help="Where nothing is settled yet, begin now, with the state that a majority of the nodes gives alike, instead of "
    "with event 1.",
)
@click.option(
    "--from-log",
    "log_dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="First settle what the log in this data directory of a stopped node has, once a majority of the nodes attests "
    "its end: for events that no node holds any more.",
)
@follow_options
@click.option(
    "--sink-patience",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds a sink that fails is tried again before the run ends.",
)
@options.config_option
@options.json_option
def run(
    out: str | None,
    join: bool,
    log_dir: Path | None,
    until_sequence: int | None,
    idle: float | None,
    nodes: str | None,
    connect_timeout: float,
    sink_patience: float,
    as_json: bool,
) -> None:
    """Prove that no event is missing, keep the books, and store every trade once.

    Goes on where the last run ended, settles only what a majority of the nodes has published alike, asks again for what
    was lost, and goes on until it is stopped. Where the nodes no longer hold event 1, --join begins with their state as
    it is: the books then say after which event they begin and which nodes attested it. --from-log takes what they no
    longer hold from the journal of one that was stopped. Exit codes: 5 for a gap that no node can fill, 6 for nodes,
    events or a log that contradict each other, 8 for balances that differ, 9 for a sink, 10 for events, an opening
    state or a log without a majority, 3 if no node is heard.

    \b
    Example:
      smrx settle run --out settled --idle 5
    """
    from smrx.client.asker import asker
    from smrx.settlement.follower.alarms import Alarms
    from smrx.settlement.follower.retry_policy import Patience
    from smrx.settlement.follower.runner import Settlement as Running
    from smrx.settlement.follower.settler import Settling
    from smrx.settlement.settlement_metrics import Metrics
    from smrx.sinks import make_sinks

    if join and log_dir is not None:
        raise click.UsageError("--join and --from-log: expected one of them, found both")
    config = placed(options.config(), out)
    compile_books()
    with ExitStack() as stack:
        stop = stack.enter_context(stopping())
        metrics = Metrics(lambda: running.gauges() if running else {})
        running: Running | None = None
        alarms = Alarms(config.cluster, config.settlement.hook, metrics.alarm)
        stack.callback(alarms.close)
        patience = Patience(sink_patience, stop, alarms)
        with told_as_failure():
            sinks = make_sinks(config)
        settling = Settling(config.cluster, config.settlement.directory, sinks, patience.around)
        stack.callback(settling.close)
        with told_as_failure():
            settling.open()
        patience.begun = True
        ask = stack.enter_context(asker(config, _ASK_SECONDS))
        if join and not settling.has_books:
            with told_as_failure():
                _join(config, settling, alarms, node_ids(nodes), ask, connect_timeout, stop)
        if log_dir is not None:
            _fill(config, settling, log_dir, node_ids(nodes), ask, connect_timeout, stop)
        running = _running(config, settling, alarms, node_ids(nodes), ask)
        patience.listener = running
        stack.callback(running.close)
        if config.settlement.metrics_port is not None:
            metrics.serve(config.settlement.metrics_port)
            stack.callback(metrics.close)
        failure = _follow(running, stop, until_sequence, idle, connect_timeout)
        finish(running.summary([sink.name for sink in sinks]), failure, as_json)


def _join(
    config: Config,
    settling: "Settling",
    alarms: "Alarms",
    nodes: list[int] | None,
    ask: "Ask",
    seconds: float,
    stop: Stop,
) -> None:
    """Begin the books with the state of the cluster."""
    from smrx.settlement.follower.image_join import Joining

    settling.check_empty()
    joining = Joining(config, nodes or [node.id for node in config.nodes], ask, alarms)
    settling.join(*joining.take(seconds, stop))
    click.echo(str(settling.origin), err=True)


def _fill(
    config: Config,
    settling: "Settling",
    directory: Path,
    nodes: list[int] | None,
    ask: "Ask",
    seconds: float,
    stop: Stop,
) -> None:
    """Let a node's log make the events after the last one settled again, and settle them."""
    from smrx.node.log_reader import open_log, replay_events
    from smrx.node.replicated_state import Applied
    from smrx.settlement.follower.log_fill import Filling
    from smrx.wire.frames import Claim

    compiling.ready_engine(lambda what: click.echo(what, err=True))
    with open_log(directory.expanduser(), config.cluster) as history, told_as_failure():
        log = f"log of node {history.node_id} in {directory}"
        first, command = settling.ledger.sequence + 1, settling.ledger.command_sequence
        end = history.replay(lambda applied, entry: None).engine
        if end.event_sequence < first:
            click.echo(f"the {log} ends with event {end.event_sequence:,}, which is settled", err=True)
            return
        filling = Filling(config, settling, log)
        by = filling.attest(
            Claim(end.sequence, end.state_hash), nodes or [node.id for node in config.nodes], ask, seconds, stop
        )
        if command:
            filling.begin_after(history.state_after(command).position()[1])

        def take(applied: Applied) -> bool:
            filling.take(applied.events, applied.sequence, applied.state_hash)
            return not stop()

        replay_events(history, first, take)
        filling.finish()
        click.echo(
            f"settled events {first:,} to {settling.ledger.sequence:,} from the {log}, whose end nodes "
            f"{', '.join(map(str, by))} attested",
            err=True,
        )


def _running(config: Config, settling: object, alarms: object, nodes: list[int] | None, ask: object) -> "Running":
    from smrx.settlement.follower.runner import Settlement as Running

    try:
        return Running(config, settling, alarms, node_ids=nodes, ask=ask)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(f"--nodes: {error}") from None


def _follow(
    running: "Running", stop: Stop, until_sequence: int | None, idle: float | None, connect_timeout: float
) -> Exception | None:
    """Run to the end; return what ended it, None if all is well."""
    from smrx.feed.sequencer import FeedError
    from smrx.settlement.settlement_errors import SettlementError

    try:
        with live(running) as on_turn:
            running.run(
                stop=stop,
                until_sequence=until_sequence,
                idle_seconds=idle,
                connect_seconds=connect_timeout,
                on_turn=on_turn,
            )
    except (FeedError, SettlementError, SinkFault) as error:
        return error
    return None


settle.add_command(report)
settle.add_command(verify)
