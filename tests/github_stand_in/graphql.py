"""`POST /graphql`: the `updateRefs` mutation and the look-up of a node id.

`updateRefs` is GitHub's only compare-and-swap of a branch (docs.github.com/
graphql/reference): `beforeOid` must hold for every ref or none is changed.
Errors come as HTTP 200 with an `errors` list. The wording of a failed
comparison is not documented: clients must not depend on it.
"""

import re

from repository import ZERO, RefConflict, valid_ref
from responses import Response

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_$][A-Za-z0-9_]*|-?\d+|[{}()\[\]:]')
FIELDS = {"name", "beforeOid", "afterOid", "force"}


class GraphqlError(Exception):
    """An entry of the `errors` list."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def parse_value(tokens, variables):
    """One GraphQL input value: literals, lists, objects and variables."""
    token = tokens.pop(0)
    if token == "{":
        value = {}
        while tokens[0] != "}":
            name = tokens.pop(0)
            if tokens.pop(0) != ":":
                raise ValueError("expected a colon")
            value[name] = parse_value(tokens, variables)
        tokens.pop(0)
        return value
    if token == "[":
        items = []
        while tokens[0] != "]":
            items.append(parse_value(tokens, variables))
        tokens.pop(0)
        return items
    if token.startswith("$"):
        return variables.get(token[1:])
    if token.startswith('"'):
        return re.sub(r"\\(.)", r"\1", token[1:-1])
    return {"true": True, "false": False, "null": None}.get(token, token)


def arguments(query, name, variables):
    """The arguments of the field `name` in a query, or None without it."""
    found = re.search(rf"\b{name}\s*\(", query)
    if not found:
        return None
    tokens = TOKEN.findall(query[found.end() :])
    values = {}
    while tokens and tokens[0] != ")":
        key = tokens.pop(0)
        if tokens.pop(0) != ":":
            raise ValueError("expected a colon")
        values[key] = parse_value(tokens, variables)
    return values


def answer(stand_in, request, may_push):
    """Answers a query; `may_push` is what the token's permissions allow."""
    body = request.json()
    query, variables = body.get("query") or "", body.get("variables") or {}
    field = "updateRefs" if re.search(r"\bupdateRefs\b", query) else "repository"
    try:
        given = arguments(query, field, variables)
        if given is None:
            raise ValueError("only updateRefs and repository are imitated")
        if field == "repository":
            data = _repository(stand_in, given)
        else:
            data = update_refs(stand_in, given.get("input") or {}, may_push)
    except GraphqlError as error:
        return _failed(field, error.kind, str(error))
    except (ValueError, IndexError) as error:
        return Response.of(200, {"errors": [{"message": f"Parse error: {error}"}]})
    return Response.of(200, {"data": {field: data}})


def _failed(field, kind, message):
    error = {"type": kind, "path": [field], "message": message,
             "locations": [{"line": 1, "column": 1}]}
    return Response.of(200, {"data": {field: None}, "errors": [error]})


def _repository(stand_in, given):
    """`repository(owner:, name:) { id }`, the id that a mutation needs."""
    owner, name = str(given.get("owner")), str(given.get("name"))
    if not stand_in.is_here(owner, name):
        message = f"Could not resolve to a Repository with the name '{owner}/{name}'."
        raise GraphqlError("NOT_FOUND", message)
    return {"id": stand_in.node_id}


def update_refs(stand_in, given, may_push):
    """Checks every update, then makes them all, or none."""
    repository, settings = stand_in.repository, stand_in.settings
    if given.get("repositoryId") != stand_in.node_id:
        message = f"Could not resolve to a node with the global id of '{given.get('repositoryId')}'"
        raise GraphqlError("NOT_FOUND", message)
    if not may_push:
        raise GraphqlError("FORBIDDEN", "Resource not accessible by personal access token")
    if settings.archived:
        raise GraphqlError("UNPROCESSABLE", "Repository was archived so is read-only.")
    updates = given.get("refUpdates")
    if not isinstance(updates, list) or not updates:
        raise GraphqlError("UNPROCESSABLE", "refUpdates must not be empty")
    with repository.write_lock:
        changes = [_checked(repository, settings, update) for update in updates]
        try:
            repository.update_refs(changes)
        except RefConflict as error:
            message = f"Reference {error} does not point at the expected object"
            raise GraphqlError("UNPROCESSABLE", message) from error
    return {"clientMutationId": given.get("clientMutationId")}


def _checked(repository, settings, update):
    """(name, before, after) of one update, once its rules hold."""
    name, after = update.get("name"), update.get("afterOid")
    before = update.get("beforeOid")
    if set(update) - FIELDS or not valid_ref(name) or not isinstance(after, str):
        raise GraphqlError("UNPROCESSABLE", f"Invalid reference update: {name}")
    old = repository.read_ref(name)
    if before is not None and before != (old or ZERO):
        message = f"Reference {name} is at {old or ZERO} but expected {before}"
        raise GraphqlError("UNPROCESSABLE", message)
    if after == ZERO:
        if settings.append_only or name == f"refs/heads/{repository.default_branch}":
            raise GraphqlError("UNPROCESSABLE", f"Cannot delete {name}")
    elif not repository.objects.has(after, "commit"):
        raise GraphqlError("UNPROCESSABLE", f"Object does not exist: {after}")
    elif old and not repository.is_ancestor(old, after):
        if update.get("force") is not True:
            raise GraphqlError("UNPROCESSABLE", "Update is not a fast forward")
        if settings.append_only:
            raise GraphqlError("UNPROCESSABLE", "Cannot force-push to this branch")
    return name, before, after
