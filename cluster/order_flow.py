"""Send a tape from a thread of its own and keep a record of the outcomes."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cluster.client_record import ClientRecord
from smrx.client import Client
from smrx.client.session import DEFAULT_FRAME_COMMANDS
from smrx.config import Config
from smrx.wire.command_list import CommandList

Records = NDArray[np.void]

#: A whole cluster may be restarted between two answers, on a machine whose cores are busy.
_CLIENT_TIMEOUT_S: Final = 60.0


class OrderFlow:
    """Sends commands in order in one session of the venue; start() it, then wait_for() a part or finish() all.

    `rate` may be set at any time: commands a second, or None to send each batch once the last one is answered.
    """

    def __init__(self, config: Config, flow: CommandList, *, rate: float | None = None, chunk: int = 4096) -> None:
        self.record = ClientRecord()
        self.commands, self._details = flow
        self.rate = rate
        #: The longest time between two batches of outcomes.
        self.longest_gap_s = 0.0
        self._config = config
        self._chunk = chunk
        self._changed = threading.Condition()
        self._stop_asked = False
        self._run: Future[None] | None = None

    def start(self) -> None:
        """Start to send."""
        pool = ThreadPoolExecutor(1, "order-flow")
        self._run = pool.submit(self._send)
        self._run.add_done_callback(lambda _: self._notify())
        pool.shutdown(wait=False)

    def stop(self) -> None:
        """Send no further batch."""
        self._stop_asked = True

    def end(self, timeout: float = 2.0) -> None:
        """Stop, and wait up to `timeout` seconds for the last batch; call it while the nodes are running."""
        self.stop()
        with self._changed:
            self._changed.wait_for(lambda: self._run is None or self.done, timeout)

    @property
    def acknowledged(self) -> int:
        """The number of commands answered so far."""
        return len(self.record)

    @property
    def done(self) -> bool:
        """Whether nothing more will be sent: everything is answered, stop() was called, or the client failed."""
        return self._run is not None and self._run.done()

    def wait_for(self, acknowledged: int, timeout: float) -> None:
        """Wait until this many commands are answered; raises the client's error, or TimeoutError."""
        with self._changed:
            self._changed.wait_for(lambda: self.acknowledged >= acknowledged or self.done, timeout)
        if self.done and self._run is not None:
            self._run.result()
        if self.acknowledged < acknowledged:
            raise TimeoutError(f"{self.acknowledged} of {acknowledged} commands were answered within {timeout:g} s")

    def finish(self, timeout: float) -> ClientRecord:
        """Wait until every command is answered and return the record; raises as wait_for() does."""
        self.wait_for(len(self.commands), timeout)
        return self.record

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _send(self) -> None:
        with Client(
            self._config, account=0, timeout=_CLIENT_TIMEOUT_S, window=max(2 * self._chunk, DEFAULT_FRAME_COMMANDS)
        ) as client:
            self._send_all(client)

    def _send_all(self, client: Client) -> None:
        start = 0
        due = answered = time.monotonic()
        while start < len(self.commands) and not self._stop_asked:
            rate = self.rate
            # At a given rate, send 50 batches a second: a batch is then about what a busy client sends at once.
            count = self._chunk if rate is None else max(1, min(self._chunk, int(rate / 50)))
            part = self.commands[start : start + count]
            outcomes = client.submit(part, self._details)
            now = time.monotonic()
            # From outcomes to outcomes: without a rate, the flow waits for nothing else.
            self.longest_gap_s = max(self.longest_gap_s, now - answered)
            answered = now
            self.record.add(CommandList(part, self._details), outcomes)
            self._notify()
            start += len(part)
            if rate is not None:
                due = max(due + len(part) / rate, now - 0.1)
                time.sleep(max(0.0, due - now))
