"""What a child says is heard whatever becomes of it."""

import subprocess
import sys

from cluster.torture.field import environment
from cluster.torture.streams import Listener, Record, Stream, packed

_SPEAKER = """
import os, signal, sys
from cluster.torture.streams import Speaker
speaker = Speaker(int(sys.argv[1]))
for number in range(1000):
    speaker.say(7, number, 2, 3, b"x" * number)
os.write(int(sys.argv[1]), b"not whole")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_said_before_a_kill_is_heard() -> None:
    with Listener() as listener:
        with listener.open() as (descriptor, stream):
            child = subprocess.Popen(
                [sys.executable, "-c", _SPEAKER, str(descriptor)], pass_fds=(descriptor,), env=environment()
            )
        child.wait(60)
        assert stream.ended.wait(60)
    records = list(stream.records())
    assert records == [Record(7, number, 2, 3, b"x" * number) for number in range(1000)]


def test_a_record_that_was_cut_short_was_never_said() -> None:
    stream = Stream()
    stream.data += packed(1, 2, 3, 4, b"whole") + packed(5, 6, 7, 8, b"cut short")[:-1]
    assert list(stream.records()) == [Record(1, 2, 3, 4, b"whole")]
