"""A peer in a process of its own: it may hang or crash there without harm, and has the interpreter for itself.

The parent starts `python -m smrx.bench.peers.peer_process NAME FILLING LIMIT` with the calls as bytes on standard
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

from smrx.bench.peers.calls import CALL, FILL, Absent, Calls, Fills, Peer

#: Calls between two looks at the clock.
_CHUNK: Final = 500
#: For what is not measured: imports, converting the calls, filling the book, reading the fills out.
_AROUND_S: Final = 30.0


class Run(msgspec.Struct, frozen=True):
    """What one run gave: measured calls, their seconds, all fills from the beginning."""

    version: str
    done: int
    seconds: float
    fills: Fills


class _Header(msgspec.Struct):
    """The line before the fills."""

    version: str = ""
    done: int = 0
    seconds: float = 0.0
    absent: str | None = None


def play(peer: Peer, count: int, filling: int, limit_s: float) -> Run:
    """Fill the book, then measure until all `count` calls are done, or the limit is reached."""
    peer.play(0, filling)
    # What was prepared is not the peer's garbage to look through.
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


def apart(module: str, calls: Calls, filling: int, limit_s: float, around_s: float = _AROUND_S) -> Run:
    """Let the peer of an adapter module play in a new process. Raises Absent, with what became of it."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", __name__, module, str(filling), str(limit_s)],
            input=calls.tobytes(),
            capture_output=True,
            timeout=limit_s + around_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"it did not come back within {limit_s + around_s:.0f} s, and was stopped") from None
    line, _, fills = child.stdout.partition(b"\n")
    if child.returncode != 0 or not line:
        said = child.stderr.decode(errors="replace").strip().splitlines()
        raise Absent(f"its process ended with {child.returncode}: {said[-1] if said else 'without a word'}")
    header = msgspec.json.decode(line, type=_Header)
    if header.absent is not None:
        raise Absent(header.absent)
    return Run(header.version, header.done, header.seconds, np.frombuffer(fills, FILL))


def main(module: str, filling: str, limit_s: str) -> None:
    """The child."""
    calls = np.frombuffer(sys.stdin.buffer.read(), CALL)
    # Whatever a peer prints is not for the parent.
    answer, sys.stdout = sys.stdout, sys.stderr
    try:
        run = play(import_module(module).Peer(calls), len(calls), int(filling), float(limit_s))
    except Absent as error:
        answer.buffer.write(msgspec.json.encode(_Header(absent=str(error))) + b"\n")
    except Exception as error:  # noqa: BLE001  # whatever a foreign package raises while it runs
        reason = f"it failed on this tape: {type(error).__name__}: {error}"
        answer.buffer.write(msgspec.json.encode(_Header(absent=reason)) + b"\n")
    else:
        answer.buffer.write(msgspec.json.encode(_Header(run.version, run.done, run.seconds)) + b"\n")
        answer.buffer.write(run.fills.tobytes())
    answer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
