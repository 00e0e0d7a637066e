"""How each program is asked to back up, verify and restore: ours and its peers.

A tool is a function from a World, the folders of one run, to Commands. It is
called with real folders to measure, and with `$DATA` and the like to print the
commands in docs/benchmarks.md, so that the page cannot say anything else than
what ran.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PASSWORD = "correct horse battery staple"

Stages = list[list[str]]


@dataclass(frozen=True)
class World:
    """The folders of one run. All but `data` are made for it and removed."""

    data: Path
    repo: Path
    target: Path
    home: Path
    offsite: Path
    python: Path
    rustic: Path

    @property
    def config(self) -> Path:
        return self.home / "backup-paths.toml"

    def environment(self) -> dict[str, str]:
        """One environment for all: a scratch home, and every program's
        password where it looks for it."""
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "OFFSITE_STATE_DIR": str(self.home / "state"),
            "AITHER_MASTER_KEY": KEY,
            "GITHUB_TOKEN": "bench-token",
            "PASSWORD": PASSWORD,
            "PASSPHRASE": PASSWORD,
            "RESTIC_PASSWORD": PASSWORD,
            "BORG_PASSPHRASE": PASSWORD,
            "RUSTIC_PASSWORD": PASSWORD,
            "GNUPGHOME": str(self.home / "gnupg"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }


@dataclass(frozen=True)
class Commands:
    """What a tool runs in one world. `before` is not timed."""

    backup: Stages
    verify: Stages
    restore: Stages
    restored: Path
    before: Stages = field(default_factory=list)
    files: dict[Path, str] = field(default_factory=dict)
    # where backup and restore are started; the world's home where it is None
    backup_in: Path | None = None
    restore_in: Path | None = None


def config_text(data: Path, destination: str, fast: bool, github: str = "") -> str:
    level = 'compression = "fast"\n' if fast else ""
    return (
        f'system = "bench"\ndestination = "{destination}"\nkey = ["env:AITHER_MASTER_KEY"]\n{level}{github}'
        f'[tier1.all]\npaths = ["{data}"]\n'
    )


def offsite(world: World, fast: bool = False) -> Commands:
    run = [str(world.offsite), "-q", "--config", str(world.config)]
    return Commands(
        files={world.config: config_text(world.data, f"file://{world.repo}", fast)},
        backup=[[*run, "backup"]],
        verify=[[*run, "verify"]],
        restore=[[*run, "restore", "--target", str(world.target / "restored")]],
        restored=world.target / "restored" / str(world.data).lstrip("/"),
    )


def offsite_fast(world: World) -> Commands:
    return offsite(world, fast=True)


def python_pipeline(world: World) -> Commands:
    run = [str(world.python), str(HERE / "python_pipeline.py")]
    stored = str(world.repo / "backup.tar.gz.fernet")
    return Commands(
        backup=[[*run, "backup", str(world.data), stored]],
        verify=[[*run, "verify", stored]],
        restore=[[*run, "restore", stored, str(world.target)]],
        restored=world.target,
    )


def pipeline(world: World, pack: list[str], unpack: list[str], seal: list[str], open_: list[str]) -> Commands:
    """tar, a compressor and a cipher; `seal` is told where to write by its end."""
    stored = str(world.repo / "backup.sealed")
    return Commands(
        backup=[["tar", "-C", str(world.data), "-cf", "-", "."], pack, [*seal, stored]],
        verify=[[*open_, stored], unpack, ["tar", "-tf", "-"]],
        restore=[[*open_, stored], unpack, ["tar", "-C", str(world.target), "-xpf", "-"]],
        restored=world.target,
    )


def gzip_openssl(world: World) -> Commands:
    cipher = ["openssl", "enc", "-aes-256-ctr", "-pbkdf2", "-pass", "env:PASSWORD"]
    return pipeline(world, ["gzip", "-6"], ["gzip", "-dc"], [*cipher, "-out"], [*cipher, "-d", "-in"])


def age(world: World, pack: list[str], unpack: list[str]) -> Commands:
    key = str(world.home / "age.key")
    # age takes the recipient from the key file itself when it encrypts with -i
    found = pipeline(world, pack, unpack, ["age", "-e", "-i", key, "-o"], ["age", "-d", "-i", key])
    return Commands(**vars(found) | {"before": [["age-keygen", "-o", key]]})


def pigz_age(world: World) -> Commands:
    return age(world, ["pigz"], ["pigz", "-dc"])


def zstd_age(world: World) -> Commands:
    return age(world, ["zstd", "-T0", "-q", "-c"], ["zstd", "-dqc"])


def restic(world: World) -> Commands:
    run = ["restic", "-q", "-r", str(world.repo)]
    return Commands(
        before=[[*run, "init"]],
        backup=[[*run, "backup", "."]],
        verify=[[*run, "check", "--read-data"]],
        restore=[[*run, "restore", "latest", "--target", str(world.target)]],
        restored=world.target,
        backup_in=world.data,
    )


def borg(world: World) -> Commands:
    archive = f"{world.repo}::bench"
    return Commands(
        before=[["borg", "init", "-e", "repokey", str(world.repo)]],
        backup=[["borg", "create", archive, "."]],
        verify=[["borg", "check", "--verify-data", str(world.repo)]],
        restore=[["borg", "extract", archive]],
        restored=world.target,
        backup_in=world.data,
        restore_in=world.target,
    )


def rustic(world: World) -> Commands:
    run = [str(world.rustic), "--no-progress", "--log-level", "warn", "-r", str(world.repo)]
    return Commands(
        before=[[*run, "init"]],
        backup=[[*run, "backup", "."]],
        verify=[[*run, "check", "--read-data"]],
        restore=[[*run, "restore", "latest", str(world.target)]],
        restored=world.target,
        backup_in=world.data,
    )


def duplicity(world: World) -> Commands:
    run = ["duplicity", "--archive-dir", str(world.home / "archive"), "--tempdir", str(world.home / "tmp")]
    url, target = f"file://{world.repo}", str(world.target / "restored")
    return Commands(
        backup=[[*run, "--no-print-statistics", "full", str(world.data), url]],
        verify=[[*run, "verify", "--compare-data", url, str(world.data)]],
        restore=[[*run, "restore", url, target]],
        restored=world.target / "restored",
    )


@dataclass(frozen=True)
class Tool:
    """One line of the tables."""

    name: str
    label: str
    commands: object
    needs: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    # bytes of memory for each byte of data; only what keeps everything there
    memory: float = 0.0


TOOLS = [
    Tool("offsite", "offsite", offsite, version=("OFFSITE", "--version")),
    Tool("offsite-fast", "offsite, fast", offsite_fast),
    Tool("python", "Python pipeline", python_pipeline, version=("PYTHON", "--version"), memory=4.1),
    Tool("gzip", "tar, gzip, openssl", gzip_openssl, ("tar", "gzip", "openssl"), ("openssl", "version")),
    Tool("pigz", "tar, pigz, age", pigz_age, ("tar", "pigz", "age", "age-keygen"), ("pigz", "--version")),
    Tool("zstd", "tar, zstd, age", zstd_age, ("tar", "zstd", "age", "age-keygen"), ("zstd", "--version")),
    Tool("restic", "restic", restic, ("restic",), ("restic", "version")),
    Tool("borg", "borg", borg, ("borg",), ("borg", "--version")),
    Tool("rustic", "rustic", rustic, ("RUSTIC",), ("RUSTIC", "--version")),
    Tool("duplicity", "duplicity", duplicity, ("duplicity", "gpg"), ("duplicity", "--version")),
]
OURS = ("offsite", "offsite-fast")
VERBS = ("backup", "verify", "restore")
LABELS = {tool.name: tool.label for tool in TOOLS}


def program(word: str, world: World) -> str:
    """The path of a program that is not found through PATH."""
    return {"OFFSITE": str(world.offsite), "PYTHON": str(world.python), "RUSTIC": str(world.rustic)}.get(word, word)


def missing(tool: Tool, world: World) -> list[str]:
    return [word for word in tool.needs if not shutil.which(program(word, world))]


def version(tool: Tool, world: World) -> str:
    """The tool's own word about itself, without what follows the number."""
    if not tool.version:
        return ""
    words = [program(tool.version[0], world), *tool.version[1:]]
    done = subprocess.run(words, env=world.environment(), capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().split("\n")[0].split(" compiled")[0].split(", by")[0].split(" (Lib")[0].strip("* ")
