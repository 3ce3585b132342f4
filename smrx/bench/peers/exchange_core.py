"""exchange-core in Java: its direct order book, one thread, without its risk engine (drivers/exchange_core)."""

import subprocess
from typing import Final

import numpy as np

from smrx.bench.peers import driver_build
from smrx.bench.peers.driver_build import Say
from smrx.bench.peers.peer_calls import FILL, Calls, PeerUnavailable
from smrx.bench.peers.peer_process import Run

DRIVER: Final = "exchange_core"
MAIN_CLASS: Final = "BookDriver"
VERSION: Final = "0.5.3"
#: The last round is measured; the compiler of the virtual machine has seen the calls before.
_ROUNDS: Final = 20
_TIMEOUT_S: Final = 300


def play(calls: Calls, filling: int, say: Say) -> Run:
    """Run the calls with the driver; raises PeerUnavailable."""
    java = driver_build.java_command(DRIVER, MAIN_CLASS, say)
    words = np.stack([calls[name].astype("<i8") for name in calls.dtype.names or ()], axis=1)
    try:
        run = subprocess.run(
            [*java, str(filling), str(_ROUNDS)],
            input=words.tobytes(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PeerUnavailable(f"its driver did not end within {_TIMEOUT_S} s and was killed") from None
    if run.returncode or len(run.stdout) < 8 or len(run.stdout) % 8:
        lines = run.stderr.decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "no error output"
        raise PeerUnavailable(f"its driver ended with exit code {run.returncode}: {last}")
    nanoseconds = int(np.frombuffer(run.stdout, "<i8", count=1)[0])
    fills = np.frombuffer(run.stdout, FILL, offset=8)
    return Run(VERSION, len(calls) - filling, nanoseconds / 1e9, fills)
