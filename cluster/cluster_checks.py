"""What can be proved of a cluster from outside: equal logs and states, every event there, no file that grew."""

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


class NotProved(Exception):
    """What was to be proved is not so; the message says what was found instead."""


#: What a run under fire may end with; anything else is a fault of the tool and shows its traceback.
FAILURES = (NotProved, LocalClusterError, ClientError, FeedError, TimeoutError)


def read_events(config: Config, node_ids: Iterable[int], last: int, timeout: float = 60.0) -> Records:
    """Every event from the first to `last`, none missing, as the named nodes publish them; raises NotProved."""
    parts: list[Records] = [np.empty(0, EVENT)]
    found = 0
    deadline = time.monotonic() + timeout
    with Subscriber.from_config(config, list(node_ids)) as subscriber:
        while found < last:
            if time.monotonic() > deadline:
                raise NotProved(f"expected events 1 to {last} within {timeout:g} s, found 1 to {found}")
            part = subscriber.poll(0.2)
            parts.append(part)
            found += len(part)
    return np.concatenate(parts)[:last]


def equal_logs(ask: Ask, node_ids: Iterable[int], timeout: float = 20.0) -> LogDigestReply:
    """Wait until all nodes have applied the same; return it. Raises NotProved when their logs or states differ."""
    deadline = time.monotonic() + timeout
    while True:
        replies = {node_id: ask(node_id, LogDigest()) for node_id in node_ids}
        found = {node_id: reply for node_id, reply in replies.items() if isinstance(reply, LogDigestReply)}
        if len(found) == len(replies) and len({reply.applied_index for reply in found.values()}) == 1:
            break
        if time.monotonic() > deadline:
            where = {node_id: reply.applied_index for node_id, reply in found.items()}
            raise NotProved(f"expected all nodes at one log index within {timeout:g} s, found {where}")
        time.sleep(0.02)
    differences = unequal(list(found.values()))
    if differences:
        raise NotProved("; ".join(differences))
    return next(iter(found.values()))


def unequal(replies: list[LogDigestReply]) -> list[str]:
    """In what nodes at the same log index differ; empty if in nothing."""
    return [
        f"{name} differs: " + ", ".join(f"node {reply.node_id} has {getattr(reply, name)}" for reply in replies)
        for name in ("log_digest", "sequence", "state_hash", "event_sequence", "trades")
        if len({getattr(reply, name) for reply in replies}) > 1
    ]


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """The size of every file below a folder, and a hash of what is in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    data = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: (len(found), xxhash.xxh3_64_intdigest(found)) for name, found in data.items()}


def changed(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    """The files that are new or hold something else than before."""
    return [
        f"{name}: {before[name][0]} to {found[0]} bytes" if name in before else f"{name}: new, {found[0]} bytes"
        for name, found in after.items()
        if before.get(name) != found
    ]
