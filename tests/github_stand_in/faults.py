"""Faults on demand: the ways in which the network or GitHub itself misbehaves.

A fault acts around the real endpoint, never instead of it: "after" kinds let
the work happen and lose only the answer, which is the case that a backup agent
gets wrong most easily (GitHub cuts processing off at 10 s, so a 502 for a PUT
says nothing about whether the commit was made).
"""

import hashlib
import threading
import time
from urllib.parse import unquote

from repository import ZERO, now
from responses import ApiError, Response

COMMON = {"method": "*", "path_contains": "", "skip": 0, "times": 1}
STATUS = {"status": None, "message": "Injected fault", "headers": {}, "body": None}
# Kinds and their options; an option whose default is None must be given,
# except `body` (raw text in place of the JSON error).
KINDS = {
    "status": STATUS,
    "status_after": STATUS,
    "html": {"status": 502, "perform": False},
    "redirect": {"status": 301, "location": None},
    "protected_branch": {},
    "other_writer": {},
    "wrong_sha": {},
    "reset_before": {},
    "reset_during": {"bytes": 65_536},
    "reset_after": {},
    "silence": {"seconds": None},
    "silence_after": {"seconds": None},
    "slow_body": {"chunk": 1024, "delay": 0.05},
    "truncate": {"bytes": None, "reset": False},
    "over_long": {"bytes": 1},
    "flip": {"offset": None, "bit": 0},
}
HTML_PAGE = (
    "<!DOCTYPE html>\n<html><head><title>{status} {reason}</title></head>\n<body>"
    "<center><h1>{status} {reason}</h1></center><hr><center>nginx</center>"
    "</body></html>\n"
)
REASONS = {500: "Internal Server Error", 502: "Bad Gateway",
           503: "Service Unavailable", 504: "Gateway Time-out"}
PULL_REQUEST_RULE = (
    "Repository rule violations found\n\nChanges must be made through a pull request.\n\n"
)


class Fault:
    """One armed fault."""

    def __init__(self, given):
        kind = given.get("kind")
        if kind not in KINDS:
            raise ValueError(f"unknown fault kind: {kind}")
        allowed = {**COMMON, **KINDS[kind]}
        unknown = set(given) - set(allowed) - {"kind"}
        if unknown:
            raise ValueError(f"unknown options for {kind}: {sorted(unknown)}")
        self.options = {**allowed, **given}
        lacking = [k for k, v in self.options.items() if v is None and k != "body"]
        if lacking:
            raise ValueError(f"{kind} needs {lacking}")
        self.hits = 0

    def __getattr__(self, name):
        if name == "options" or name not in self.options:
            raise AttributeError(name)
        return self.options[name]

    def matches(self, method, target):
        """Whether this request is one that the fault is about. The path may be
        given as sent or with its percent signs decoded."""
        part = self.path_contains
        return self.method in ("*", method) and (part in target or part in unquote(target))


class FaultList:
    """Armed faults in order; the first that is ready takes the request."""

    def __init__(self):
        self._faults = []
        self._lock = threading.Lock()

    def add(self, faults):
        """Appends: a sequence of faults is met one request after the other."""
        with self._lock:
            self._faults += faults

    def clear(self):
        """Back to good weather."""
        with self._lock:
            self._faults.clear()

    def all(self):
        """Armed faults with what remains of `skip` and `times`, and `hits`."""
        with self._lock:
            return [{**fault.options, "hits": fault.hits} for fault in self._faults]

    def take(self, method, target):
        """The fault for this request, or None. A fault counts `skip` only on
        requests that no fault before it took."""
        with self._lock:
            for fault in self._faults:
                if fault.times == 0 or not fault.matches(method, target):
                    continue
                if fault.skip > 0:
                    fault.options["skip"] -= 1
                    continue
                fault.hits += 1
                if fault.times > 0:
                    fault.options["times"] -= 1
                return fault
        return None


def serve(exchange, fault):
    """Answers one request under a fault, or plainly when there is none."""
    kind = fault.kind if fault else None
    if kind == "reset_before":
        return exchange.reset()
    if kind == "reset_during":
        exchange.read_half(fault.bytes)
        return exchange.reset()
    exchange.read_body()
    if kind in INSTEAD:
        return INSTEAD[kind](exchange, fault)
    response = exchange.perform()
    if kind in AFTER:
        return AFTER[kind](exchange, fault, response)
    return exchange.send(response)


def _status_response(fault):
    headers = {name.lower(): str(value) for name, value in fault.headers.items()}
    if fault.body is not None:
        kind = headers.pop("content-type", "text/plain")
        return Response(fault.status, fault.body.encode(), headers, kind)
    return ApiError(fault.status, fault.message, headers=headers).response


def _status(exchange, fault, _response=None):
    exchange.send(_status_response(fault))


def _html(exchange, fault):
    """A proxy in front of the API answers HTML where a client expects JSON."""
    if fault.perform:
        exchange.perform()
    reason = REASONS.get(fault.status, "Error")
    page = HTML_PAGE.format(status=fault.status, reason=reason).encode()
    exchange.send(Response(fault.status, page, {}, "text/html; charset=utf-8"))


def _redirect(exchange, fault):
    """A renamed repository: 301 for reads, 307 for writes, with the new place.
    `{rest}` in the location stands for what followed /repos/OWNER/REPO."""
    target = exchange.request.target
    location = fault.location.replace("{rest}", "/".join([""] + target.split("/")[4:]))
    if location.startswith("/"):
        location = exchange.request.base_url + location
    reason = "Moved Permanently" if fault.status == 301 else "Temporary Redirect"
    value = {"message": reason, "url": location, "documentation_url": "https://docs.github.com/"}
    exchange.send(Response.of(fault.status, value, {"location": location}))


def _protected_branch(exchange, _fault):
    """What a ruleset answers to a direct commit."""
    path = "/repos/contents#create-or-update-file-contents"
    exchange.send(ApiError(409, PULL_REQUEST_RULE, path).response)


def _other_writer(exchange, _fault):
    """Somebody else's commit wins the race for the branch."""
    repository = exchange.stand_in.repository
    branch = exchange.request.json().get("branch") or repository.default_branch
    person = {"name": "Other Writer", "email": "other@example.invalid", "date": now()}
    with repository.write_lock:
        before = repository.read_ref(f"refs/heads/{branch}") or ZERO
        name = f"other-writer/{time.time_ns()}.txt"
        after = repository.commit_path(branch, name, b"other\n", "Other", person, person)
    path = "/repos/contents#create-or-update-file-contents"
    exchange.send(ApiError(409, f"is at {after} but expected {before}", path).response)


def _wrong_sha(exchange, _fault, response):
    """The commit was made, but the answer names another blob: as if the bytes
    had changed on the way in."""
    value = response.json()
    if isinstance(value.get("content"), dict):
        value["content"]["sha"] = hashlib.sha1(b"not what was sent").hexdigest()
    exchange.send(Response.of(response.status, value, response.headers))


def _slow_body(exchange, fault, response):
    exchange.send(response, chunk=fault.chunk, delay=fault.delay)


def _truncate(exchange, fault, response):
    """The connection ends in the middle of a download."""
    length = len(response.body)
    response.body = response.body[: fault.bytes]
    exchange.send(response, length=length)
    if fault.reset:
        exchange.reset()
    else:
        exchange.close()


def _over_long(exchange, fault, response):
    response.body += b"x" * fault.bytes
    exchange.send(response)


def _flip(exchange, fault, response):
    """Damage that TLS would not catch: bytes that changed in storage."""
    body = bytearray(response.body)
    body[fault.offset] ^= 1 << fault.bit
    response.body = bytes(body)
    exchange.send(response)


def _silence(exchange, fault, _response=None):
    """Says nothing, then hangs up."""
    exchange.wait(fault.seconds)
    exchange.close()


INSTEAD = {"status": _status, "html": _html, "redirect": _redirect, "silence": _silence,
           "protected_branch": _protected_branch, "other_writer": _other_writer}
AFTER = {"status_after": _status, "wrong_sha": _wrong_sha, "silence_after": _silence,
         "slow_body": _slow_body, "truncate": _truncate, "over_long": _over_long, "flip": _flip,
         "reset_after": lambda exchange, _fault, _response: exchange.reset()}
