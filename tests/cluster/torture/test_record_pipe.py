"""Records of a child process arrive even if it is killed."""

import subprocess
import sys

from cluster.torture.cluster_under_test import environment
from cluster.torture.record_pipe import PipeReader, Record, RecordStream, encode_record

_WRITER = """
import os, signal, sys
from cluster.torture.record_pipe import RecordWriter
writer = RecordWriter(int(sys.argv[1]))
for number in range(1000):
    writer.write(7, number, 2, 3, b"x" * number)
os.write(int(sys.argv[1]), b"incomplete")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_records_written_before_a_kill_arrive() -> None:
    with PipeReader() as pipes:
        with pipes.open() as (descriptor, stream):
            child = subprocess.Popen(
                [sys.executable, "-c", _WRITER, str(descriptor)], pass_fds=(descriptor,), env=environment()
            )
        child.wait(60)
        assert stream.ended.wait(60)
    records = list(stream.records())
    assert records == [Record(7, number, 2, 3, b"x" * number) for number in range(1000)]


def test_incomplete_record_is_ignored() -> None:
    stream = RecordStream()
    stream.data += encode_record(1, 2, 3, 4, b"whole") + encode_record(5, 6, 7, 8, b"cut short")[:-1]
    assert list(stream.records()) == [Record(1, 2, 3, 4, b"whole")]
