"""The control API (`/_control/...`): what a test turns and reads."""

import json
import threading
import time

from faults import Fault
from responses import Response

MEBIBYTE = 1 << 20
RECORDED_HEADERS = ("accept", "user-agent", "x-github-api-version", "content-type")


class Settings:
    """What a test may change while the stand-in runs. The limits are
    GitHub's; tests lower them to see behaviour that would need gigabytes."""

    DEFAULTS = {
        "private": True,
        "archived": False,
        "permissions": {"admin": False, "push": True, "pull": True},
        # A ruleset on the default branch: changes only through pull requests.
        "protected_branch": False,
        # A ruleset that blocks force pushes and deletions.
        "append_only": False,
        # git/trees: at most 100,000 entries, then `truncated: true`.
        "tree_limit": 100_000,
        # contents of a directory: at most 1,000 entries, without a warning.
        "directory_limit": 1_000,
        # JSON with content up to 1 MB, raw up to 100 MB, nothing above.
        "inline_limit": MEBIBYTE,
        "raw_limit": 100 * MEBIBYTE,
        # Practical ceiling of a PUT body: users report 35 to 40 MB.
        "body_limit": 35_000_000,
        # What `sha` a tree asked for by commit or branch carries: unconfirmed.
        "tree_answer_sha": "commit",
    }

    def __init__(self, repository, **given):
        self._repository = repository
        self._values = {**self.DEFAULTS, **given}

    def __getattr__(self, name):
        try:
            return self._values[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def update(self, changes):
        """Applies changes; an unknown name or wrong type is a mistake in the
        test and is refused whole."""
        changes = dict(changes)
        branch = changes.pop("default_branch", None)
        for name, value in changes.items():
            if name not in self._values:
                raise ValueError(f"unknown setting: {name}")
            if type(value) is not type(self.DEFAULTS[name]):
                raise ValueError(f"wrong type for setting: {name}")
        if branch is not None:
            self._repository.set_default_branch(branch)
        if "permissions" in changes:
            changes["permissions"] = {**self.permissions, **changes["permissions"]}
        self._values.update(changes)

    def all(self):
        """Every setting with its value."""
        return {**self._values, "default_branch": self._repository.default_branch}


class RequestLog:
    """Every request seen, in order of arrival."""

    def __init__(self):
        self._entries = []
        self._lock = threading.Lock()

    def start(self, method, target, headers):
        """Notes a request when its headers are there. `status` stays null for
        one that never gets an answer."""
        entry = {
            "method": method,
            "path": target,
            "status": None,
            "request_bytes": 0,
            "authorization": bool(headers.get("authorization")),
            "headers": {name: headers.get(name) for name in RECORDED_HEADERS},
            "chunked": "chunked" in headers.get("transfer-encoding", "").lower(),
            "fault": None,
            "received_at": time.time(),
        }
        with self._lock:
            self._entries.append(entry)
        return entry

    def all(self):
        """The requests so far."""
        with self._lock:
            return [dict(entry) for entry in self._entries]

    def clear(self):
        """Forgets them."""
        with self._lock:
            self._entries.clear()


def answer(stand_in, method, path, body):
    """Answers a control request. Needs no token: it is not part of GitHub."""
    try:
        value = json.loads(body) if body else None
        if path == "/_control/faults":
            return _faults(stand_in, method, value)
        if path == "/_control/requests" and method in ("GET", "DELETE"):
            if method == "DELETE":
                stand_in.log.clear()
            return Response.of(200, stand_in.log.all())
        if path == "/_control/settings" and method in ("GET", "POST"):
            if method == "POST":
                stand_in.settings.update(value)
            return Response.of(200, stand_in.settings.all())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return Response.of(400, {"message": str(error)})
    return Response.of(404, {"message": f"no such control: {method} {path}"})


def _faults(stand_in, method, value):
    """POST adds to the list, DELETE empties it; all answer what is armed."""
    if method == "POST":
        stand_in.faults.add([Fault(each) for each in value])
    elif method == "DELETE":
        stand_in.faults.clear()
    elif method != "GET":
        return Response.of(405, {"message": "GET, POST or DELETE"})
    return Response.of(200, stand_in.faults.all())
