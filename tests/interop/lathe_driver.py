"""How the interop tests call Lathe: the `lathe` binary, named by the environment variable LATHE_BIN."""

import dataclasses
import os
import pathlib
import subprocess

import pytest


@dataclasses.dataclass(frozen=True)
class Outcome:
    code: int
    output: str
    messages: str

    @property
    def problem(self) -> str:
        """Empty, or what went wrong."""
        return "" if self.code == 0 else f"exit code {self.code}: {self.messages.strip()[-2000:]}"


def binary() -> pathlib.Path | None:
    path = os.environ.get("LATHE_BIN")
    return pathlib.Path(path) if path and pathlib.Path(path).exists() else None


needs_lathe = pytest.mark.skipif(binary() is None, reason="set LATHE_BIN to the lathe binary (ctest does)")


def lathe(*arguments, timeout: float = 300) -> Outcome:
    try:
        done = subprocess.run([str(binary()), *map(str, arguments)], capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return Outcome(124, "", f"still running after {timeout} s")
    return Outcome(done.returncode, done.stdout, done.stderr)
