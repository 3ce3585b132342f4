"""Choose the directory that keeps compiled code, so that one machine compiles once and not once for each process.

Numba keeps machine code beside the sources, or in the home of the user, if it may write there. A service user often may
not. Then the code is kept in SMRX_CACHE_DIR or beside the data of the node. Code that was compiled at installation, by
`smrx compile`, into a directory that this user can only read is copied to one that it can write, because Numba uses no
other. What is read there is executed: a directory that other users can write is refused. Called by compiling.py before
the engine is imported.
"""

import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

#: The environment variable that names the directory, and the one that Numba reads.
VARIABLE: Final = "SMRX_CACHE_DIR"
_NUMBA: Final = "NUMBA_CACHE_DIR"
#: The directory beside the data of nodes.
FOLDER: Final = "compiled"
_LOCK: Final = "smrx-compile.lock"
#: The modules with compiled entry points, below this package.
_SOURCES: Final = ("engine/kernels/compiled.py", "node/compiled_entry.py", "settlement/books/compiled_books.py")
_SUFFIXES: Final = (".nbi", ".nbc")


class CacheError(Exception):
    """The directory for compiled code cannot be used; the message is for the operator."""


def choose(data_dir: Path | None = None) -> Path | None:
    """Set the directory for compiled code in this process and its children; return it, None if there is none.

    The first of these: SMRX_CACHE_DIR; beside the sources; the cache of the user; `data_dir`/compiled. Has no effect
    once the engine is imported. Raises CacheError for a directory that is named and cannot be used.
    """
    named = os.environ.get(VARIABLE)
    if named is None and os.environ.get(_NUMBA):
        # Set by a parent process that chose it, or by the user.
        given = Path(os.environ[_NUMBA])
        _check_trusted(given, _NUMBA)
        return given
    beside_sources = _package() / Path(_SOURCES[0]).parent / "__pycache__"
    if named is None and is_writable(beside_sources):
        return beside_sources
    own = None if named is None else Path(named).expanduser()
    candidates = [own, user_cache(), None if data_dir is None else data_dir / FOLDER]
    chosen: Path | None = None
    refused: CacheError | None = None
    for path in candidates:
        if path is not None and is_writable(path):
            try:
                _check_trusted(path, VARIABLE if path == own else None)
            except CacheError as error:
                if path == own:
                    raise
                refused = error
                continue
            chosen = path
            break
    if chosen is None:
        if own is not None:
            raise CacheError(f"{VARIABLE}: {own} cannot be written, and no other directory for compiled code either")
        if refused is not None:
            raise refused
        return None
    if own is None:
        _copy_from_sources(chosen)
    elif own != chosen and own.is_dir():
        _copy_directory(own, chosen)
    os.environ[_NUMBA] = str(chosen)
    _tell_numba(chosen)
    return chosen


def places(data_dir: Path | None = None) -> str:
    """Return where compiled code is looked for, for people."""
    named = os.environ.get(VARIABLE)
    home = user_cache()
    found = [
        f"{VARIABLE} ({named or 'not set'})",
        str(_package() / Path(_SOURCES[0]).parent / "__pycache__"),
        str(home) if home is not None else "a home directory (there is none)",
        *([] if data_dir is None else [str(data_dir / FOLDER)]),
    ]
    return ", ".join(found)


@contextmanager
def only_compiler(directory: Path | None, waiting: Callable[[], None]) -> Iterator[int | None]:
    """Hold the right to compile into a directory; call `waiting` if another process has it, and wait for that one.

    Yields the descriptor of the lock, None without one. A process that inherits it holds the right until it ends, also
    if this one ends first.
    """
    descriptor = None
    if directory is not None:
        with suppress(OSError):
            descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if descriptor is None:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def is_writable(path: Path) -> bool:
    """Return whether files can be created in a directory, after creating it if necessary."""
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _package() -> Path:
    return Path(__file__).resolve().parent


def user_cache() -> Path | None:
    """Return the cache of this user, None without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "smrx"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ".cache" / "smrx" if home.is_absolute() and os.path.isdir(home) else None


def _check_trusted(path: Path, variable: str | None) -> None:
    """Raise CacheError if another user can change what is read from a directory; `variable` named it, if any did.

    Nor may another user put a directory of its own in its place: that needs write access to a directory above it. In
    one with the sticky bit, such as /tmp, only an owner renames what is there.
    """
    place = path.resolve()
    inside = (place, *place.rglob("*")) if place.exists() else ()
    above = [parent for parent in place.parents if not parent.stat().st_mode & stat.S_ISVTX] if inside else []
    for found in (*inside, *above):
        status = found.lstat()
        is_own = status.st_uid in (0, os.geteuid())
        if not is_own or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            source = f"{variable}: " if variable is not None else ""
            raise CacheError(
                f"{source}{found}: other users can write to it, and compiled code from {path} would be executed; "
                f"remove it, or set {VARIABLE} to a directory of this user or of root"
            )


@contextmanager
def writable_by_owner_only() -> Iterator[None]:
    """Let what this process and its children write meanwhile be writable by this user only, whatever the umask."""
    before = os.umask(0o022)
    os.umask(before | 0o022)
    try:
        yield
    finally:
        os.umask(before)


def _copy_directory(source: Path, target: Path) -> None:
    _check_trusted(source, VARIABLE)
    for path in source.rglob("*"):
        if path.suffix in _SUFFIXES:
            _copy(path, target / path.relative_to(source))


def _copy_from_sources(target: Path) -> None:
    """Copy what was compiled beside the sources, by another user, to where Numba looks for it."""
    from numba.core.caching import _CacheLocator

    subpath: Callable[[str], str] = _CacheLocator.get_suitable_cache_subpath

    for source in _SOURCES:
        file = _package() / source
        folder = target / subpath(str(file))
        for path in sorted((file.parent / "__pycache__").glob(f"{file.stem}.*")):
            if path.suffix in _SUFFIXES and path.stat().st_uid in (0, os.geteuid()):
                _copy(path, folder / path.name)


def _copy(source: Path, target: Path) -> None:
    """Copy one file, as a whole, unless an equal or newer one is there."""
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy2(source, temporary)
    temporary.replace(target)


def _tell_numba(directory: Path) -> None:
    """Set the directory in a Numba that was imported before the environment was changed."""
    numba = sys.modules.get("numba")
    if numba is not None:
        numba.config.CACHE_DIR = str(directory)
