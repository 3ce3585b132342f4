"""Sample the Python stacks of a running process with py-spy and write a flame graph. Called by load_bench.py."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from smrx.bench.bench_error import BenchError

_RATE: Final = 200
#: Beyond the sampled time: drawing.
_OVERHEAD_S: Final = 30.0
#: py-spy writes its command line, with paths of this machine, as the title.
_TITLE: Final = re.compile(r'(<text id="title"[^>]*>)[^<]*')
#: Comments in the script of the picture.
_COMMENT: Final = re.compile(r"^\s*//.*\n", re.MULTILINE)


class LeaderProfile:
    """One flame graph."""

    def __init__(self, path: str) -> None:
        """Raises ValueError if py-spy is not installed."""
        found = shutil.which("py-spy")
        if found is None:
            raise ValueError('--flame needs py-spy, which is not installed; run "pip install py-spy"')
        self._program = found
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        self._limit_s = _OVERHEAD_S

    def start(self, process: int, seconds: float) -> None:
        """Begin to sample a process for some seconds."""
        duration = max(1, round(seconds))
        self._limit_s = duration + _OVERHEAD_S
        command = [self._program, "record", "--pid", str(process), "--duration", str(duration), "--rate", str(_RATE)]
        self._process = subprocess.Popen(
            [*command, "--function", "--format", "flamegraph", "--output", self._path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def finish(self) -> None:
        """Wait for the file; raises BenchError if there is none."""
        if self._process is None:
            raise BenchError("no node led when the flame graph was due; run the benchmark again")
        try:
            _, errors = self._process.communicate(timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise BenchError(f"py-spy did not end within {self._limit_s:.0f} s and was killed") from None
        if self._process.returncode:
            lines = errors.decode(errors="replace").strip().splitlines()
            raise BenchError(f"py-spy failed: {lines[-1] if lines else 'no output'}; it may have to be run by root")
        path = Path(self._path)
        picture = _COMMENT.sub("", path.read_text(encoding="utf-8"))
        path.write_text(_TITLE.sub(r"\1smrx, the leader's Python code", picture), encoding="utf-8")
