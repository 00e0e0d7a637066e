"""What else is measured: the way to GitHub's stand-in, start-up, an unchanged run."""

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from measure import Cost, Failed
from peers import OURS, Tool, World, config_text, program
from session import Session

STARTS = 50
# what each program is asked only to find out how long it takes to begin
GREETINGS = {
    "offsite": ["OFFSITE", "status", "--help"],
    "python": ["PYTHON", str(Path(__file__).parent / "python_pipeline.py"), "--help"],
    "restic": ["restic", "version"],
    "borg": ["borg", "--version"],
    "rustic": ["RUSTIC", "--version"],
    "duplicity": ["duplicity", "--version"],
    "pigz": ["age", "--version"],
}


def add(total: dict, name: str, cost: Cost) -> None:
    total.setdefault(name, []).append(vars(cost))


def asked(words: list[str]) -> str:
    """A greeting as it is shown: names of programs, not their paths."""
    return " ".join(Path(word).name.lower() for word in words)


def start_up(session: Session) -> dict:
    """Fifty starts of each in turn: a program that is started four times a day
    need not be quick, but one that a watchdog asks every minute should."""
    world = session.world(session.places.disk, session.places.disk)
    world.home.mkdir(parents=True)
    found: dict[str, list] = {}
    for _ in range(STARTS):
        for tool in session.tools:
            if tool.name in GREETINGS:
                words = [program(word, world) for word in GREETINGS[tool.name]]
                add(found, tool.name, session.launcher.run([words], world.environment(), world.home))
    session.remove(world)
    return {"tools": found, "asked": {name: asked(words) for name, words in GREETINGS.items()}}


@contextmanager
def stand_in(session: Session, state: Path):
    """GitHub's stand-in with an empty repository, for as long as the block lasts."""
    program_path = session.places.root / "tests" / "github_stand_in" / "server.py"
    words = [sys.executable, "-B", program_path, "--state", state, "--token", "bench-token", "--exit-with-stdin"]
    server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        greeting = server.stdout.readline().split()
        if not greeting:
            raise Failed("the GitHub stand-in did not start")
        yield greeting[-1]
    finally:
        server.stdin.close()
        server.wait(timeout=30)
        server.stdout.close()


def puts(url: str) -> list[int]:
    """The sizes of the bodies that were PUT: a backup of S has to be one."""
    with urllib.request.urlopen(f"{url}/_control/requests") as answer:
        seen = json.load(answer)
    requests = seen["requests"] if isinstance(seen, dict) else seen
    return [request["request_bytes"] for request in requests if request["method"] == "PUT"]


def github(session: Session, runs: int) -> dict:
    """The whole path: read, pack, seal, and one PUT over loopback, from a
    started process to its exit. The stand-in's own work, which hashes and writes
    a git object, is part of the time and runs on the same cores."""
    facts, data = session.unpack("S")
    scratch = data.parent.parent
    world = replace(session.world(scratch, data), data=data)
    found: dict[str, list] = {}
    bodies: dict[str, int] = {}
    for _ in range(runs):
        for tool in (tool for tool in session.tools if tool.name in OURS):
            session.fresh(world, tool)
            with stand_in(session, world.repo) as url:
                section = f'[github]\ntoken = ["env:GITHUB_TOKEN"]\napi_url = "{url}"\n'
                text = config_text(data, "github://acme/backups", tool.name == "offsite-fast", section)
                world.config.write_text(text)
                words = [str(world.offsite), "-q", "--config", str(world.config), "backup"]
                cost = session.launcher.run([words], world.environment(), world.home)
                sizes = puts(url)
                if len(sizes) != 1:
                    raise Failed(f"a backup of S to the GitHub stand-in was {len(sizes)} PUTs, not one")
            add(found, tool.name, cost)
            bodies[tool.name] = sizes[0]
            session.remove(world)
    subprocess.run(["rm", "-rf", data], check=True)
    return {"tools": found, "bodies": bodies, "files": facts["files"]}


def unchanged(session: Session, name: str, runs: int) -> dict:
    """A second backup of what did not change since the first, with
    `unchanged = "mark"`, and beside it what reading the same files costs tar and sha256sum."""
    _, data = session.unpack(name)
    scratch = data.parent.parent
    world = replace(session.world(scratch, data), data=data)
    tool = next(tool for tool in session.tools if tool.name == "offsite")
    found: dict[str, list] = {}
    objects = 0
    for _ in range(runs):
        commands = session.fresh(world, tool)
        world.config.write_text('unchanged = "mark"\n' + world.config.read_text())
        session.run(world, commands, "backup")
        add(found, "second run", session.run(world, commands, "backup"))
        objects = sum(1 for path in world.repo.rglob("*.fernet") if path.is_file())
        reading = [["tar", "-C", str(data), "-cf", "-", "."], ["sha256sum"]]
        add(found, "tar, sha256sum", session.launcher.run(reading, world.environment(), world.home))
        session.remove(world)
    subprocess.run(["rm", "-rf", data], check=True)
    return {"tools": found, "objects": objects}


def rendered(tool: Tool) -> list[str]:
    """A tool's commands with names in place of folders, for the page."""
    world = World(
        data=Path("$DATA"),
        repo=Path("$REPO"),
        target=Path("$TARGET"),
        home=Path("$HOME"),
        offsite=Path("offsite"),
        python=Path("python"),
        rustic=Path("rustic"),
    )
    commands = tool.commands(world)
    rows = []
    for verb in ("before", "backup", "verify", "restore"):
        stages = getattr(commands, verb)
        if not stages:
            continue
        separator = "; " if verb == "before" else " | "
        line = separator.join(" ".join(map(quoted, stage)) for stage in stages)
        start = {"backup": commands.backup_in, "restore": commands.restore_in}.get(verb)
        rows.append(f"{verb + ':':<8} " + (f"cd {start} && " if start else "") + line)
    return rows


def quoted(word: str) -> str:
    """A word as one would type it, our own script without its folder."""
    word = str(word).replace(str(Path(__file__).resolve().parent), "benches")
    return f'"{word}"' if " " in word else word
