"""Run a peer in its own process, where it may hang or crash without harm and no other code shares the interpreter.

The parent starts `python -m smrx.bench.peers.peer_process MODULE FILLING LIMIT` with the calls as bytes on standard
input. The child answers with one line of JSON and the fills as bytes.
"""

import gc
import subprocess
import sys
import time
from importlib import import_module
from typing import Final

import msgspec
import numpy as np

from smrx.bench.peers.peer_calls import CALL, FILL, Calls, Fills, Peer, PeerUnavailable

#: Calls between two checks of the time limit.
_CHUNK: Final = 500
#: Time for what is not measured: imports, converting the calls, filling the book, reading the fills.
_OVERHEAD_S: Final = 30.0


class Run(msgspec.Struct, frozen=True):
    """The result of one run: the number of measured calls, their seconds, and all fills."""

    version: str
    done: int
    seconds: float
    fills: Fills


class _Header(msgspec.Struct):
    """The line before the fills; with `unavailable`, the reason why there are none."""

    version: str = ""
    done: int = 0
    seconds: float = 0.0
    unavailable: str | None = None


def play(peer: Peer, count: int, filling: int, limit_s: float) -> Run:
    """Make the first `filling` calls, then measure until all `count` calls are made or the limit is reached."""
    peer.play(0, filling)
    # Keeps the prepared calls out of the peer's garbage collections.
    gc.collect()
    gc.freeze()
    done = filling
    seconds = 0.0
    begin = time.perf_counter()
    while done < count and seconds < limit_s:
        last = min(done + _CHUNK, count)
        peer.play(done, last)
        done = last
        seconds = time.perf_counter() - begin
    gc.unfreeze()
    return Run(peer.version, done - filling, seconds, peer.fills())


def play_in_process(module: str, calls: Calls, filling: int, limit_s: float, overhead_s: float = _OVERHEAD_S) -> Run:
    """Run the peer of an adapter module in a new process; raises PeerUnavailable if it fails."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", __name__, module, str(filling), str(limit_s)],
            input=calls.tobytes(),
            capture_output=True,
            timeout=limit_s + overhead_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PeerUnavailable(f"it did not end within {limit_s + overhead_s:.0f} s and was killed") from None
    line, _, fills = child.stdout.partition(b"\n")
    if child.returncode != 0 or not line:
        errors = child.stderr.decode(errors="replace").strip().splitlines()
        last = errors[-1] if errors else "no error output"
        raise PeerUnavailable(f"its process ended with exit code {child.returncode}: {last}")
    header = msgspec.json.decode(line, type=_Header)
    if header.unavailable is not None:
        raise PeerUnavailable(header.unavailable)
    return Run(header.version, header.done, header.seconds, np.frombuffer(fills, FILL))


def main(module: str, filling: str, limit_s: str) -> None:
    """Run in the child process."""
    calls = np.frombuffer(sys.stdin.buffer.read(), CALL)
    # Peers may print; the parent reads only the answer.
    answer, sys.stdout = sys.stdout, sys.stderr
    try:
        run = play(import_module(module).Peer(calls), len(calls), int(filling), float(limit_s))
    except PeerUnavailable as error:
        answer.buffer.write(msgspec.json.encode(_Header(unavailable=str(error))) + b"\n")
    except Exception as error:  # noqa: BLE001  # Foreign packages raise anything.
        reason = f"it failed on this tape: {type(error).__name__}: {error}"
        answer.buffer.write(msgspec.json.encode(_Header(unavailable=reason)) + b"\n")
    else:
        answer.buffer.write(msgspec.json.encode(_Header(run.version, run.done, run.seconds)) + b"\n")
        answer.buffer.write(run.fills.tobytes())
    answer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
