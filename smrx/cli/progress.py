"""Show progress on standard error: the compilation of the engine, and bars on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from smrx import compiling


def compile_engine(data_dir: str | Path | None = None) -> Path | None:
    """Compile the engine if this machine has not done so yet, and report that on standard error.

    Arguments and result are those of compiling.compile_engine().
    """
    return compiling.compile_engine(lambda line: click.echo(line, err=True), data_dir)


@contextmanager
def phase_bars() -> Iterator[Callable[[str, float], None] | None]:
    """Yield show(phase, share from 0 to 1), which draws one bar for each phase; None without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console) as bars:
        tasks: dict[str, Any] = {}

        def show(phase: str, share: float) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=1.0)
            bars.update(tasks[phase], completed=share)

        yield show


@contextmanager
def count_bar(description: str, total: int) -> Iterator[Callable[[int], object] | None]:
    """Yield show(done), which draws one bar with a count out of `total`; None without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)
