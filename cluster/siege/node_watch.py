"""Sample the resident memory and the threads of node processes while an attack runs.

Owns a thread. Ends an attack that makes a node take much more memory than any bound allows, before the machine runs
out of it. Reads /proc, so it works on Linux only; elsewhere every sample is 0. Called by siege_run.py.
"""

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

_SAMPLE_SECONDS: Final = 0.05


class Sample(NamedTuple):
    """The resident bytes and the number of threads of a process."""

    resident: int
    threads: int


def sample(pid: int) -> Sample:
    """Return what a process takes now; zeros if it has ended or the system has no /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (OSError, IndexError, ValueError):
        return Sample(0, 0)
    return Sample(pages * os.sysconf("SC_PAGE_SIZE"), threads)


class NodeWatch:
    """The most that each process took since the watch began. A context manager; leaving it ends the thread."""

    def __init__(self, pids: Mapping[int, int], limit_bytes: int, too_much: Callable[[int], None]) -> None:
        """Watch processes, by node id; call `too_much` once, with the node id, when one takes more than the limit."""
        self.before = {node: sample(pid) for node, pid in pids.items()}
        self.most = dict(self.before)
        self._pids = dict(pids)
        self._limit_bytes = limit_bytes
        self._too_much = too_much
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node-watch", daemon=True)

    def __enter__(self) -> "NodeWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        is_reported = False
        while not self._ended.wait(_SAMPLE_SECONDS):
            for node, pid in self._pids.items():
                now, most = sample(pid), self.most[node]
                self.most[node] = Sample(max(now.resident, most.resident), max(now.threads, most.threads))
                if now.resident > self._limit_bytes and not is_reported:
                    is_reported = True
                    self._too_much(node)
