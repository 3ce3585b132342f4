"""Run liquibook in C++ without Python: compile a driver (liquibook_driver.cpp) with the user's checkout of the library.

This compares the engine with a compiled book that is called from compiled code. The run is one process that reads the
calls, measures itself and writes its fills.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from smrx.bench.peers.peer_calls import FILL, Calls, PeerUnavailable
from smrx.bench.peers.peer_process import Run

_DRIVER: Final = Path(__file__).with_name("liquibook_driver.cpp")
#: Where book/order_book.h is in the user's folder: a checkout, its src, or the headers of the Python package.
_PLACES: Final = ("src", ".", "include/liquibook")
_TIMEOUT_S: Final = 300


def headers(path: Path) -> Path:
    """Return the include folder of a checkout; raises PeerUnavailable."""
    for place in _PLACES:
        if (path / place / "book" / "order_book.h").is_file():
            return path / place
    raise PeerUnavailable(f"{path} is not a checkout of liquibook: src/book/order_book.h is missing")


def play(path: Path, calls: Calls, filling: int) -> Run:
    """Build the driver and run the calls with it; raises PeerUnavailable."""
    include = headers(path)
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise PeerUnavailable("building the driver needs a C++ compiler (c++, g++ or clang++), and none is installed")
    with tempfile.TemporaryDirectory(prefix="smrx-liquibook-") as folder:
        program = Path(folder, "driver")
        built = subprocess.run(
            [
                compiler,
                "-std=c++17",
                "-O3",
                "-march=native",
                "-w",
                "-I",
                str(include),
                str(_DRIVER),
                "-o",
                str(program),
            ],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if built.returncode != 0:
            raise PeerUnavailable(f"the driver cannot be built on {include}: {built.stderr.strip().splitlines()[0]}")
        words = np.stack([calls[name].astype("<i8") for name in calls.dtype.names or ()], axis=1)
        run = subprocess.run(
            [str(program), str(filling)], input=words.tobytes(), capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    if run.returncode != 0 or len(run.stdout) % 8:
        raise PeerUnavailable(f"the driver ended with exit code {run.returncode} after {len(run.stdout)} bytes")
    nanoseconds = int(np.frombuffer(run.stdout, "<i8", count=1)[0])
    fills = np.frombuffer(run.stdout, FILL, offset=8)
    return Run(_version(include), len(calls) - filling, nanoseconds / 1e9, fills)


def _version(include: Path) -> str:
    """Return the version in version.h."""
    try:
        text = (include / "book" / "version.h").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    words = [word.rstrip(";") for word in text.split()]
    numbers = [words[at + 2] for at, word in enumerate(words[:-2]) if word in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(numbers) or "unknown"
