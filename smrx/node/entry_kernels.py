"""Check, count and gather the frames of commands of a turn, and write the answers to them, in compiled code.

`admit_frames` accepts what nearly every frame is: commands of a client without details, of sessions of its sender,
within all limits. It stops at the first frame that is anything else; order_entry.py handles that one in Python, with a
sentence if it is refused, and goes on behind it. So this file decides which frames are accepted, and never why one is
not. Every array is of words of 64 bits. Called through compiled_entry.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import Array, inlined, kernel
from smrx.node.frame_block import CORRELATION, COUNT, SENDER, SESSION, SIZE, START
from smrx.wire.codes import COMMAND_TRAITS, CommandKind, CommandTraits
from smrx.wire.frames import HEADER_SIZE, MAGIC, MAX_COMMANDS, VERSION, FrameKind
from smrx.wire.records import COMMAND_SIZE

_WORD_BYTES: Final = 8
_WORDS: Final = COMMAND_SIZE // _WORD_BYTES
_HEADER_WORDS: Final = HEADER_SIZE // _WORD_BYTES
_HEAD: Final = MAGIC | VERSION << 32
_COMMANDS_HEAD: Final = _HEAD | int(FrameKind.COMMANDS) << 40
_OUTCOMES_HEAD: Final = _HEAD | int(FrameKind.OUTCOMES) << 40
_LOW: Final = 0xFFFF_FFFF
_KIND: Final = 0xFF
_KINDS: Final = 63
_SECOND_NS: Final = 1_000_000_000
#: A bit for each kind that is not for a client to send, or that opens a session.
_SPECIAL_KINDS: Final = sum(
    1 << kind
    for kind, traits in COMMAND_TRAITS.items()
    if kind is CommandKind.OPEN_SESSION or CommandTraits.LEADER in traits
)

# Columns of a keyed table (keyed_table.py): the key, whether the row is used, two values.
KEY: Final = 0
USED: Final = 1
#: Of a bucket: the tokens that were taken, in billionths, at a time. Of a connection: its commands without an answer,
#: and their bytes.
DEBT: Final = 2
TIME: Final = 3
COMMANDS: Final = 2
BYTES: Final = 3
TABLE_WORDS: Final = 4
# Numbers of a keyed table: the rows in use, the secret factors of its hash.
IN_USE: Final = 0
FACTOR_LOW: Final = 1
FACTOR_HIGH: Final = 2
TABLE_NUMBERS: Final = 3
_HASH_SHIFT: Final = 20

# Columns of what is known of the senders, on a node with keys: the credential, NOT_PLAIN if the frames are not for this
# file; the account for which the commands count, BY_COMMAND for the accounts that they name.
CREDENTIAL: Final = 0
ACCOUNT: Final = 1
SENDER_WORDS: Final = 2
NOT_PLAIN: Final = -1
BY_COMMAND: Final = -1

# Numbers of an admission.
NOW_NS: Final = 0
HAS_KEYS: Final = 1
HAS_LIMITS: Final = 2
MAX_PENDING: Final = 3
MAX_CONNECTION_COMMANDS: Final = 4
MAX_CONNECTION_BYTES: Final = 5
SESSION_RATE: Final = 6
ACCOUNT_RATE: Final = 7
#: Also set by the kernel: commands waiting; words written to the gathered commands; why it stopped.
PENDING: Final = 8
GATHERED: Final = 9
STOPPED: Final = 10
ADMISSION_NUMBERS: Final = 11
# Why it stopped: at a frame that is not plain; because the gathered commands are full; because a table is.
AT_FRAME: Final = 0
FULL: Final = 1
TABLE_FULL: Final = 2

_SESSION_WORD: Final = 1
_ACCOUNT_WORD: Final = 3


@inlined
def row_of(cells: Array, numbers: Array, key: int) -> Any:
    """Return the row of a key, which is entered if it has none. The caller makes sure that there is a free row."""
    mask = len(cells) - 1
    mixed = (key & _LOW) * numbers[FACTOR_LOW] + ((key >> 32) & _LOW) * numbers[FACTOR_HIGH]
    row = (mixed >> _HASH_SHIFT) & mask
    while cells[row, USED] != 0:
        if cells[row, KEY] == key:
            return row
        row = (row + 1) & mask
    cells[row, KEY] = key
    cells[row, USED] = 1
    numbers[IN_USE] += 1
    return row


@inlined
def has_space(cells: Array, numbers: Array, keys: int) -> Any:
    """Whether so many keys can be entered: at most half of the rows are used."""
    return 2 * (numbers[IN_USE] + keys) <= len(cells)


@inlined
def debt_at(cells: Array, row: int, rate: int, now_ns: int) -> Any:
    """Return the tokens of a bucket that are still taken at a time, in billionths."""
    elapsed = now_ns - cells[row, TIME]
    if elapsed >= _SECOND_NS:
        return 0
    return max(0, cells[row, DEBT] - elapsed * rate)


@inlined
def _key_at(words: Array, first: int, command: int, is_account: bool) -> Any:
    if is_account:
        return words[first + command * _WORDS + _ACCOUNT_WORD] & _LOW
    return words[first + command * _WORDS + _SESSION_WORD]


@inlined
def _run_length(words: Array, first: int, command: int, count: int, is_account: bool) -> Any:
    """Return how many commands from one on have its key."""
    key = _key_at(words, first, command, is_account)
    end = command + 1
    while end < count and _key_at(words, first, end, is_account) == key:
        end += 1
    return end - command


@kernel
def _give_back(cells: Array, numbers: Array, words: Array, first: int, count: int, is_account: bool) -> None:
    """Return the tokens of the first commands of a frame."""
    command = 0
    while command < count:
        length = _run_length(words, first, command, count, is_account)
        row = row_of(cells, numbers, _key_at(words, first, command, is_account))
        cells[row, DEBT] -= length * _SECOND_NS
        command += length


@kernel
def _take(
    cells: Array, numbers: Array, words: Array, first: int, count: int, is_account: bool, rate: int, now_ns: int
) -> Any:
    """Take a token for each command of a frame from the bucket of its session or account; none if one is not there."""
    command = 0
    while command < count:
        length = _run_length(words, first, command, count, is_account)
        row = row_of(cells, numbers, _key_at(words, first, command, is_account))
        debt = debt_at(cells, row, rate, now_ns)
        if debt + (length - rate) * _SECOND_NS > 0:
            _give_back(cells, numbers, words, first, command, is_account)
            return False
        cells[row, DEBT] = debt + length * _SECOND_NS
        cells[row, TIME] = now_ns
        command += length
    return True


@kernel
def _take_of(cells: Array, numbers: Array, key: int, count: int, rate: int, now_ns: int) -> Any:
    """Take tokens from one bucket, if they are there."""
    row = row_of(cells, numbers, key)
    debt = debt_at(cells, row, rate, now_ns)
    if debt + (count - rate) * _SECOND_NS > 0:
        return False
    cells[row, DEBT] = debt + count * _SECOND_NS
    cells[row, TIME] = now_ns
    return True


@kernel
def _is_plain(words: Array, start: int, size: int, credential: int, has_keys: bool) -> Any:
    """Whether a frame has commands of a client without details, of sessions of its sender, none that opens one."""
    if size < HEADER_SIZE + COMMAND_SIZE or words[start] != _COMMANDS_HEAD:
        return False
    # The upper half is the number of the frame's details.
    count = words[start + 1]
    if count < 1 or count > MAX_COMMANDS or size != HEADER_SIZE + count * COMMAND_SIZE:
        return False
    first = start + _HEADER_WORDS
    seen = 0
    special = 0
    for at in range(first, first + count * _WORDS, _WORDS):
        word = words[at]
        seen |= word
        special |= 1 << (word & _KINDS)
    if has_keys:
        for at in range(first + _SESSION_WORD, first + count * _WORDS, _WORDS):
            if (words[at] >> 32) & _LOW != credential:
                return False
    # The upper quarter of a command's first word is the number of its details. A kind above 63 is not known.
    return seen >> 48 == 0 and seen & (_KIND & ~_KINDS) == 0 and special & _SPECIAL_KINDS == 0


@kernel
def admit_frames(
    words: Array,
    rows: Array,
    at: int,
    keys: Array,
    known: Array,
    waiting: Array,
    waiting_numbers: Array,
    uses: Array,
    use_numbers: Array,
    sessions: Array,
    session_numbers: Array,
    accounts: Array,
    account_numbers: Array,
    numbers: Array,
    gathered: Array,
) -> Any:
    """Accept frames from row `at` on, gather their commands, and count them; return the first row not accepted.

    words: the data of a FrameBlock; rows: its rows, of which the last columns are set here; keys: those of its senders;
    known: what is known of them, on a node with keys. The tables: commands that wait of each credential; commands and
    bytes of each connection; buckets.
    """
    numbers[STOPPED] = AT_FRAME
    now_ns = numbers[NOW_NS]
    has_keys = numbers[HAS_KEYS] != 0
    for row in range(at, len(rows)):
        start = rows[row, START] // _WORD_BYTES
        sender = rows[row, SENDER]
        credential = 0
        account = BY_COMMAND
        if has_keys:
            credential = known[sender, CREDENTIAL]
            account = known[sender, ACCOUNT]
        if credential == NOT_PLAIN or not _is_plain(words, start, rows[row, SIZE], credential, has_keys):
            return row
        count = words[start + 1]
        first = start + _HEADER_WORDS
        free = numbers[MAX_PENDING] - numbers[PENDING]
        if count > free:
            return row
        # A credential may have as many waiting as there is room left.
        wait = 0
        if credential != 0:
            wait = row_of(waiting, waiting_numbers, credential)
            if waiting[wait, COMMANDS] + count > free:
                return row
        if numbers[GATHERED] + count * _WORDS > len(gathered):
            numbers[STOPPED] = FULL
            return row
        if numbers[HAS_LIMITS] != 0:
            if not (
                has_space(uses, use_numbers, 1)
                and has_space(sessions, session_numbers, count)
                and has_space(accounts, account_numbers, count)
            ):
                numbers[STOPPED] = TABLE_FULL
                return row
            use = row_of(uses, use_numbers, keys[sender])
            size = count * COMMAND_SIZE
            if uses[use, COMMANDS] + count > numbers[MAX_CONNECTION_COMMANDS]:
                return row
            if uses[use, BYTES] + size > numbers[MAX_CONNECTION_BYTES]:
                return row
            # Without a credential there is no rate.
            if credential != 0:
                if not _take(sessions, session_numbers, words, first, count, False, numbers[SESSION_RATE], now_ns):
                    return row
                rate = numbers[ACCOUNT_RATE]
                if account == BY_COMMAND:
                    is_taken = _take(accounts, account_numbers, words, first, count, True, rate, now_ns)
                else:
                    is_taken = _take_of(accounts, account_numbers, account, count, rate, now_ns)
                if not is_taken:
                    _give_back(sessions, session_numbers, words, first, count, False)
                    return row
            uses[use, COMMANDS] += count
            uses[use, BYTES] += size
        if credential != 0:
            waiting[wait, COMMANDS] += count
        rows[row, COUNT] = count
        rows[row, CORRELATION] = words[start + 2]
        rows[row, SESSION] = words[first + _SESSION_WORD]
        to = numbers[GATHERED]
        end = to + count * _WORDS
        gathered[to:end] = words[first : first + count * _WORDS]
        numbers[GATHERED] = end
        numbers[PENDING] += count
    return len(rows)


@kernel
def release_frames(
    rows: Array, keys: Array, known: Array, uses: Array, use_numbers: Array, waiting: Array, waiting_numbers: Array
) -> None:
    """Count the commands of frames as no longer waiting; the arguments are those of admit_frames."""
    for row in range(len(rows)):
        sender = rows[row, SENDER]
        count = rows[row, COUNT]
        # A table of one row counts nothing.
        if len(uses) > 1:
            use = row_of(uses, use_numbers, keys[sender])
            uses[use, COMMANDS] -= count
            uses[use, BYTES] -= count * COMMAND_SIZE
        if len(known) > 0 and known[sender, CREDENTIAL] != 0:
            waiting[row_of(waiting, waiting_numbers, known[sender, CREDENTIAL]), COMMANDS] -= count


@kernel
def write_answers(outcomes: Array, rows: Array, senders: int, answers: Array, answer_rows: Array) -> None:
    """Write an OUTCOMES frame for each row, in the order of the rows for each sender, sender after sender.

    outcomes: those of the commands of the rows, in their order. answer_rows: START, SIZE and SENDER of each frame.
    """
    next_word = np.zeros(senders + 1, np.int64)
    next_row = np.zeros(senders + 1, np.int64)
    for row in range(len(rows)):
        sender = rows[row, SENDER]
        next_word[sender + 1] += _HEADER_WORDS + rows[row, COUNT] * _WORDS
        next_row[sender + 1] += 1
    for sender in range(senders):
        next_word[sender + 1] += next_word[sender]
        next_row[sender + 1] += next_row[sender]
    first = 0
    for row in range(len(rows)):
        sender = rows[row, SENDER]
        count = rows[row, COUNT]
        to = next_word[sender]
        at = next_row[sender]
        answer_rows[at, START] = to * _WORD_BYTES
        answer_rows[at, SIZE] = HEADER_SIZE + count * COMMAND_SIZE
        answer_rows[at, SENDER] = sender
        answers[to] = _OUTCOMES_HEAD
        answers[to + 1] = count
        answers[to + 2] = rows[row, CORRELATION]
        answers[to + 3] = 0
        end = to + _HEADER_WORDS + count * _WORDS
        answers[to + _HEADER_WORDS : end] = outcomes[first : first + count * _WORDS]
        first += count * _WORDS
        next_word[sender] = end
        next_row[sender] = at + 1
