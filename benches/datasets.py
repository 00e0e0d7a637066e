"""The benchmark's data sets: which files there are, how large, and their bytes.

    python benches/datasets.py S M --into DIR

A set is a list of planned files, which depends on the seed alone, and each file
has a random source of its own, so that several processes can write them in any
order and always write the same tree. What was made is kept as one tar beside a
stamp: unpacking 100,000 files onto tmpfs takes a second or two, creating them on
a disk takes minutes.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

import content

SEED = "offsite-bench-1"
SEGMENT = 8 << 20
NEWEST = 1_760_000_000  # every file was last changed before this moment, in 2025
MB = 1_000_000
SETS = ("T", "S", "M", "L", "N", "N1000", "N1")

SUFFIX = {
    "media": ".jpg",
    "sql": ".sql",
    "json": ".json",
    "log": ".log",
    "code": ".rs",
    "prose": ".md",
    "env": ".env",
    "secret": ".key",
}

# of the bytes of M: the share, and the mean size of such a file. A bit more than
# a third does not compress at all; the rest does by about 4:1, which together
# makes gzip -6 halve it.
M_SHAPE = [
    ("media", 0.405, 410_000),
    ("sql", 0.235, 4_500_000),
    ("json", 0.12, 60_000),
    ("log", 0.12, 400_000),
    ("code", 0.095, 24_000),
    ("prose", 0.025, 16_000),
]

# the earlier system: memory files, notes and secrets, and a few dumps. These
# are counts and mean sizes; the dumps stay below 1 MiB each.
S_SHAPE = [
    ("json", 298, 4_200),
    ("prose", 220, 5_000),
    ("env", 40, 1_500),
    ("secret", 55, 2_000),
    ("log", 9, 200_000),
    ("media", 6, 130_000),
    ("sql", 7, 720_000),
]
T_SHAPE = [("json", 20, 4_000), ("prose", 14, 5_000), ("env", 6, 1_500), ("secret", 8, 400), ("sql", 2, 150_000)]


@dataclass(frozen=True)
class Planned:
    """One file before it is written."""

    path: str
    kind: str
    size: int
    mode: int
    mtime: int


def spread(source: Random, mean: int) -> int:
    """Sizes as they are in real folders: many small, a few large; the mean of
    this distribution is `mean`."""
    return max(16, min(int(mean * source.lognormvariate(-0.32, 0.8)), mean * 6))


def planned(source: Random, number: int, kind: str, size: int, in_folder: int) -> Planned:
    folder = f"{kind}/{number // in_folder:03}"
    name = f"{source.choice(content.pools()['word'])}-{number:05}{SUFFIX[kind]}"
    mode = 0o600 if kind in ("env", "secret") else source.choice((0o644, 0o644, 0o640, 0o755))
    return Planned(f"{folder}/{name}", kind, size, mode, NEWEST - source.randint(0, 300 * 86_400))


def by_bytes(source: Random, total: int, files: int) -> list[Planned]:
    """M's shape: `files` files with `total` bytes, scaled to be so exactly."""
    sizes = [(kind, spread(source, mean)) for kind, share, mean in M_SHAPE for _ in range(int(total * share / mean))]
    # small source files fill up the count; then each kind is scaled to its share
    sizes += [("code", spread(source, 24_000)) for _ in range(max(0, files - len(sizes)))]
    have = {kind: sum(size for of, size in sizes if of == kind) for kind, _, _ in M_SHAPE}
    scale = {kind: total * share / have[kind] for kind, share, _ in M_SHAPE}
    return [planned(source, at, kind, max(1, int(size * scale[kind])), 250) for at, (kind, size) in enumerate(sizes)]


def by_count(source: Random, shape: list[tuple[str, int, int]]) -> list[Planned]:
    sizes = [(kind, spread(source, mean) if kind != "sql" else mean) for kind, count, mean in shape for _ in range(count)]
    return [planned(source, at, kind, size, 60) for at, (kind, size) in enumerate(sizes)]


def small_files(source: Random, files: int) -> list[Planned]:
    kinds = ["json", "prose", "code", "env", "log", "secret"]
    return [planned(source, at, source.choice(kinds), source.randint(200, 2_000), 400) for at in range(files)]


def plan(name: str, seed: str = SEED) -> list[Planned]:
    """The files of one set."""
    source = Random(f"{seed}/{name}")
    if name == "L":
        dump = Planned("sql/cluster.sql", "sql", 2_000 * MB, 0o600, NEWEST)
        return [dump, *by_bytes(source, 2_000 * MB, 20_000)]
    if name == "M":
        return by_bytes(source, 500 * MB, 5_000)
    if name in ("S", "T"):
        return by_count(source, S_SHAPE if name == "S" else T_SHAPE)
    if name.startswith("N"):
        return small_files(source, int(name[1:] or 100_000))
    sys.exit(f"error: there is no data set {name}\nhint: the sets are {', '.join(SETS)}")


def write_piece(job: tuple[str, str, Planned, int]) -> None:
    """Writes one segment of a file. The segment has a seed of its own, so that
    a large dump is made by all processes at once."""
    folder, seed, file, at = job
    size = min(SEGMENT, file.size - at)
    data = content.KINDS[file.kind](Random(f"{seed}/{file.path}/{at}"), size)
    handle = os.open(f"{folder}/{file.path}", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        view = memoryview(data)
        while view:
            done = os.pwrite(handle, view, at)
            view, at = view[done:], at + done
    finally:
        os.close(handle)


def make(name: str, folder: Path, seed: str = SEED, processes: int | None = None) -> list[Planned]:
    """Writes the tree of a set below `folder`; returns what was planned."""
    files = plan(name, seed)
    content.pools()  # before the fork, so that it is made once
    for sub in sorted({str(Path(file.path).parent) for file in files}):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    jobs = [(str(folder), f"{seed}/{name}", file, at) for file in files for at in range(0, file.size, SEGMENT)]
    if processes == 1 or len(jobs) < 200:
        for job in jobs:
            write_piece(job)
    else:
        with multiprocessing.get_context("fork").Pool(processes or os.cpu_count()) as pool:
            for _ in pool.imap_unordered(write_piece, jobs, chunksize=8):
                pass
    for file in files:
        os.chmod(folder / file.path, file.mode)
        os.utime(folder / file.path, (file.mtime, file.mtime))
    for parent, _, _ in os.walk(folder, topdown=False):
        os.chmod(parent, 0o755)
        os.utime(parent, (NEWEST, NEWEST))
    return files


def tree_hash(folder: Path) -> str:
    """One hash over every path, type, mode, time and byte below `folder`, but
    not the folder itself: two trees are the same when their hashes are."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: os.fsencode(path.relative_to(folder))):
        status = path.lstat()
        if path.is_symlink():
            body = f"link {os.readlink(path)}"
        elif path.is_dir():
            body = "folder"
        else:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            body = f"file {status.st_size} {int(status.st_mtime)} {digest}"
        total.update(f"{path.relative_to(folder)}\0{status.st_mode & 0o7777:o} {body}\n".encode())
    return total.hexdigest()


def stamp_of(name: str) -> dict[str, str]:
    """What the bytes depend on: the seed and these two programs."""
    program = hashlib.sha256()
    for source in ("content.py", "datasets.py"):
        program.update((Path(__file__).parent / source).read_bytes())
    return {"set": name, "seed": SEED, "program": program.hexdigest()}


def cached(name: str, cache: Path, scratch: Path) -> dict:
    """Sees that `cache` holds the set's tar, made on `scratch` where it is not
    there yet, and returns what is known about it: files, bytes, hash."""
    known, archive, stamp = cache / f"{name}.json", cache / f"{name}.tar", stamp_of(name)
    if known.exists() and archive.exists():
        facts = json.loads(known.read_text())
        if all(facts.get(key) == value for key, value in stamp.items()):
            return facts
    print(f"making the data set {name}", file=sys.stderr, flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    known.unlink(missing_ok=True)
    folder = scratch / f"making-{name}"
    subprocess.run(["rm", "-rf", folder], check=True)
    files = make(name, folder)
    facts = stamp | {"files": len(files), "bytes": sum(f.size for f in files), "hash": tree_hash(folder)}
    subprocess.run(["tar", "-C", folder, "-cf", archive, "."], check=True)
    subprocess.run(["rm", "-rf", folder], check=True)
    known.write_text(json.dumps(facts, indent=1))
    return facts


def unpack(name: str, cache: Path, folder: Path) -> None:
    """Lays the set's tree, modes and times included, at `folder`."""
    subprocess.run(["rm", "-rf", folder], check=True)
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-C", folder, "-xpf", cache / f"{name}.tar"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make data sets of the benchmark.")
    parser.add_argument("sets", nargs="+", choices=SETS)
    parser.add_argument("--into", type=Path, required=True, help="the folder below which each set gets its own")
    args = parser.parse_args()
    for name in args.sets:
        subprocess.run(["rm", "-rf", args.into / name], check=True)
        files = make(name, args.into / name)
        print(f"{name}: {len(files)} files, {sum(f.size for f in files)} bytes")


if __name__ == "__main__":
    main()
