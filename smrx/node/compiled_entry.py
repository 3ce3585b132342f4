"""The compiled entry points of order entry, which Python calls.

They have the functions of entry_kernels.py, socket_kernels.py and link_frames.py, where each is described. Compiled
once on a machine, see compiling.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import INTERPRETED, Array, entry_point, fingerprint
from smrx.links import bulk_kernels
from smrx.node import entry_kernels, link_frames, socket_kernels
from smrx.node.frame_block import ROW_WORDS

#: Every module whose source is compiled into the entry points.
_MODULES: Final = (
    *(
        f"{__package__}.{name}"
        for name in ("c_calls", "entry_kernels", "frame_block", "link_frames", "socket_kernels", "compiled_entry")
    ),
    "smrx.links.bulk_kernels",
    "smrx.engine.kernels.jit",
    "smrx.wire.codes",
    "smrx.wire.frames",
    "smrx.wire.records",
)


def _compiled(source: int) -> tuple[Any, ...]:
    """Return the entry points, compiled again whenever the source of any kernel changes (see jit.fingerprint)."""
    version = source

    def admit_frames(
        words: Array, rows: Array, at: int, keys: Array, known: Array, waiting: Array, waiting_numbers: Array,
        uses: Array, use_numbers: Array, sessions: Array, session_numbers: Array, accounts: Array,
        account_numbers: Array, numbers: Array, gathered: Array,
    ) -> Any:  # fmt: skip
        if version == 0:  # never true: it makes the version a part of the compiled code
            return at
        return entry_kernels.admit_frames(
            words, rows, at, keys, known, waiting, waiting_numbers, uses, use_numbers, sessions, session_numbers,
            accounts, account_numbers, numbers, gathered,
        )  # fmt: skip

    def release_frames(
        rows: Array, keys: Array, known: Array, uses: Array, use_numbers: Array, waiting: Array, waiting_numbers: Array
    ) -> None:
        if version != 0:
            entry_kernels.release_frames(rows, keys, known, uses, use_numbers, waiting, waiting_numbers)

    def write_answers(outcomes: Array, rows: Array, senders: int, answers: Array, answer_rows: Array) -> None:
        if version != 0:
            entry_kernels.write_answers(outcomes, rows, senders, answers, answer_rows)

    def find_row(cells: Array, numbers: Array, key: int) -> Any:
        return entry_kernels.row_of(cells, numbers, key) if version != 0 else 0

    def receive_messages(
        numbers: Array, data: Array, max_bytes: int, rows: Array, names: Array, senders: Array, cells: Array
    ) -> Any:
        if version == 0:
            return 0
        return socket_kernels.receive_messages(numbers, data, max_bytes, rows, names, senders, cells)

    def send_messages(numbers: Array, data: Array, rows: Array, names: Array, ends: Array, states: Array) -> None:
        if version != 0:
            socket_kernels.send_messages(numbers, data, rows, names, ends, states)

    def cut_frames(numbers: Array, arena: Array, spans: Array, data: Array, rows: Array, max_bytes: int) -> Any:
        return link_frames.cut_frames(numbers, arena, spans, data, rows, max_bytes) if version != 0 else 0

    def pack_answers(data: Array, rows: Array, packed: Array, ends: Array) -> None:
        if version != 0:
            link_frames.pack_answers(data, rows, packed, ends)

    every = (
        admit_frames, release_frames, write_answers, find_row, cut_frames, pack_answers, receive_messages,
        send_messages,
    )  # fmt: skip
    return tuple(map(entry_point, every))


(
    admit_frames, release_frames, write_answers, find_row, cut_frames, pack_answers, receive_messages, send_messages,
) = _compiled(fingerprint(*_MODULES))  # fmt: skip


def compiled_before() -> bool:
    """Return whether the entry points are in the cache; if not, compiling them takes some seconds."""
    if INTERPRETED or send_messages.overloads:
        return True
    # Numba has no public interface for this. Its cache index contains the fingerprint of the source.
    try:
        index = send_messages._cache._cache_file._load_index()
        key = send_messages._cache._index_key
        return any(found[2] == key(found[0], send_messages.targetctx.codegen())[2] for found in index)
    except (AttributeError, IndexError):
        return False


def warm_up() -> None:
    """Compile the entry points, or load them from the cache."""
    words, table = np.zeros(16, np.int64), np.zeros((8, entry_kernels.TABLE_WORDS), np.int64)
    rows, counts = np.zeros((0, ROW_WORDS), np.int64), np.ones(entry_kernels.TABLE_NUMBERS, np.int64)
    known = np.zeros((0, entry_kernels.SENDER_WORDS), np.int64)
    numbers = np.zeros(entry_kernels.ADMISSION_NUMBERS, np.int64)
    admit_frames(
        words, rows, 0, words, known, table, counts, table, counts, table, counts, table, counts, numbers, words
    )
    release_frames(rows, words, known, table, counts, table, counts)
    write_answers(words, rows, 0, words, rows)
    find_row(table, counts, 1)
    bytes_ = np.zeros(0, np.uint8)
    cut_frames(np.zeros(link_frames.NUMBERS, np.int64), bytes_, np.zeros((0, 4), np.int64), bytes_, rows, 0)
    pack_answers(bytes_, rows, bytes_, words[:0])
    if INTERPRETED:
        return
    bulk_kernels.warm_up()
    socket, data = np.zeros(socket_kernels.SOCKET_NUMBERS, np.int64), np.zeros(8, np.uint8)
    receive_messages(socket, data, 8, rows, data, np.zeros((0, socket_kernels.SENDER_WORDS), np.int64), words)
    send_messages(socket, data, rows, data, words, data)
