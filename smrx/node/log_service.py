"""Let another program read a node's state and log, so that it can apply the same commands: `smrx shadow`.

Owns the snapshot that is held for readers. Changes nothing: a snapshot is taken as for a new member, and only if there
is none that the log continues; the log is compacted as if no reader needed it. Called by the admin service.
"""

import time
from typing import Any, Final

import numpy as np

from smrx.consensus.membership import is_membership
from smrx.consensus.messages import NO_OP
from smrx.consensus.snapshots import Snapshot
from smrx.node.node_view import NodeView
from smrx.node.read_service import ReadService
from smrx.wire import admin
from smrx.wire.admin import AdminErrorCode
from smrx.wire.state_image import PART_BYTES

#: One reply: far below the largest, and little work for the loop.
_ENTRY_BYTES: Final = 256 << 10
_ENTRIES: Final = 1024
_HASHES: Final = 1 << 15
#: A snapshot that no client reads is dropped after this time.
_HELD_SECONDS: Final = 60.0


class LogService:
    """Answers TakeState, ReadState and ReadLog."""

    def __init__(self, node: NodeView, reads: ReadService) -> None:
        self._node = node
        self._reads = reads
        self._held: Snapshot | None = None
        self._read_at = 0.0

    def drop_unread(self) -> None:
        """Free the held snapshot if its reader is gone."""
        if self._held is not None and time.monotonic() - self._read_at > _HELD_SECONDS:
            self._held = None

    def take_state(self, request: admin.TakeState) -> admin.StateReply:
        """Hold a snapshot, or start to take one."""
        replica = self._node.replica
        if replica.first_index == 1 and not request.not_before:
            return admin.StateReply(**self._at, log_index=1)
        self._held, self._read_at = replica.state_for_readers(request.not_before), time.monotonic()
        if self._held is None:
            return admin.StateReply(**self._at)
        return admin.StateReply(**self._at, log_index=self._held.index, size=len(self._held.data))

    def read_state(self, request: admin.ReadState) -> admin.StatePart | admin.AdminError:
        """Return a part of the held snapshot."""
        held = self._held
        if held is None or held.index != request.log_index:
            return self._unavailable(f"no snapshot after log entry {request.log_index} is held; take one again")
        self._read_at = time.monotonic()
        end = request.offset + PART_BYTES
        data = bytes(held.data[request.offset : end])
        return admin.StatePart(**self._at, data=data, more=end < len(held.data))

    def read_log(self, request: admin.ReadLog) -> admin.LogPart | admin.AdminError:
        """Return entries and hashes."""
        replica, state = self._node.replica, self._node.state
        entries = replica.entries_after(request.after, _ENTRY_BYTES, _ENTRIES)
        if entries is None:
            return self._unavailable(f"the log after entry {request.after} is no longer on this node")
        newest = state.position()[0]
        last_hash = min(newest, request.first_hash + _HASHES - 1)
        hashes = state.hashes_between(request.first_hash, last_hash) if request.first_hash <= last_hash else []
        last = entries[-1][1] if entries else request.after
        return admin.LogPart(
            **self._at,
            entries=tuple(
                (index, term, entry) for entry, index, term in entries if entry != NO_OP and not is_membership(entry)
            ),
            last=last,
            more=last < replica.applied_index,
            hashes=b"" if hashes is None else np.array(hashes, np.uint64).tobytes(),
        )

    @property
    def _at(self) -> dict[str, Any]:
        return self._reads.at()

    def _unavailable(self, message: str) -> admin.AdminError:
        return self._reads.error(AdminErrorCode.UNAVAILABLE, message)
