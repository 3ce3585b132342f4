"""Start, find and stop nodes as background processes of this machine. Called by `smrx cluster up` and `down`.

`smrx cluster up` exits while its nodes run. A file beside the data of each node holds its process id, and an identity
that tells this process from a later one with the same id. No other process is ever signalled.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from smrx.config import Config, ConfigError

_STOP_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.02


class ProcessFile(msgspec.Struct, frozen=True):
    """The content of the process file of a started node."""

    pid: int
    identity: str
    cluster: str
    node_id: int


def log_path(config: Config, node_id: int) -> Path:
    """Return the path of the file that takes the output of a node."""
    return config.node_dir(node_id).with_suffix(".log")


def pid_file_path(config: Config, node_id: int) -> Path:
    """Return the path of the process file of a node."""
    return config.node_dir(node_id).with_suffix(".pid")


def process_identity(pid: int) -> str | None:
    """Return a text that no other process with this id has, now or later; None if there is no process, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return None if fields[0] == "Z" else f"{boot}/{fields[19]}"
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    # No /proc: macOS and the BSDs.
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = shown.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def running_process(config: Config, node_id: int) -> ProcessFile | None:
    """Return the process that start_node() started, or None if it is not running; raises ConfigError."""
    path = pid_file_path(config, node_id)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=ProcessFile)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise ConfigError(
            f"{path}: the process file of the node is unreadable ({error}); stop the node, then remove the file"
        ) from None
    if (found.cluster, found.node_id) != (config.cluster, node_id):
        raise ConfigError(
            f"{path}: the data_dir belongs to node {found.node_id} of cluster {found.cluster!r}, not to node "
            f"{node_id} of cluster {config.cluster!r}; each cluster needs its own data_dir"
        )
    return found if process_identity(found.pid) == found.identity else None


def start_node(config: Config, config_path: str | None, node_id: int) -> ProcessFile:
    """Start one node in the background and write its process file."""
    log = log_path(config, node_id)
    log.parent.mkdir(parents=True, exist_ok=True)
    config_option = [] if config_path is None else ["--config", str(Path(config_path).resolve())]
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "smrx", *config_option, "node", "--id", str(node_id)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process_file = ProcessFile(process.pid, process_identity(process.pid) or "", config.cluster, node_id)
    pid_file_path(config, node_id).write_bytes(msgspec.json.encode(process_file))
    # Until this process exits the node is its child, and only poll() reaps it if it fails.
    _started[process.pid] = process
    return process_file


_started: dict[int, "subprocess.Popen[bytes]"] = {}


def exit_code(process: ProcessFile) -> int | None:
    """Return the exit code of a node that this process started, or None while it runs."""
    return _started[process.pid].poll()


def stop_nodes(config: Config, node_ids: Iterable[int]) -> list[int]:
    """Stop the nodes with SIGTERM, after ten seconds with SIGKILL; return the ids of those that were running."""
    found = {node_id: process for node_id in node_ids if (process := running_process(config, node_id)) is not None}
    for process in found.values():
        _signal(process, signal.SIGCONT)  # A stopped process does not handle SIGTERM.
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_SECONDS
    for node_id, process in found.items():
        while process_identity(process.pid) == process.identity:
            if process.pid in _started:
                _started[process.pid].poll()
            if time.monotonic() > deadline:
                _signal(process, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
        pid_file_path(config, node_id).unlink(missing_ok=True)
    return list(found)


def remove_node_data(config: Config) -> None:
    """Remove the data of all nodes, including term and vote. None of them may be running.

    Keys stay: they identify a node and do not depend on its state.
    """
    for node in config.nodes:
        directory = config.node_dir(node.id)
        secret = config.secret_key_path(node.id).name
        for path in directory.iterdir() if directory.exists() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif not path.name.startswith(secret):
                path.unlink()


def log_tail(config: Config, node_id: int, lines: int = 3) -> str:
    """Return the last lines of the log of a node, or an empty text."""
    try:
        text = log_path(config, node_id).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _signal(process: ProcessFile, number: signal.Signals) -> None:
    # Check right before each signal: another process may have this id by now.
    if process_identity(process.pid) == process.identity:
        os.kill(process.pid, number)
