"""A bare git repository on disk: refs, commits and what names resolve to."""

import os
import re
import tempfile
import threading
from datetime import datetime, timezone

from objects import EMPTY_TREE, FILE_MODE, ObjectStore

ZERO = "0" * 40
# Loose objects are all that `objects.py` reads, so nothing may pack them, not
# even a test that pushes.
CONFIG = """[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
[gc]
\tauto = 0
[receive]
\tautogc = false
\tunpackLimit = 1000000000
"""
REF_NAME = re.compile(r"refs/(heads|tags)/[A-Za-z0-9._/-]+\Z")


class RefConflict(Exception):
    """A compare-and-swap of a ref that found another value."""


def valid_ref(name):
    """A cautious subset of `git check-ref-format`, which also keeps a name
    from leaving the `refs` folder."""
    if not isinstance(name, str) or not REF_NAME.match(name) or ".." in name:
        return False
    return all(
        part and not part.startswith(".") and not part.endswith((".", ".lock"))
        for part in name.split("/")
    )


def identity_line(person):
    """`Name <mail> seconds zone` as git writes it; fsck refuses angle brackets
    and line ends inside, so they are dropped as git itself drops them."""
    name = re.sub(r"[<>\n\0]", "", person["name"]).strip() or "unknown"
    mail = re.sub(r"[<>\n\0 ]", "", person["email"])
    stamp = int(datetime.fromisoformat(person["date"]).timestamp())
    return f"{name} <{mail}> {stamp} +0000"


def parse_identity(line):
    """The inverse of `identity_line`, in the form of the API's JSON."""
    name, mail, stamp = re.match(r"(.*) <(.*)> (\d+) ", line).groups()
    date = datetime.fromtimestamp(int(stamp), timezone.utc)
    return {"name": name, "email": mail, "date": date.strftime("%Y-%m-%dT%H:%M:%SZ")}


def now():
    """This second, as GitHub writes times."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Repository:
    """`write_lock` is held around every read-modify-write of a ref: the
    stand-in serialises writers; only a fault makes one lose the race."""

    def __init__(self, folder, default_branch=None):
        self.folder = folder
        self.write_lock = threading.RLock()
        for name in ("refs/heads", "refs/tags"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)
        if not os.path.exists(os.path.join(folder, "config")):
            self._replace("config", CONFIG)
        self.objects = ObjectStore(os.path.join(folder, "objects"))
        if default_branch or not os.path.exists(os.path.join(folder, "HEAD")):
            self.set_default_branch(default_branch or "main")

    def _replace(self, name, text):
        """Writes a small file by rename, so that git never reads half of it."""
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.folder)
        with os.fdopen(handle, "w") as out:
            out.write(text)
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)

    @property
    def default_branch(self):
        """What HEAD names: kept there, so that `git clone` checks it out."""
        with open(os.path.join(self.folder, "HEAD")) as head:
            return head.read().strip().removeprefix("ref: refs/heads/")

    def set_default_branch(self, branch):
        """Points HEAD at a branch, whether it exists or not."""
        if not valid_ref(f"refs/heads/{branch}"):
            raise ValueError(f"not a branch name: {branch}")
        self._replace("HEAD", f"ref: refs/heads/{branch}\n")

    def read_ref(self, name):
        """The id a full ref name (`refs/heads/main`) holds, or None."""
        if not valid_ref(name):
            return None
        try:
            with open(os.path.join(self.folder, name)) as ref:
                return ref.read().strip()
        except OSError:
            return None

    def is_empty(self):
        """True before the first commit: several endpoints answer 409 then."""
        return not any(files for _, _, files in os.walk(os.path.join(self.folder, "refs")))

    def update_refs(self, changes):
        """Applies [(name, before, after)] all or nothing. `before` None means
        whatever it was; ZERO means absent, and as `after` it deletes."""
        with self.write_lock:
            for name, before, _ in changes:
                if before is not None and (self.read_ref(name) or ZERO) != before:
                    raise RefConflict(name)
            for name, _, after in changes:
                if after != ZERO:
                    self._replace(name, after + "\n")
                elif self.read_ref(name):
                    os.remove(os.path.join(self.folder, name))

    def resolve(self, ref):
        """The object id for a branch, tag, full ref, HEAD or (short) id."""
        if ref == "HEAD":
            ref = self.default_branch
        for name in (f"refs/heads/{ref}", f"refs/tags/{ref}", ref, f"refs/{ref}"):
            found = self.read_ref(name)
            if found:
                return found
        return self.objects.expand(ref)

    def tree_of(self, sha):
        """The tree of a commit, or the tree itself."""
        if sha == EMPTY_TREE or self.objects.has(sha, "tree"):
            return sha
        return self.read_commit(sha)["tree"]

    def read_commit(self, sha):
        """{sha, tree, parents, author, committer, message}."""
        head, _, message = self.objects.read(sha, "commit").decode().partition("\n\n")
        fields = [line.split(" ", 1) for line in head.split("\n")]
        single = {key: value for key, value in fields if key != "parent"}
        return {
            "sha": sha,
            "tree": single["tree"],
            "parents": [value for key, value in fields if key == "parent"],
            "author": parse_identity(single["author"]),
            "committer": parse_identity(single["committer"]),
            "message": message,
        }

    def write_commit(self, tree, parents, message, author, committer):
        """Stores a commit and returns its id."""
        lines = [f"tree {tree}"] + [f"parent {parent}" for parent in parents]
        lines += [f"author {identity_line(author)}", f"committer {identity_line(committer)}"]
        text = "\n".join(lines) + "\n\n" + message.replace("\0", "")
        return self.objects.write("commit", text.encode())

    def is_ancestor(self, old, new):
        """Whether going from `old` to `new` is a fast-forward."""
        seen, waiting = set(), [new]
        while waiting:
            sha = waiting.pop()
            if sha == old:
                return True
            if sha not in seen:
                seen.add(sha)
                waiting += self.read_commit(sha)["parents"]
        return False

    def commit_path(self, branch, path, content, message, author, committer):
        """Commits one file (or its removal, when `content` is None) on top of
        a branch and returns the commit. The caller holds `write_lock`."""
        ref = f"refs/heads/{branch}"
        head = self.read_ref(ref)
        tree = self.tree_of(head) if head else EMPTY_TREE
        entry = None
        if content is not None:
            entry = (FILE_MODE, self.objects.write("blob", content))
        tree = self.objects.with_path(tree, path, entry)
        commit = self.write_commit(tree, [head] if head else [], message, author, committer)
        self.update_refs([(ref, None, commit)])
        return commit

    def disk_kilobytes(self):
        """What GitHub calls `size`: the repository on disk in KB."""
        total = 0
        for folder, _, files in os.walk(self.objects.folder):
            for name in files:
                try:
                    total += os.path.getsize(os.path.join(folder, name))
                except OSError:
                    pass  # a temporary file that was renamed meanwhile
        return total // 1024
