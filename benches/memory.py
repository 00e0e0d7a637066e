"""Measures peak memory of backup, verify and restore; see memory.sh."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OFFSITE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "offsite"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
FILE_MB = 20


def fill(folder: Path, megabytes: int) -> None:
    """Files of 20 MB: one random, one of text, in turn, and 500 small ones."""
    folder.mkdir(parents=True)
    line = b"the quick brown fox %08d jumps over the lazy dog\n"
    left, number = megabytes, 0
    while left > 0:
        size = min(FILE_MB, left) * 1_000_000
        with open(folder / f"file-{number:04}", "wb") as out:
            if number % 2 == 0:
                for _ in range(0, size, 1_000_000):
                    out.write(os.urandom(1_000_000))
            else:
                text = b"".join(line % i for i in range(number * 7919, number * 7919 + 20_000))
                out.write((text * (size // len(text) + 1))[:size])
        left -= FILE_MB
        number += 1
    (folder / "small").mkdir()
    for i in range(500):
        (folder / "small" / f"{i:03}").write_bytes(os.urandom(200))


def run(args: list[str], cwd: Path, env: dict[str, str]) -> tuple[int, float]:
    """Runs offsite in a child of its own; returns its peak KiB and its seconds."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        started = time.monotonic()
        done = subprocess.run([OFFSITE, "-q", *args], cwd=cwd, env=env, check=False)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        os.write(writer, f"{done.returncode} {peak} {time.monotonic() - started}".encode())
        os._exit(0)
    os.close(writer)
    code, peak, seconds = os.read(reader, 100).decode().split()
    os.close(reader)
    os.waitpid(pid, 0)
    if code != "0":
        sys.exit(f"error: offsite {' '.join(args)} exited with {code}")
    return int(peak), float(seconds)


def measure(megabytes: int, scratch: Path) -> dict[str, int]:
    world = scratch / str(megabytes)
    fill(world / "sys", megabytes)
    (world / "tmp").mkdir()
    (world / "backup-paths.toml").write_text(
        f'system = "bench"\ndestination = "file://{world}/dest"\nkey = ["env:AITHER_MASTER_KEY"]\n'
        '[tier1.all]\npaths = ["sys"]\n'
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(world), "TMPDIR": str(world / "tmp"), "AITHER_MASTER_KEY": KEY}
    peaks = {}
    for verb, args in [("backup", []), ("verify", []), ("restore", ["--target", "back"])]:
        peak, seconds = run([verb, *args], world, env)
        peaks[verb] = peak
        print(f"{megabytes:>6} MB  {verb:<8} {peak / 1024:7.1f} MiB peak  {seconds:7.1f} s", flush=True)
    shutil.rmtree(world)
    return peaks


def main() -> None:
    sizes = [int(a) for a in sys.argv[1:]] or [10, 2000]
    with tempfile.TemporaryDirectory(prefix="offsite-bench-", dir=os.environ.get("BENCH_DIR")) as scratch:
        peaks = [measure(size, Path(scratch)) for size in sizes]
    for verb in peaks[0]:
        ratio = peaks[-1][verb] / peaks[0][verb]
        print(f"{verb}: {sizes[-1]} MB takes {ratio:.2f} times the memory of {sizes[0]} MB")


main()
