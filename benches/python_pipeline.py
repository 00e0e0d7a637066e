"""The earlier system's pipeline, as a peer: tarfile, gzip at level 6, and one
Fernet token from `cryptography`, each over the whole buffer in memory.

    python_pipeline.py backup FOLDER FILE | verify FILE | restore FILE FOLDER

It is written as that system was, not as fast as Python could be: what has to be
beaten is what people have. The key is in AITHER_MASTER_KEY.
"""

import io
import os
import sys
import tarfile
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken


def fernet() -> Fernet:
    key = os.environ.get("AITHER_MASTER_KEY")
    if not key:
        sys.exit("error: there is no key\nhint: set AITHER_MASTER_KEY to a Fernet key")
    return Fernet(key)


def backup(folder: Path, stored: Path) -> None:
    """Seals the folder into one file, which gets its name when it is complete."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=6, format=tarfile.PAX_FORMAT) as tar:
        tar.add(folder, arcname=".")
    token = fernet().encrypt(archive.getvalue())
    partial = stored.with_suffix(".partial")
    partial.write_bytes(token)
    partial.rename(stored)


def opened(stored: Path) -> tarfile.TarFile:
    """The archive inside, authenticated as a whole before a byte of it is used."""
    try:
        plain = fernet().decrypt(stored.read_bytes())
    except InvalidToken:
        sys.exit(f"error: {stored} does not open\nhint: it is damaged, or this is not its key")
    return tarfile.open(fileobj=io.BytesIO(plain), mode="r:gz")


def verify(stored: Path) -> int:
    """Reads every byte of every file; returns how many files there are."""
    count = 0
    with opened(stored) as tar:
        for member in tar:
            if member.isfile():
                content = tar.extractfile(member)
                while content.read(1 << 20):
                    pass
                count += 1
    return count


def restore(stored: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with opened(stored) as tar:
        # this archive is our own: modes and owners come back as they were
        if hasattr(tarfile, "fully_trusted_filter"):
            tar.extractall(folder, filter="fully_trusted")
        else:
            tar.extractall(folder)


def main(args: list[str]) -> None:
    match args:
        case ["backup", folder, stored]:
            backup(Path(folder), Path(stored))
        case ["verify", stored]:
            if verify(Path(stored)) == 0:
                sys.exit(f"error: {stored} holds no file\nhint: was the right folder backed up?")
        case ["restore", stored, folder]:
            restore(Path(stored), Path(folder))
        case ["--help"]:
            print(__doc__)
        case _:
            sys.exit(
                "error: which command?\nhint: python_pipeline.py backup FOLDER FILE, verify FILE, or restore FILE FOLDER"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
