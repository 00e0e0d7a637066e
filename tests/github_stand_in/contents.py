"""`/repos/{owner}/{repo}/contents/{path}`: read, create, update and delete files.

Imitates docs.github.com/rest/repos/contents; statuses and words for a missing
or wrong `sha` are as measured against GitHub and published in public issues.
"""

import base64
import binascii
import re
from datetime import datetime
from urllib.parse import quote

from objects import DIRECTORY_MODE, PathConflict, kind_of
from faults import PULL_REQUEST_RULE
from repository import now, valid_ref
from responses import ApiError, Response, missing_field

READ = "/repos/contents#get-repository-content"
WRITE = "/repos/contents#create-or-update-file-contents"
DELETE = "/repos/contents#delete-a-file"
RAW = re.compile(r"application/vnd\.github(\.v3)?\.raw(\+json)?\b")
TYPES = {DIRECTORY_MODE: "dir", "120000": "symlink", "160000": "submodule"}
TOO_LARGE = (
    "This API returns blobs up to 100 MB in size. The requested blob is too large to fetch "
    "via the API, but you can always clone the repository via Git in order to obtain it."
)


def wrapped_base64(data):
    """Base64 in lines of 60 characters, as GitHub sends it: a client that
    decodes strictly must take the line ends out first."""
    lines = (base64.b64encode(data[at : at + 45]) for at in range(0, len(data), 45))
    return b"".join(line + b"\n" for line in lines).decode()


def check_path(path):
    """Refuses the paths that git refuses."""
    for part in path.split("/"):
        if part in ("", ".", "..") or part.lower() == ".git" or "\0" in part:
            raise ApiError(422, "path contains a malformed path component", WRITE)


def describe(stand_in, request, path, entry, ref):
    """The fields that every answer about a path shares."""
    mode, sha = entry
    kind = kind_of(mode)
    api, web = stand_in.urls(request)
    url = f"{api}/contents/{quote(path)}?ref={quote(ref, safe='')}"
    git = f"{api}/git/{kind}s/{sha}"
    folder = "tree" if kind == "tree" else "blob"
    html = f"{web}/{folder}/{quote(ref)}/{quote(path)}"
    download = f"{web}/raw/{quote(ref)}/{quote(path)}" if kind == "blob" else None
    size = stand_in.repository.objects.describe(sha)[1] if kind == "blob" else 0
    return {
        "name": path.rpartition("/")[2], "path": path, "sha": sha, "size": size,
        "url": url, "html_url": html, "git_url": git, "download_url": download,
        "type": TYPES.get(mode, "file"),
        "_links": {"self": url, "git": git, "html": html},
    }


def get(stand_in, request, path):
    """A file as JSON or raw, or a directory as a list."""
    repository = stand_in.repository
    path = path.strip("/")
    if repository.is_empty():
        raise ApiError(404, "This repository is empty.", READ)
    ref = request.query.get("ref") or repository.default_branch
    start = repository.resolve(ref)
    if start is None:
        raise ApiError(404, f"No commit found for the ref {ref}", READ)
    entry = repository.objects.find(repository.tree_of(start), path)
    if entry is None:
        raise ApiError(404, "Not Found", READ)
    if entry[0] == DIRECTORY_MODE:
        return _directory(stand_in, request, path, entry, ref)
    return _file(stand_in, request, path, entry, ref)


def _directory(stand_in, request, path, entry, ref):
    """At most 1,000 entries and nothing that says so: that is why a client
    must list through git/trees."""
    prefix = path + "/" if path else ""
    children = list(stand_in.repository.objects.read_tree(entry[1]).items())
    listed = [
        describe(stand_in, request, prefix + name, child, ref)
        for name, child in children[: stand_in.settings.directory_limit]
    ]
    if "vnd.github.object" in request.headers.get("accept", ""):
        whole = describe(stand_in, request, path, entry, ref)
        return Response.of(200, {**whole, "entries": listed})
    return Response.of(200, listed)


def _file(stand_in, request, path, entry, ref):
    """JSON with content up to 1 MB, JSON without content above, raw bytes up to
    100 MB, and 403 `too_large` beyond."""
    limits = stand_in.settings
    answer = describe(stand_in, request, path, entry, ref)
    if answer["size"] > limits.raw_limit:
        errors = [{"resource": "Blob", "field": "data", "code": "too_large"}]
        raise ApiError(403, TOO_LARGE, READ, errors)
    raw = RAW.search(request.headers.get("accept", ""))
    if raw:
        data = stand_in.repository.objects.read(entry[1], "blob")
        return Response(200, data, {}, raw.group(0) + "; charset=utf-8")
    answer.update(content="", encoding="none")
    if answer["size"] <= limits.inline_limit:
        data = stand_in.repository.objects.read(entry[1], "blob")
        answer.update(content=wrapped_base64(data), encoding="base64")
    return Response.of(200, answer)


def _decode(body):
    """The file's bytes. GitHub tolerates line ends in the base64."""
    content = body.get("content")
    if content is None:
        raise missing_field("content", WRITE)
    try:
        if "\n" in content:
            content = content.replace("\r", "").replace("\n", "")
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise ApiError(422, "content is not valid Base64", WRITE) from error


def person(stand_in, given, documentation=WRITE):
    """An author or committer; without one GitHub uses the token's owner."""
    if not given:
        owner = stand_in.owner
        return {"name": owner, "email": f"{owner}@users.noreply.github.com", "date": now()}
    for name in ("name", "email"):
        if not isinstance(given.get(name), str) or not given[name]:
            raise missing_field(name, documentation)
    date = given.get("date") or now()
    try:
        datetime.fromisoformat(date)
    except (ValueError, TypeError) as error:
        raise ApiError(422, "Invalid request.\n\ndate is not a timestamp.") from error
    return {"name": given["name"], "email": given["email"], "date": date}


def commit_json(stand_in, request, sha):
    """A commit as the Git database API shows it."""
    commit = stand_in.repository.read_commit(sha)
    api, web = stand_in.urls(request)

    def link(parent):
        html = f"{web}/commit/{parent}"
        return {"sha": parent, "url": f"{api}/git/commits/{parent}", "html_url": html}

    return {
        **link(sha),
        "node_id": f"C_{sha}",
        "author": commit["author"],
        "committer": commit["committer"],
        "message": commit["message"],
        "tree": {"sha": commit["tree"], "url": f"{api}/git/trees/{commit['tree']}"},
        "parents": [link(parent) for parent in commit["parents"]],
        "verification": {"verified": False, "reason": "unsigned", "signature": None,
                         "payload": None, "verified_at": None},
    }


def _branch_of(stand_in, body, documentation):
    """The branch that a write goes to. An unknown one is a 404 even before
    `sha` is looked at; into an empty repository the first commit makes it."""
    repository = stand_in.repository
    branch = body.get("branch") or repository.default_branch
    if not valid_ref(f"refs/heads/{branch}"):
        raise ApiError(404, f"Branch {branch} not found", documentation)
    first = repository.is_empty() and branch == repository.default_branch
    if not first and repository.read_ref(f"refs/heads/{branch}") is None:
        raise ApiError(404, f"Branch {branch} not found", documentation)
    if stand_in.settings.protected_branch and branch == repository.default_branch:
        raise ApiError(409, PULL_REQUEST_RULE, documentation)
    return branch


def _entry_at(repository, branch, path):
    head = repository.read_ref(f"refs/heads/{branch}")
    return repository.objects.find(repository.tree_of(head), path) if head else None


def put(stand_in, request, path):
    """Creates a file (201) or replaces the blob named by `sha` (200). A `sha`
    for a path that is not there is ignored."""
    repository, body = stand_in.repository, request.json()
    check_path(path)
    if not body.get("message"):
        raise missing_field("message", WRITE)
    content = _decode(body)
    committer = person(stand_in, body.get("committer") or body.get("author"))
    author = person(stand_in, body.get("author") or body.get("committer"))
    with repository.write_lock:
        branch = _branch_of(stand_in, body, WRITE)
        old = _entry_at(repository, branch, path)
        if old and not body.get("sha"):
            raise missing_field("sha", WRITE)
        if old and body["sha"] != old[1]:
            raise ApiError(409, f"{path} does not match {body['sha']}", WRITE)
        try:
            commit = repository.commit_path(
                branch, path, content, body["message"], author, committer
            )
        except PathConflict as error:
            raise ApiError(422, f"{path} is in the way of a file or directory", WRITE) from error
        new = _entry_at(repository, branch, path)
    answer = {
        "content": describe(stand_in, request, path, new, branch),
        "commit": commit_json(stand_in, request, commit),
    }
    return Response.of(200 if old else 201, answer)


def delete(stand_in, request, path):
    """Removes a file in a new commit; the blob stays in the history."""
    repository, body = stand_in.repository, request.json() or dict(request.query)
    check_path(path)
    for name in ("message", "sha"):
        if not body.get(name):
            raise missing_field(name, DELETE)
    committer = person(stand_in, body.get("committer") or body.get("author"))
    author = person(stand_in, body.get("author") or body.get("committer"))
    with repository.write_lock:
        branch = _branch_of(stand_in, body, DELETE)
        old = _entry_at(repository, branch, path)
        if old is None or old[0] == DIRECTORY_MODE:
            raise ApiError(404, "Not Found", DELETE)
        if body["sha"] != old[1]:
            raise ApiError(409, f"{path} does not match {body['sha']}", DELETE)
        commit = repository.commit_path(branch, path, None, body["message"], author, committer)
    answer = {"content": None, "commit": commit_json(stand_in, request, commit)}
    return Response.of(200, answer)
