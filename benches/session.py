"""Runs the tools in turn on one data set, in folders that it makes and removes."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
from measure import Cost, Failed, Launcher, available_bytes, stored_bytes
from peers import OURS, TOOLS, VERBS, Commands, Tool, World, missing, version

GB = 1_000_000_000
# offsite takes a file that nobody touched for a minute as still; a set that was
# unpacked a moment ago is not what a system looks like
SETTLED_S = 61
STILL_ABOVE = 1 << 20


@dataclass(frozen=True)
class Places:
    """Where things are: the checkout, what is kept, and scratch in memory or,
    where memory is too small, on disk."""

    root: Path
    build: Path
    kept: Path
    memory: Path
    disk: Path

    @classmethod
    def usual(cls) -> "Places":
        root = Path(__file__).resolve().parent.parent
        build = Path(os.environ.get("CARGO_TARGET_DIR", root / "target")).resolve()
        kept = build / "bench"
        shm = Path(os.environ.get("BENCH_SCRATCH", "/dev/shm"))
        return cls(root, build, kept, shm / "offsite-bench", kept / "scratch")

    def scratch(self, need: float) -> Path:
        """The folder for what needs so many bytes: in memory where they fit."""
        parent = self.memory.parent
        free = shutil.disk_usage(parent).free if parent.is_dir() and os.access(parent, os.W_OK) else 0
        return self.memory if min(free, available_bytes()) > need + GB else self.disk


class Session:
    """One invocation of the bench."""

    def __init__(self, places: Places, wanted: list[str]):
        self.places = places
        places.kept.mkdir(parents=True, exist_ok=True)
        self.lock = self._lock()
        self.clean()
        self.launcher = Launcher(places.kept)
        self.failures: list[str] = []
        self.absent: dict[str, str] = {}
        self.offsite = self._copy_of_offsite()
        self.tools = self._present(wanted)
        world = self.world(places.disk, places.disk / "data")
        self.versions = {tool.name: version(tool, world) for tool in self.tools}

    def _lock(self):
        handle = open(self.places.kept / "lock", "w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("error: another bench is running\nhint: wait for it: two at once would measure each other")
        return handle

    def clean(self) -> None:
        """Removes all scratch, also that of a bench that was killed."""
        for folder in (self.places.memory, self.places.disk):
            subprocess.run(["rm", "-rf", folder], check=True)

    def _copy_of_offsite(self) -> Path:
        """A copy, so that a build meanwhile does not change what is measured."""
        built = self.places.build / "release" / "offsite"
        if not built.exists():
            sys.exit(f"error: {built} is not there\nhint: cargo build --release --locked")
        self.places.disk.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(built, self.places.disk / "offsite"))

    def world(self, scratch: Path, data: Path) -> World:
        run = scratch / "run"
        return World(
            data=data,
            repo=run / "repo",
            target=run / "target",
            home=run / "home",
            offsite=self.offsite,
            python=Path(sys.executable),
            rustic=self.places.kept / "tools" / "bin" / "rustic",
        )

    def _present(self, wanted: list[str]) -> list[Tool]:
        found = []
        for tool in TOOLS:
            if wanted and tool.name not in wanted:
                continue
            lacking = missing(tool, self.world(self.places.disk, self.places.disk))
            if lacking:
                self.absent[tool.name] = "not installed: " + ", ".join(lacking).lower()
            elif tool.name == "offsite-fast" and not self._knows_fast():
                self.absent[tool.name] = "not in this build"
            else:
                found.append(tool)
        for name, why in self.absent.items():
            print(f"absent: {name.replace('-', ' ')}: {why}", flush=True)
        return found

    def _knows_fast(self) -> bool:
        """Whether this build's config has the key: exit code 2 says no."""
        world = self.world(self.places.disk, self.places.disk / "run" / "sample")
        commands = self.fresh(world, next(tool for tool in TOOLS if tool.name == "offsite-fast"))
        world.data.mkdir(parents=True)
        (world.data / "file").write_text("one file\n")
        words = [*commands.backup[0], "--dry-run"]
        done = subprocess.run(words, env=world.environment(), capture_output=True, check=False)
        self.remove(world)
        return done.returncode == 0

    def fresh(self, world: World, tool: Tool) -> Commands:
        """An empty repository, target and home; the config is written and the
        repository made, untimed."""
        self.remove(world)
        for folder in (world.repo, world.target, world.home / "tmp", world.home / "state"):
            folder.mkdir(parents=True)
        (world.home / "gnupg").mkdir(mode=0o700)
        commands = tool.commands(world)
        for path, text in commands.files.items():
            path.write_text(text)
        for command in commands.before:
            done = subprocess.run(command, env=world.environment(), cwd=world.home, capture_output=True, text=True)
            if done.returncode != 0:
                raise Failed(f"`{' '.join(command)}` exited with {done.returncode}: {done.stderr.strip()[-300:]}")
        return commands

    def remove(self, world: World) -> None:
        """Removes one run, and the key agent that duplicity's gpg leaves."""
        if (world.home / "gnupg").exists() and any((world.home / "gnupg").iterdir()):
            subprocess.run(["gpgconf", "--kill", "all"], env=world.environment(), capture_output=True, check=False)
        subprocess.run(["rm", "-rf", world.home.parent], check=True)

    def run(self, world: World, commands: Commands, verb: str) -> Cost:
        start = {"backup": commands.backup_in, "restore": commands.restore_in}.get(verb) or world.home
        return self.launcher.run(getattr(commands, verb), world.environment(), start)

    def unpack(self, name: str) -> tuple[dict, Path]:
        """The set's tree in scratch, grown still; and what is known about it."""
        cache = self.places.kept / "data"
        facts = datasets.cached(name, cache, self.places.scratch(10 * GB))
        # the tree, one repository and one restore, and the sealed copy meanwhile
        scratch = self.places.scratch(facts["bytes"] * 3.2)
        data = scratch / "data" / name
        datasets.unpack(name, cache, data)
        if any(file.size > STILL_ABOVE for file in datasets.plan(name)):
            time.sleep(SETTLED_S)
        return facts, data

    def measure(self, name: str, runs: int, only_ours: bool = False) -> dict:
        """All tools, `runs` times in turn, each round beginning with another."""
        facts, data = self.unpack(name)
        scratch = data.parent.parent
        tools = [tool for tool in self.tools if not only_ours or tool.name in OURS]
        result = {
            "files": facts["files"],
            "bytes": facts["bytes"],
            "place": "memory" if scratch == self.places.memory else "disk",
            "load": os.getloadavg()[0],
            "runs": runs,
            "notes": {},
            "tools": {tool.name: {verb: [] for verb in VERBS} | {"stored": []} for tool in tools},
        }
        broken: set[str] = set()
        for number in range(runs):
            at = number % len(tools)
            for tool in tools[at:] + tools[:at]:
                if tool.name in broken:
                    continue
                try:
                    self._once(tool, data, scratch, facts, result, compare=number == 0)
                except Failed as error:
                    broken.add(tool.name)
                    self.failures.append(f"{tool.name} on {name}: {error}")
                    print(f"error: {tool.name} on {name}: {error}", file=sys.stderr, flush=True)
        subprocess.run(["rm", "-rf", data], check=True)
        return result

    def _once(self, tool: Tool, data: Path, scratch: Path, facts: dict, result: dict, compare: bool) -> None:
        need = facts["bytes"] * tool.memory
        if need and need + facts["bytes"] * 2 > available_bytes() and scratch == self.places.memory:
            scratch = self.places.disk
            result["notes"][tool.name] = "repository and restore on disk: it needs the memory itself"
        if need > available_bytes():
            reason = f"needs about {need / GB:.0f} GB of memory, and {available_bytes() / GB:.0f} GB are there"
            result["notes"][tool.name] = f"left out: {reason}"
            return
        world = replace(self.world(scratch, data), data=data)
        commands = self.fresh(world, tool)
        line = []
        for verb in VERBS:
            cost = self.run(world, commands, verb)
            result["tools"][tool.name][verb].append(vars(cost))
            line.append(f"{verb} {cost.wall:.3f} s {cost.peak:.0f} MiB")
            if verb == "backup":
                result["tools"][tool.name]["stored"].append(stored_bytes(world.repo))
        if compare and datasets.tree_hash(commands.restored) != facts["hash"]:
            raise Failed("what it restored is not what was backed up")
        self.remove(world)
        print(f"  {facts['set']:<6} {tool.name:<13} {'   '.join(line)}", flush=True)
