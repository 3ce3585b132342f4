"""`smrx settle`: the verifier outside the cluster. Parses, runs, prints; the work is in smrx/settlement."""

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import click

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

if TYPE_CHECKING:
    from smrx.client.asker import Ask
    from smrx.settlement.alarms import Alarms
    from smrx.settlement.runner import Settlement as Running
    from smrx.settlement.settling import Settling
    from smrx.settlement.sinks.base import Sink

#: How often a pause is interrupted to see whether the run is to end.
_SLICE_SECONDS: Final = 0.05
#: How long a node may take to say its balances.
_ASK_SECONDS: Final = 1.0


@click.group()
def settle() -> None:
    """Verify the event feed and keep the books outside the cluster."""


@settle.command()
@out_option
@click.option(
    "--join",
    is_flag=True,
    help="Where nothing is settled yet, begin now, with the state that a majority of the nodes gives alike, instead of "
    "with event 1.",
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
    it is: the books then say after which event they begin and which nodes attested it. Exit codes: 5 for a gap that no
    node can fill, 6 for nodes or events that contradict each other, 8 for balances that differ, 9 for a sink, 10 for
    events or an opening state without a majority, 3 if no node is heard.

    \b
    Example:
      smrx settle run --out settled --idle 5
    """
    from smrx.client.asker import asker
    from smrx.settlement.alarms import Alarms
    from smrx.settlement.metrics import Metrics
    from smrx.settlement.runner import Settlement as Running
    from smrx.settlement.settling import Settling
    from smrx.settlement.sinks import make_sinks

    config = placed(options.config(), out)
    compile_books()
    with ExitStack() as stack:
        stop = stack.enter_context(stopping())
        metrics = Metrics(lambda: running.gauges() if running else {})
        running: Running | None = None
        alarms = Alarms(config.cluster, config.settlement.hook, metrics.alarm)
        stack.callback(alarms.close)
        patience = _Patience(stop, sink_patience, alarms)
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
        running = _running(config, settling, alarms, node_ids(nodes), ask)
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
    from smrx.settlement.joining import Joining

    settling.check_empty()
    joining = Joining(config, nodes or [node.id for node in config.nodes], ask, alarms)
    settling.join(*joining.take(seconds, stop))
    click.echo(str(settling.origin), err=True)


class _Patience:
    """Makes sinks try again, and says so, until the run is to end or patience has."""

    def __init__(self, stop: Stop, seconds: float, alarms: object) -> None:
        self.begun = False
        self._stop, self._seconds, self._alarms = stop, seconds, alarms
        self._since: float | None = None

    def around(self, sink: "Sink") -> "Sink":
        """The sink, made patient."""
        from smrx.settlement.alarms import AlarmCode, Alarms
        from smrx.settlement.sinks.retrying import Recovery, RetryingSink, Trouble

        alarms = self._alarms
        assert isinstance(alarms, Alarms)

        def trouble(found: Trouble) -> None:
            if self.begun and found.attempt == 1:
                alarms.say(AlarmCode.SINK_FAILED, f"{found.sink}: {found.error}; trying again")

        def recovery(found: Recovery) -> None:
            self._since = None
            alarms.say(AlarmCode.SINK_RECOVERED, f"{found.sink}: works again after {found.seconds:.1f} s")

        return RetryingSink(sink, wait=self._wait, on_trouble=trouble, on_recovery=recovery)

    def _wait(self, seconds: float) -> bool:
        """Pause; True to give up: what cannot be opened at the start is the operator's to see at once."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        until = min(now + seconds, self._since + self._seconds)
        while self.begun and not self._stop() and (now := time.monotonic()) < until:
            time.sleep(min(_SLICE_SECONDS, until - now))
        return not self.begun or self._stop() or now >= self._since + self._seconds


def _running(config: Config, settling: object, alarms: object, nodes: list[int] | None, ask: object) -> "Running":
    from smrx.settlement.runner import Settlement as Running

    try:
        return Running(config, settling, alarms, node_ids=nodes, ask=ask)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(f"--nodes: {error}") from None


def _follow(
    running: "Running", stop: Stop, until_sequence: int | None, idle: float | None, connect_timeout: float
) -> Exception | None:
    """Run to the end; return what ended it, None if all is well."""
    from smrx.feed.sequencer import FeedError
    from smrx.settlement.errors import SettlementError

    try:
        with live(running) as on_turn:
            running.run(
                stop=stop,
                until_sequence=until_sequence,
                idle_seconds=idle,
                connect_seconds=connect_timeout,
                on_turn=on_turn,
            )
    except (FeedError, SettlementError) as error:
        return error
    return None


settle.add_command(report)
settle.add_command(verify)
