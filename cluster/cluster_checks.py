"""Check a cluster from outside: equal logs and states, no event missing, no file changed."""

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.client.admin_client import Ask
from smrx.client.client_errors import ClientError
from smrx.config import Config
from smrx.feed.feed_errors import FeedError
from smrx.feed.subscriber import Subscriber
from smrx.local import LocalClusterError
from smrx.wire.admin import LogDigest, LogDigestReply
from smrx.wire.records import EVENT

Records = NDArray[np.void]


class CheckFailed(Exception):
    """A check failed; the message says what was expected and what was found."""


#: The exceptions that mean a failed check; any other is a bug of the tool and shows its traceback.
FAILURES = (CheckFailed, LocalClusterError, ClientError, FeedError, TimeoutError)


def read_events(config: Config, node_ids: Iterable[int], last: int, timeout: float = 60.0) -> Records:
    """Return events 1 to `last` as these nodes publish them, none missing; raises CheckFailed."""
    parts: list[Records] = [np.empty(0, EVENT)]
    found = 0
    deadline = time.monotonic() + timeout
    with Subscriber.from_config(config, list(node_ids)) as subscriber:
        while found < last:
            if time.monotonic() > deadline:
                raise CheckFailed(f"received events 1 to {found} of {last} within {timeout:g} s")
            part = subscriber.poll(0.2)
            parts.append(part)
            found += len(part)
    return np.concatenate(parts)[:last]


def equal_logs(ask: Ask, node_ids: Iterable[int], timeout: float = 20.0) -> LogDigestReply:
    """Wait until all nodes have applied the same entries and return the digest; raises CheckFailed if they differ."""
    deadline = time.monotonic() + timeout
    while True:
        replies = {node_id: ask(node_id, LogDigest()) for node_id in node_ids}
        found = {node_id: reply for node_id, reply in replies.items() if isinstance(reply, LogDigestReply)}
        if len(found) == len(replies) and len({reply.applied_index for reply in found.values()}) == 1:
            break
        if time.monotonic() > deadline:
            where = {node_id: reply.applied_index for node_id, reply in found.items()}
            raise CheckFailed(f"nodes were not at one log index within {timeout:g} s: {where}")
        time.sleep(0.02)
    found_differences = differences(list(found.values()))
    if found_differences:
        raise CheckFailed("; ".join(found_differences))
    return next(iter(found.values()))


def differences(replies: list[LogDigestReply]) -> list[str]:
    """Return what differs between nodes at the same log index; empty if nothing does."""
    return [
        f"{name} differs: " + ", ".join(f"node {reply.node_id} has {getattr(reply, name)}" for reply in replies)
        for name in ("log_digest", "sequence", "state_hash", "event_sequence", "trades")
        if len({getattr(reply, name) for reply in replies}) > 1
    ]


def file_contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the size and a content hash of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    data = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: (len(found), xxhash.xxh3_64_intdigest(found)) for name, found in data.items()}


def changed_files(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    """Return a line for each file that is new or has changed."""
    return [
        f"{name}: {before[name][0]} to {found[0]} bytes" if name in before else f"{name}: new, {found[0]} bytes"
        for name, found in after.items()
        if before.get(name) != found
    ]
