"""A client that sends a tape in a thread of its own and keeps its own record of what it was told."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cluster.record import ClientRecord
from smrx.client import Client
from smrx.config import Config

Records = NDArray[np.void]


class Flow:
    """Sends commands of the venue's session in order; start() it, then wait_for() a part or finish() all.

    `rate` may be set at any time: commands a second, or None for as fast as they are answered.
    """

    def __init__(self, config: Config, commands: Records, *, rate: float | None = None, chunk: int = 4096) -> None:
        self.record = ClientRecord()
        self.commands = commands
        self.rate = rate
        #: The longest time between two answers.
        self.longest_silence = 0.0
        self._config = config
        self._chunk = chunk
        self._changed = threading.Condition()
        self._stop_asked = False
        self._run: Future[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        pool = ThreadPoolExecutor(1, "flow")
        self._run = pool.submit(self._send)
        self._run.add_done_callback(lambda _: self._tell())
        pool.shutdown(wait=False)

    def stop(self) -> None:
        """Send nothing beyond what is under way."""
        self._stop_asked = True

    def end(self, timeout: float = 2.0) -> None:
        """Stop, and wait a little for what is under way: while the nodes still live it is answered soon."""
        self.stop()
        with self._changed:
            self._changed.wait_for(lambda: self._run is None or self.done, timeout)

    @property
    def acknowledged(self) -> int:
        """Commands answered so far."""
        return len(self.record)

    @property
    def done(self) -> bool:
        """Whether nothing more will be sent: all is answered, it was stopped, or the client failed."""
        return self._run is not None and self._run.done()

    def wait_for(self, acknowledged: int, timeout: float) -> None:
        """Return once so many commands are answered; raises the client's failure, or TimeoutError."""
        with self._changed:
            self._changed.wait_for(lambda: self.acknowledged >= acknowledged or self.done, timeout)
        if self.done and self._run is not None:
            self._run.result()
        if self.acknowledged < acknowledged:
            raise TimeoutError(f"expected {acknowledged} answers within {timeout:g} s, found {self.acknowledged}")

    def finish(self, timeout: float) -> ClientRecord:
        """Wait until everything is answered and return the record; raises as wait_for()."""
        self.wait_for(len(self.commands), timeout)
        return self.record

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _send(self) -> None:
        with Client(self._config, account=0) as client:
            self._send_all(client)

    def _send_all(self, client: Client) -> None:
        start = 0
        due = answered = time.monotonic()
        while start < len(self.commands) and not self._stop_asked:
            rate = self.rate
            # Paced in steps of a fiftieth of a second, so that a batch is what a busy client would send at once.
            count = self._chunk if rate is None else max(1, min(self._chunk, int(rate / 50)))
            part = self.commands[start : start + count]
            outcomes = client.submit(part)
            now = time.monotonic()
            # From answer to answer: a flow that is not paced waits for nothing else.
            self.longest_silence = max(self.longest_silence, now - answered)
            answered = now
            self.record.add(part, outcomes)
            self._tell()
            start += len(part)
            if rate is not None:
                due = max(due + len(part) / rate, now - 0.1)
                time.sleep(max(0.0, due - now))
