"""Loose git objects: written and read with hashlib and zlib alone.

The stand-in keeps a real object store so that `git fsck` and `git clone` can
judge what a client stored, and so that the blob SHA-1 it answers is the true one.
"""

import hashlib
import os
import tempfile
import zlib

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
FILE_MODE = "100644"
DIRECTORY_MODE = "40000"
STEP = 1 << 20


class MissingObject(KeyError):
    """No object of that id, or not of the kind that was asked for."""


class PathConflict(ValueError):
    """A path runs through a file, or would replace a whole directory."""


def kind_of(mode):
    """The object kind that a tree entry of this mode points at."""
    if mode == DIRECTORY_MODE:
        return "tree"
    return "commit" if mode == "160000" else "blob"


class ObjectStore:
    """The `objects` folder of a bare repository. Loose objects only: do not
    repack a stand-in's repository while it runs (clone it first)."""

    def __init__(self, folder):
        self.folder = folder
        self._sizes = {}
        for name in ("info", "pack"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)

    def _path(self, sha):
        return os.path.join(self.folder, sha[:2], sha[2:])

    def write(self, kind, data):
        """Stores an object and returns its id. Renamed into place, so that a
        `git clone` beside a running stand-in never sees half an object."""
        header = b"%s %d\0" % (kind.encode(), len(data))
        digest = hashlib.sha1(header)
        digest.update(data)
        sha = digest.hexdigest()
        path = self._path(sha)
        if os.path.exists(path):
            return sha
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.folder)
        with os.fdopen(handle, "wb") as out:
            # Level 1: tests wait for this, nobody pays for the space.
            packer = zlib.compressobj(1)
            out.write(packer.compress(header))
            view = memoryview(data)
            for start in range(0, len(data), STEP):
                out.write(packer.compress(view[start : start + STEP]))
            out.write(packer.flush())
        os.chmod(temporary, 0o444)
        os.rename(temporary, path)
        return sha

    def read(self, sha, kind=None):
        """The bytes of an object; `kind` refuses any other kind."""
        try:
            with open(self._path(sha), "rb") as packed:
                whole = zlib.decompress(packed.read())
        except OSError as error:
            raise MissingObject(sha) from error
        header, _, data = whole.partition(b"\0")
        if kind and header.split(b" ")[0] != kind.encode():
            raise MissingObject(sha)
        return data

    def describe(self, sha):
        """(kind, size) from the header alone, so that listing a tree of large
        blobs does not inflate them."""
        if sha not in self._sizes:
            try:
                with open(self._path(sha), "rb") as packed:
                    start = zlib.decompressobj().decompress(packed.read(256), 64)
            except OSError as error:
                raise MissingObject(sha) from error
            kind, size = start.partition(b"\0")[0].split(b" ")
            self._sizes[sha] = (kind.decode(), int(size))
        return self._sizes[sha]

    def has(self, sha, kind):
        """Whether an object of that kind is there."""
        try:
            return isinstance(sha, str) and self.describe(sha)[0] == kind
        except MissingObject:
            return False

    def expand(self, prefix):
        """The full id for a prefix of at least 7 digits, else None: GitHub too
        takes abbreviated commit ids where it takes a ref."""
        if not (7 <= len(prefix) <= 40 and all(c in "0123456789abcdef" for c in prefix)):
            return None
        try:
            names = os.listdir(os.path.join(self.folder, prefix[:2]))
        except OSError:
            return None
        found = [name for name in names if name.startswith(prefix[2:])]
        return prefix[:2] + found[0] if len(found) == 1 else None

    def read_tree(self, sha):
        """{name: (mode, id)} of one tree."""
        if sha == EMPTY_TREE:
            return {}
        data, entries, at = self.read(sha, "tree"), {}, 0
        while at < len(data):
            space = data.index(b" ", at)
            end = data.index(b"\0", space)
            name = data[space + 1 : end].decode("utf-8", "surrogateescape")
            entries[name] = (data[at:space].decode(), data[end + 1 : end + 21].hex())
            at = end + 21
        return entries

    def write_tree(self, entries):
        """Stores a tree; git sorts a directory as if its name ended in `/`."""

        def order(item):
            name, (mode, _) = item
            raw = name.encode("utf-8", "surrogateescape")
            return raw + b"/" if mode == DIRECTORY_MODE else raw

        return self.write(
            "tree",
            b"".join(
                mode.encode() + b" " + name.encode("utf-8", "surrogateescape") + b"\0"
                + bytes.fromhex(sha)
                for name, (mode, sha) in sorted(entries.items(), key=order)
            ),
        )

    def find(self, tree, path):
        """(mode, id) of a path below a tree, or None. "" is the tree itself."""
        entry = (DIRECTORY_MODE, tree)
        for name in path.split("/") if path else []:
            if entry is None or entry[0] != DIRECTORY_MODE:
                return None
            entry = self.read_tree(entry[1]).get(name)
        return entry

    def with_path(self, tree, path, entry):
        """The tree after setting `path` to (mode, id), or removing it when
        `entry` is None. Directories that become empty vanish, as in git."""
        name, _, rest = path.partition("/")
        entries = self.read_tree(tree)
        old = entries.get(name)
        if rest:
            if old and old[0] != DIRECTORY_MODE and entry:
                raise PathConflict(path)
            below = old[1] if old and old[0] == DIRECTORY_MODE else EMPTY_TREE
            new = self.with_path(below, rest, entry)
            entry = None if new == EMPTY_TREE else (DIRECTORY_MODE, new)
        elif old and entry and old[0] == DIRECTORY_MODE != entry[0]:
            raise PathConflict(path)
        if entry is None:
            entries.pop(name, None)
        else:
            entries[name] = entry
        return self.write_tree(entries)

    def walk(self, tree, recursive, prefix=""):
        """(path, mode, id) of every entry, directories before their contents."""
        for name, (mode, sha) in self.read_tree(tree).items():
            yield prefix + name, mode, sha
            if recursive and mode == DIRECTORY_MODE:
                yield from self.walk(sha, True, prefix + name + "/")
