"""Build the programs that run peers in Go and Java, once, and keep them in the user's cache.

Sources are in drivers/NAME, with pinned versions of the peer. What is built lies in a folder that is named after the
digest of its sources, in SMRX_CACHE_DIR or the cache of the user. What lies there is executed, so a folder that another
user could write is refused. Downloads nothing itself: go and mvn do, from where they are configured to. Called by the
adapters of these peers.
"""

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from smrx import compile_cache
from smrx.bench.peers.peer_calls import PeerUnavailable

_SOURCES: Final = Path(__file__).with_name("drivers")
#: A first build downloads modules and compiles them.
_BUILD_S: Final = 1200
#: The program in the folder of a Go driver; the folders of a Java driver.
PROGRAM: Final = "driver"
_LIBRARIES: Final = "lib"
_CLASSES: Final = "classes"
#: What Aeron and exchange-core reach into on Java 17.
_OPENED: Final = ("sun.nio.ch", "java.lang", "java.lang.reflect", "java.util", "java.nio", "jdk.internal.misc")
_EXPORTED: Final = ("java.base/sun.nio.ch", "java.base/jdk.internal.ref", "jdk.unsupported/sun.misc")

#: Reports a line of progress.
Say = Callable[[str], None]


def sources(name: str) -> Path:
    """Return the folder of a driver's sources."""
    return _SOURCES / name


def built_folder(name: str) -> Path:
    """Return where a driver is or will be; raises PeerUnavailable if there is no such place."""
    digest = hashlib.sha256()
    for path in sorted(sources(name).iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    named = os.environ.get(compile_cache.VARIABLE)
    base = Path(named).expanduser() if named else compile_cache.user_cache()
    if base is None:
        raise PeerUnavailable(f"there is no home directory; set {compile_cache.VARIABLE} to a folder for the driver")
    return base / "drivers" / f"{name}-{digest.hexdigest()[:16]}"


def go_program(name: str, say: Say) -> Path:
    """Return the program of a Go driver, after building it if necessary; raises PeerUnavailable."""

    def build(folder: Path) -> None:
        _run([_tool("go"), "build", "-trimpath", "-o", PROGRAM, "."], folder)

    return _built(name, build, say, "go") / PROGRAM


def java_command(name: str, main_class: str, say: Say) -> list[str]:
    """Return the command that runs a Java driver, after building it if necessary; raises PeerUnavailable."""

    def build(folder: Path) -> None:
        copy = ("dependency:copy-dependencies", f"-DoutputDirectory={_LIBRARIES}", "-DincludeScope=runtime")
        _run([_tool("mvn"), "-q", "-B", *copy], folder)
        path = f"{_LIBRARIES}/*"
        _run([_tool("javac"), "-nowarn", "-cp", path, "-d", _CLASSES, f"{main_class}.java"], folder)

    folder = _built(name, build, say, "java", "javac", "mvn")
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
    exported = [f"--add-exports={package}=ALL-UNNAMED" for package in _EXPORTED]
    path = f"{folder / _LIBRARIES}/*:{folder / _CLASSES}"
    return [_tool("java"), *opened, *exported, "-cp", path, main_class]


def _built(name: str, build: Callable[[Path], None], say: Say, *tools: str) -> Path:
    for tool in tools:
        _tool(tool)
    folder = built_folder(name)
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(folder.parent)
        if folder.is_dir():
            return folder
        say(f"building the driver of {name} in {folder} (once; the first build downloads and may take minutes)")
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=folder.parent) as scratch:
            work = Path(scratch, "work")
            shutil.copytree(sources(name), work)
            build(work)
            work.replace(folder)
    except OSError as error:
        if not folder.is_dir():  # another process may have built it meanwhile
            raise PeerUnavailable(f"{folder.parent} cannot be used for the driver: {error.strerror}") from None
    return folder


def _check_private(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PeerUnavailable(f"{folder} belongs to another user, or others can write it; programs in it are not run")


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise PeerUnavailable(f"{name} is not installed; its driver needs it")
    return found


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_BUILD_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise PeerUnavailable(f"{Path(command[0]).name} did not end within {_BUILD_S} s and was killed") from None
    if done.returncode:
        lines = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines()
        raise PeerUnavailable(
            f"its driver cannot be built: {Path(command[0]).name} ended with exit code {done.returncode}: "
            + (lines[-1] if lines else "no output")
        )
