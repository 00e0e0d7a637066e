"""Runs one pipeline of programs and says what it cost, and sums up many runs."""

import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# what /bin/true may seem to need; more means that the harness is counted as well
FLOOR_MIB = 3.0


class Failed(Exception):
    """A program that was measured did not do its work."""


@dataclass(frozen=True)
class Cost:
    """What one run took: seconds on the clock, seconds of all its processes'
    CPU, and the sum of the largest resident sets of its processes in MiB."""

    wall: float
    cpu: float
    peak: float


class Launcher:
    """The small program that starts and waits for everything that is measured.
    It is compiled at its first use; a bench needs a C compiler, as the build
    does."""

    def __init__(self, folder: Path):
        self.program = folder / "launch"
        self.folder = folder
        source = HERE / "launch.c"
        if not self.program.exists() or self.program.stat().st_mtime < source.stat().st_mtime:
            compiler = shutil.which("cc") or sys.exit("error: there is no C compiler\nhint: install gcc and libc6-dev")
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run([compiler, "-O2", "-Wall", "-o", self.program, source], check=True)

    def run(self, stages: list[list[str]], env: dict[str, str], cwd: Path, output: Path | str = os.devnull) -> Cost:
        """Runs the stages as one pipeline, from a started process to the last
        exit. Raises Failed with the end of what they said when one fails."""
        result, errors = self.folder / "launch.result", self.folder / "launch.errors"
        for old in (result, errors):
            old.unlink(missing_ok=True)
        line: list[str] = []
        for stage in stages:
            line += (["|"] if line else []) + [str(word) for word in stage]
        done = subprocess.run(
            [self.program, result, str(output), errors, "--", *line], env=env, cwd=cwd, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0 or not result.exists():
            raise Failed(f"the launcher exited with {done.returncode}")
        first, *rows = result.read_text().splitlines()
        processes = [[int(cell) for cell in row.split()] for row in rows]
        codes = [row[0] for row in processes]
        if any(codes):
            said = errors.read_text(errors="replace").strip().splitlines()[-5:]
            raise Failed(f"`{' '.join(line)}` exited with {codes}: " + " / ".join(said))
        return Cost(
            wall=int(first.split()[1]) / 1e9,
            cpu=sum(row[1] + row[2] for row in processes) / 1e6,
            peak=sum(row[3] for row in processes) / 1024,
        )

    def floor(self) -> float:
        """What the smallest program seems to need, in MiB. Measured each time:
        a harness that counts itself would flatter the large and punish the
        small."""
        peak = self.run([["/bin/true"]], dict(os.environ), Path("/")).peak
        if peak > FLOOR_MIB:
            raise Failed(f"/bin/true seems to need {peak:.1f} MiB: peak memory cannot be trusted here")
        return peak


@dataclass(frozen=True)
class Summary:
    """The median of some runs, with the smallest and the largest."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: list[float]) -> "Summary | None":
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values), len(values))


def ratio(theirs: "Summary | None", ours: "Summary | None") -> float | None:
    """How many times ours the other's median is; None where one is missing."""
    if theirs is None or ours is None or ours.median == 0:
        return None
    return theirs.median / ours.median


def available_bytes() -> int:
    """Memory that programs and tmpfs can still have, by the kernel's estimate."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise Failed("/proc/meminfo has no MemAvailable")


def stored_bytes(folder: Path) -> int:
    """The sizes of all files below a repository."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
