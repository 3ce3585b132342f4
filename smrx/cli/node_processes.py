"""Nodes of this machine as detached processes: started, found again and stopped, each by its own process id.

`smrx cluster up` leaves them running, so what is needed to stop them stands in a file beside their data: the process
id, and what tells this process from a later one with the same number.
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

_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.02


class ProcessFile(msgspec.Struct, frozen=True):
    """What is remembered of a started node."""

    pid: int
    identity: str
    cluster: str
    node_id: int


def log_path(config: Config, node_id: int) -> Path:
    """Where a detached node's output goes."""
    return config.node_dir(node_id).with_suffix(".log")


def pid_file_path(config: Config, node_id: int) -> Path:
    """Where a detached node is remembered."""
    return config.node_dir(node_id).with_suffix(".pid")


def process_identity(pid: int) -> str | None:
    """What no other process with this id has, now or later; None if there is no such process (or it is a zombie)."""
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
    """The node's process, if it was started by start_node() and still lives."""
    path = pid_file_path(config, node_id)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=ProcessFile)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise ConfigError(f"{path}: expected the process file of a node, found: {error}") from None
    if (found.cluster, found.node_id) != (config.cluster, node_id):
        raise ConfigError(
            f"{path}: expected node {node_id} of cluster {config.cluster!r}, found node {found.node_id} of cluster "
            f"{found.cluster!r}; each cluster needs a data_dir of its own"
        )
    return found if process_identity(found.pid) == found.identity else None


def start_node(config: Config, config_path: str | None, node_id: int) -> ProcessFile:
    """Start one node, detached from this terminal, and remember it."""
    log = log_path(config, node_id)
    log.parent.mkdir(parents=True, exist_ok=True)
    chosen = [] if config_path is None else ["--config", str(Path(config_path).resolve())]
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "smrx", *chosen, "node", "--id", str(node_id)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    remembered = ProcessFile(process.pid, process_identity(process.pid) or "", config.cluster, node_id)
    pid_file_path(config, node_id).write_bytes(msgspec.json.encode(remembered))
    # The node outlives this process and is nobody's child then; until it does, poll() reaps it if it fails.
    _started[process.pid] = process
    return remembered


_started: dict[int, "subprocess.Popen[bytes]"] = {}


def exit_code(process: ProcessFile) -> int | None:
    """The exit code of a node this very process started, None while it runs."""
    return _started[process.pid].poll()


def stop_nodes(config: Config, node_ids: Iterable[int]) -> list[int]:
    """Ask the nodes that run here to end, insist after ten seconds; return those that were running.

    Only a process that is really the one that was started is ever signalled.
    """
    found = {node_id: process for node_id in node_ids if (process := running_process(config, node_id)) is not None}
    for process in found.values():
        _signal(process, signal.SIGCONT)  # A paused process could not hear the next one.
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_SECONDS
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
    """Remove what the nodes remember of earlier lives, term and vote included. None of them may be running.

    Their keys stay: they say who a node is, not what it did.
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
    """The end of a node's log."""
    try:
        text = log_path(config, node_id).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _signal(process: ProcessFile, number: signal.Signals) -> None:
    # Asked again at once before each signal: the number may have a new owner by now.
    if process_identity(process.pid) == process.identity:
        os.kill(process.pid, number)
