"""`/repos/{owner}/{repo}/git/...`: trees, blobs, commits and refs.

Imitates docs.github.com/rest/git. Everything here answers 409 on an empty
repository: the first commit has to come through the Contents API.
"""

import base64
import binascii
import re

from contents import RAW, commit_json, person, wrapped_base64
from objects import EMPTY_TREE, MissingObject, PathConflict, kind_of
from repository import ZERO, valid_ref
from responses import ApiError, Response, missing_field

TREES, BLOBS, COMMITS, REFS = "/git/trees", "/git/blobs", "/git/commits", "/git/refs"
MODES = ("100644", "100755", "040000", "120000")
FORCE_RULE = "Repository rule violations found\n\nCannot force-push to this branch\n\n"
DELETE_RULE = "Repository rule violations found\n\nCannot delete this branch\n\n"


def refuse_empty(stand_in, documentation):
    """409 before the first commit."""
    if stand_in.repository.is_empty():
        raise ApiError(409, "Git Repository is empty.", documentation)


def get_tree(stand_in, request, name):
    """A tree by branch, commit or tree id. Any value of `recursive`, even 0,
    means recursive. More entries than the limit: `truncated`."""
    repository = stand_in.repository
    refuse_empty(stand_in, TREES + "#get-a-tree")
    try:
        start = repository.resolve(name)
        tree = repository.tree_of(start) if start else None
    except MissingObject:
        tree = None
    if tree is None:
        raise ApiError(404, "Not Found", TREES + "#get-a-tree")
    recursive = "recursive" in request.query
    entries = list(repository.objects.walk(tree, recursive))
    limit = stand_in.settings.tree_limit
    truncated = recursive and len(entries) > limit
    shown = entries[:limit] if truncated else entries
    sha = start if stand_in.settings.tree_answer_sha == "commit" else tree
    api, _ = stand_in.urls(request)
    return Response.of(200, {
        "sha": sha,
        "url": f"{api}/git/trees/{sha}",
        "tree": [_tree_entry(stand_in, api, *entry) for entry in shown],
        "truncated": truncated,
    })


def _tree_entry(stand_in, api, path, mode, sha):
    """One line of a tree; only blobs have a size."""
    kind = kind_of(mode)
    entry = {"path": path, "mode": mode.zfill(6), "type": kind, "sha": sha}
    if kind == "blob":
        entry["size"] = stand_in.repository.objects.describe(sha)[1]
    return {**entry, "url": f"{api}/git/{kind}s/{sha}"}


def post_tree(stand_in, request):
    """A new tree from entries on top of `base_tree` (a tree or a commit), or
    from nothing. `sha: null` removes a path; `content` stores a blob."""
    repository, documentation = stand_in.repository, TREES + "#create-a-tree"
    refuse_empty(stand_in, documentation)
    body = request.json()
    if not isinstance(body.get("tree"), list):
        raise missing_field("tree", documentation)
    try:
        base = body.get("base_tree")
        tree = repository.tree_of(base) if base else EMPTY_TREE
        for item in body["tree"]:
            entry = _entry_of(repository, item)
            tree = repository.objects.with_path(tree, item["path"], entry)
    except MissingObject as error:
        raise ApiError(422, "GitRPC::BadObjectState", documentation) from error
    except (PathConflict, KeyError, TypeError, ValueError) as error:
        raise ApiError(422, "Invalid tree info", documentation) from error
    # with_path wrote the tree unless there was nothing to write.
    repository.objects.write_tree(repository.objects.read_tree(tree))
    api, _ = stand_in.urls(request)
    lines = [
        _tree_entry(stand_in, api, *entry) for entry in repository.objects.walk(tree, False)
    ]
    value = {"sha": tree, "url": f"{api}/git/trees/{tree}", "tree": lines, "truncated": False}
    return Response.of(201, value)


def _entry_of(repository, item):
    """(mode, id) for one entry of a POSTed tree, None for a removal."""
    if not item["path"] or any(part in ("", ".", "..", ".git") for part in item["path"].split("/")):
        raise ValueError(item["path"])
    if "content" in item:
        return ("100644", repository.objects.write("blob", item["content"].encode()))
    if item["sha"] is None:
        return None
    if item["mode"] not in MODES:
        raise ValueError(item["mode"])
    mode = item["mode"].lstrip("0")
    if not repository.objects.has(item["sha"], kind_of(mode)):
        raise MissingObject(item["sha"])
    return (mode, item["sha"])


def get_blob(stand_in, request, sha):
    """A blob as JSON or, by media type, raw; up to 100 MB."""
    objects = stand_in.repository.objects
    refuse_empty(stand_in, BLOBS)
    if not objects.has(sha, "blob"):
        raise ApiError(404, "Not Found", BLOBS + "#get-a-blob")
    if objects.describe(sha)[1] > stand_in.settings.raw_limit:
        errors = [{"resource": "Blob", "field": "data", "code": "too_large"}]
        raise ApiError(403, "This blob is too large to fetch via the API.", BLOBS, errors)
    data = objects.read(sha, "blob")
    raw = RAW.search(request.headers.get("accept", ""))
    if raw:
        return Response(200, data, {}, raw.group(0) + "; charset=utf-8")
    api, _ = stand_in.urls(request)
    return Response.of(200, {
        "sha": sha, "node_id": f"B_{sha}", "size": len(data), "url": f"{api}/git/blobs/{sha}",
        "content": wrapped_base64(data), "encoding": "base64",
    })


def post_blob(stand_in, request):
    """Stores a blob that nothing refers to yet."""
    documentation = BLOBS + "#create-a-blob"
    refuse_empty(stand_in, documentation)
    body = request.json()
    if not isinstance(body.get("content"), str):
        raise missing_field("content", documentation)
    data = body["content"].encode()
    if body.get("encoding") == "base64":
        try:
            data = base64.b64decode(re.sub(rb"[\r\n]", b"", data), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ApiError(422, "content is not valid Base64", documentation) from error
    sha = stand_in.repository.objects.write("blob", data)
    api, _ = stand_in.urls(request)
    return Response.of(201, {"sha": sha, "url": f"{api}/git/blobs/{sha}"})


def get_commit(stand_in, request, sha):
    """One commit object."""
    refuse_empty(stand_in, COMMITS)
    if not stand_in.repository.objects.has(sha, "commit"):
        raise ApiError(404, "Not Found", COMMITS + "#get-a-commit-object")
    return Response.of(200, commit_json(stand_in, request, sha))


def post_commit(stand_in, request):
    """A new commit; `parents: []` starts a history afresh (squashing)."""
    repository, documentation = stand_in.repository, COMMITS + "#create-a-commit"
    refuse_empty(stand_in, documentation)
    body = request.json()
    for name in ("message", "tree"):
        if not body.get(name):
            raise missing_field(name, documentation)
    if not repository.objects.has(body["tree"], "tree"):
        raise ApiError(422, "Tree SHA does not exist", documentation)
    parents = body.get("parents") or []
    if not all(repository.objects.has(parent, "commit") for parent in parents):
        message = "Parent SHA does not exist or is not a commit object"
        raise ApiError(422, message, documentation)
    author = person(stand_in, body.get("author"), documentation)
    committer = person(stand_in, body.get("committer") or body.get("author"), documentation)
    sha = repository.write_commit(body["tree"], parents, body["message"], author, committer)
    return Response.of(201, commit_json(stand_in, request, sha))


def _ref_json(stand_in, request, name, sha):
    api, _ = stand_in.urls(request)
    return {
        "ref": name, "node_id": f"REF_{name}", "url": f"{api}/git/{name}",
        "object": {"sha": sha, "type": "commit", "url": f"{api}/git/commits/{sha}"},
    }


def get_ref(stand_in, request, name):
    """One ref (`heads/main`)."""
    refuse_empty(stand_in, REFS + "#get-a-reference")
    sha = stand_in.repository.read_ref(f"refs/{name}")
    if sha is None:
        raise ApiError(404, "Not Found", REFS + "#get-a-reference")
    return Response.of(200, _ref_json(stand_in, request, f"refs/{name}", sha))


def post_ref(stand_in, request):
    """Creates a ref; one that exists is a 422, not a 409."""
    repository, documentation = stand_in.repository, REFS + "#create-a-reference"
    refuse_empty(stand_in, documentation)
    body = request.json()
    name, sha = body.get("ref"), body.get("sha")
    if not valid_ref(name):
        raise ApiError(422, "Reference name must start with 'refs/'.", documentation)
    with repository.write_lock:
        if repository.read_ref(name):
            raise ApiError(422, "Reference already exists", documentation)
        if not repository.objects.has(sha, "commit"):
            raise ApiError(422, "Object does not exist", documentation)
        repository.update_refs([(name, ZERO, sha)])
    return Response.of(201, _ref_json(stand_in, request, name, sha))


def patch_ref(stand_in, request, name):
    """Moves a ref. `force` allows anything: nothing is compared, so a commit
    that came in between is lost (GraphQL's `updateRefs` does compare)."""
    repository, documentation = stand_in.repository, REFS + "#update-a-reference"
    refuse_empty(stand_in, documentation)
    body, ref = request.json(), f"refs/{name}"
    with repository.write_lock:
        old = repository.read_ref(ref)
        if old is None:
            raise ApiError(422, "Reference does not exist", documentation)
        if not repository.objects.has(body.get("sha"), "commit"):
            raise ApiError(422, "Object does not exist", documentation)
        if not repository.is_ancestor(old, body["sha"]):
            if body.get("force") is not True:
                raise ApiError(422, "Update is not a fast forward", documentation)
            if stand_in.settings.append_only:
                raise ApiError(422, FORCE_RULE, documentation)
        repository.update_refs([(ref, None, body["sha"])])
    return Response.of(200, _ref_json(stand_in, request, ref, body["sha"]))


def delete_ref(stand_in, request, name):
    """Removes a ref; the default branch stays."""
    repository, documentation = stand_in.repository, REFS + "#delete-a-reference"
    refuse_empty(stand_in, documentation)
    with repository.write_lock:
        if repository.read_ref(f"refs/{name}") is None:
            raise ApiError(422, "Reference does not exist", documentation)
        if stand_in.settings.append_only:
            raise ApiError(422, DELETE_RULE, documentation)
        if name == f"heads/{repository.default_branch}":
            raise ApiError(422, "Cannot delete the default branch", documentation)
        repository.update_refs([(f"refs/{name}", None, ZERO)])
    return Response(204)
