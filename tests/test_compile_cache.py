"""Where compiled code is kept: a directory of this user, a copy of one that it can only read, never one of others."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from smrx import compile_cache, compiling
from smrx.compile_cache import CacheError


@pytest.fixture(autouse=True)
def without_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service user: no home, the sources belong to root. Paths below `locked` cannot be written."""
    for name in (compile_cache.VARIABLE, "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        # Set first, so that what a test sets is removed after it: later tests would compile into its directory.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    is_writable = compile_cache.is_writable
    package = Path(compile_cache.__file__).parent

    def only_some(path: Path) -> bool:
        return package not in path.parents and "locked" not in path.parts and is_writable(path)

    monkeypatch.setattr(compile_cache, "is_writable", only_some)
    # The choice must not reach the engine of the test process.
    monkeypatch.setattr(compile_cache, "_tell_numba", lambda directory: None)


def put(directory: Path, name: str = "kernels_1/compiled.apply_at-1.py311.nbi", content: bytes = b"code") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_without_any_place_nothing_is_kept_and_the_places_are_named(tmp_path: Path) -> None:
    assert compile_cache.choose() is None
    assert compile_cache.choose(tmp_path / "locked") is None
    text = compile_cache.places(tmp_path / "locked")
    assert text.startswith("SMRX_CACHE_DIR (not set), ")
    assert text.endswith(f"a home directory (there is none), {tmp_path / 'locked' / 'compiled'}")


def test_code_is_kept_beside_the_data_and_what_was_compiled_at_installation_is_copied(tmp_path: Path) -> None:
    source = Path(compile_cache.__file__).parent / "engine/kernels/__pycache__"
    compiled = {path.name for path in source.glob("compiled.*") if path.suffix in (".nbi", ".nbc")}
    chosen = compile_cache.choose(tmp_path / "data")
    assert chosen == tmp_path / "data" / "compiled"
    assert os.environ["NUMBA_CACHE_DIR"] == str(chosen)
    assert {path.name for path in chosen.glob("kernels_*/*")} == compiled
    # A child of this process uses the same.
    assert compile_cache.choose(tmp_path / "elsewhere") == chosen


def test_directory_that_is_named_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "named"))
    assert compile_cache.choose(tmp_path / "data") == tmp_path / "named"
    assert not (tmp_path / "data").exists()


def test_directory_that_can_only_be_read_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked"
    put(locked)
    put(locked, "notes.txt")
    monkeypatch.setenv(compile_cache.VARIABLE, str(locked))
    chosen = compile_cache.choose(tmp_path / "data")
    assert chosen == tmp_path / "data" / "compiled"
    assert [path.name for path in chosen.rglob("*") if path.is_file()] == ["compiled.apply_at-1.py311.nbi"]
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    with pytest.raises(CacheError, match="cannot be written, and no other directory"):
        compile_cache.choose()


@pytest.mark.parametrize("mode", [0o666, 0o664])
def test_directory_that_other_users_can_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    named = tmp_path / "named"
    put(named).chmod(mode)
    monkeypatch.setenv(compile_cache.VARIABLE, str(named))
    with pytest.raises(CacheError, match=r"apply_at.*: other users can write to it"):
        compile_cache.choose()


def test_directory_in_a_place_where_other_users_can_put_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    put(shared / "named")
    for mode, is_refused in ((0o777, True), (0o775, True), (0o1777, False), (0o755, False)):
        monkeypatch.setenv(compile_cache.VARIABLE, str(shared / "named"))
        monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
        shared.chmod(mode)
        if is_refused:
            with pytest.raises(CacheError, match=r"SMRX_CACHE_DIR: .*shared: other users can write to it"):
                compile_cache.choose()
        else:
            assert compile_cache.choose() == shared / "named"


def test_directory_that_numba_is_told_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "given").chmod(0o666)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "given"))
    with pytest.raises(CacheError, match=r"NUMBA_CACHE_DIR: .*other users can write to it"):
        compile_cache.choose()


def test_next_directory_is_taken_if_others_can_write_one_that_nobody_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    put(tmp_path / "cache" / "smrx").chmod(0o666)
    with pytest.raises(CacheError, match="other users can write to it"):
        compile_cache.choose()
    assert compile_cache.choose(tmp_path / "data") == tmp_path / "data" / "compiled"


def test_what_is_compiled_is_trusted_again_under_a_umask_for_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with umask 002, the default of users with a group of their own."""
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "named"))
    before = os.umask(0o002)
    try:
        with compile_cache.writable_by_owner_only():
            put(tmp_path / "named")
        assert compile_cache.choose() == tmp_path / "named"
        put(tmp_path / "named", "kernels_1/compiled.other.nbi")
        monkeypatch.delenv("NUMBA_CACHE_DIR")
        with pytest.raises(CacheError, match="other"):
            compile_cache.choose()
    finally:
        os.umask(before)


def test_one_process_compiles_and_the_others_wait(tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from smrx import compile_cache
with compile_cache.only_compiler(Path({str(tmp_path)!r}), lambda: None):
    print("holds", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"holds\n"
        waited: list[float] = []
        entered = threading.Event()

        def compile_here() -> None:
            with compile_cache.only_compiler(tmp_path, lambda: waited.append(time.monotonic())):
                entered.set()

        thread = threading.Thread(target=compile_here)
        thread.start()
        deadline = time.monotonic() + 30
        while not waited:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert not entered.is_set()
        other.stdin.close()
        assert entered.wait(30)
        thread.join()


def test_compilation_of_a_killed_process_goes_on_alone(tmp_path: Path) -> None:
    started, code = tmp_path / "started", "import sys; open(sys.argv[1], 'w').close(); sys.stdin.read()"
    program = f"""
import sys
from pathlib import Path
from smrx import compile_cache, compiling
compiling._COMPILE = {code!r}
sys.path.insert(0, {str(started)!r})
with compile_cache.only_compiler(Path({str(tmp_path)!r}), lambda: None) as lock:
    compiling._compile_in_subprocess(lock)
"""
    waited, entered = threading.Event(), threading.Event()

    def compile_here() -> None:
        with compile_cache.only_compiler(tmp_path, waited.set):
            entered.set()

    thread = threading.Thread(target=compile_here)
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as killed:
        assert killed.stdin is not None
        deadline = time.monotonic() + 30
        while not started.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        killed.kill()
        killed.wait()
        thread.start()
        assert waited.wait(30)
        assert not entered.is_set()
        killed.stdin.close()  # The compilation ends.
        assert entered.wait(30)
        thread.join()


def test_process_that_waited_does_not_compile_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([False, True])
    reports: list[str] = []
    monkeypatch.setattr(compiling, "_compiled_before", lambda: next(found))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a subprocess was started"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert compiling.compile_engine(reports.append) == tmp_path
    assert reports == []
