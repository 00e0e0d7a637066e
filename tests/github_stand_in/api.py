"""Who may do what, and which endpoint answers."""

import hashlib
import re
import traceback
from urllib.parse import unquote

import contents
import git_data
import graphql
from control import RequestLog, Settings
from faults import FaultList
from responses import ApiError, Response

REPOSITORY_ID = 1296269
REPOSITORY = "/repos/repos#get-a-repository"
INPUT_TOO_LARGE = (
    "Sorry, your input was too large to process. Consider creating the {thing} in a local "
    "clone of the repository and then pushing it to GitHub."
)
OWNER_LINKS = ("followers", "following", "gists", "starred", "subscriptions", "orgs", "repos",
               "events", "received_events")
# Method, path below the repository, endpoint.
ROUTES = [
    ("GET", r"contents/?(.*)", contents.get),
    ("PUT", r"contents/(.+)", contents.put),
    ("DELETE", r"contents/(.+)", contents.delete),
    ("GET", r"git/trees/(.+)", git_data.get_tree),
    ("POST", r"git/trees", git_data.post_tree),
    ("GET", r"git/blobs/([^/]+)", git_data.get_blob),
    ("POST", r"git/blobs", git_data.post_blob),
    ("GET", r"git/commits/([^/]+)", git_data.get_commit),
    ("POST", r"git/commits", git_data.post_commit),
    ("GET", r"git/ref/(.+)", git_data.get_ref),
    ("POST", r"git/refs", git_data.post_ref),
    ("PATCH", r"git/refs/(.+)", git_data.patch_ref),
    ("DELETE", r"git/refs/(.+)", git_data.delete_ref),
]


class StandIn:
    """Everything that one running stand-in shares between connections."""

    def __init__(self, repository, owner, name, **settings):
        self.repository = repository
        self.owner = owner
        self.name = name
        self.node_id = f"R_{hashlib.sha1(f'{owner}/{name}'.encode()).hexdigest()[:12]}"
        self.settings = Settings(repository, **settings)
        self.faults = FaultList()
        self.log = RequestLog()
        # Without tokens to write with, any unlisted token will do.
        self.tokens, self.read_only_tokens, self.strangers = [], [], []

    def is_here(self, owner, name):
        """GitHub compares names without regard to case."""
        return (owner.lower(), name.lower()) == (self.owner.lower(), self.name.lower())

    def urls(self, request):
        """(API, web) addresses of the repository."""
        name = f"{self.owner}/{self.name}"
        return f"{request.base_url}/repos/{name}", f"https://github.com/{name}"

    def rights(self, request):
        """What the token may do: None (no token), or permissions. 401 for a
        token that is not one."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not token:
            return None
        if scheme.lower() not in ("bearer", "token"):
            raise ApiError(401, "Bad credentials")
        if token in self.strangers:
            return {"admin": False, "push": False, "pull": False}
        if token in self.read_only_tokens:
            return {**self.settings.permissions, "push": False, "admin": False}
        if self.tokens and token not in self.tokens:
            raise ApiError(401, "Bad credentials")
        return self.settings.permissions


def answer(stand_in, request):
    """The answer to one API request."""
    try:
        return _answer(stand_in, request)
    except ApiError as error:
        return error.response
    except Exception:  # a bug in here: say so to the test and on stderr
        traceback.print_exc()
        return ApiError(500, "The stand-in failed; see its stderr").response


def _answer(stand_in, request):
    if not request.headers.get("user-agent"):
        text = ("\r\nRequest forbidden by administrative rules. Please make sure your request "
                "has a User-Agent header.\r\n")
        return Response(403, text.encode(), {}, "text/html")
    # GitHub Enterprise Server serves the same API below /api/v3.
    path = re.sub(r"^/api(/v3(?=/)|(?=/graphql$))", "", request.path)
    rights = stand_in.rights(request)
    if path == "/graphql" and request.method == "POST":
        if rights is None:
            raise ApiError(401, "This endpoint requires you to be authenticated.")
        return graphql.answer(stand_in, request, rights["push"])
    found = re.match(r"/repos/([^/]+)/([^/]+)(?:/(.*))?\Z", path)
    # A renamed repository is redirected to its number.
    numbered = re.match(rf"/repositories/{REPOSITORY_ID}(?:/(.*))?\Z", path)
    if not found and not numbered:
        raise ApiError(404, "Not Found")
    if found and not stand_in.is_here(*map(unquote, found.groups()[:2])):
        raise ApiError(404, "Not Found", REPOSITORY)
    _authorize(stand_in, request, rights)
    rest = (found or numbered).groups()[-1] or ""
    if request.body is None:
        thing = "file" if rest.startswith("contents/") else "blob"
        raise ApiError(422, INPUT_TOO_LARGE.format(thing=thing), contents.WRITE)
    if not rest and request.method == "GET":
        return Response.of(200, describe(stand_in, request, rights))
    for method, pattern, endpoint in ROUTES:
        match = re.fullmatch(pattern, rest)
        if match and method == request.method:
            return endpoint(stand_in, request, *map(unquote, match.groups()))
    raise ApiError(404, "Not Found")


def _authorize(stand_in, request, rights):
    """401 without a token, 404 for a private repository that the token cannot
    see, 403 for a write that it may not make, 403 when archived.

    GitHub answers 404 to a read of a private repository without any token; here
    that is a 401 too, so that a client which drops its token is noticed."""
    writes, settings = request.method != "GET", stand_in.settings
    if rights is None:
        if writes or settings.private:
            raise ApiError(401, "Requires authentication" if writes else "Bad credentials")
        return
    if settings.private and not rights["pull"]:
        raise ApiError(404, "Not Found", REPOSITORY)
    if writes and not rights["push"]:
        raise ApiError(403, "Resource not accessible by personal access token", contents.WRITE,
                       headers={"x-accepted-github-permissions": "contents=write"})
    if writes and settings.archived:
        raise ApiError(403, "Repository was archived so is read-only.", contents.WRITE)


def describe(stand_in, request, rights):
    """The repository object; only the fields that clients are known to need."""
    settings, (api, web) = stand_in.settings, stand_in.urls(request)
    user = f"{request.base_url}/users/{stand_in.owner}"
    owner = {
        "login": stand_in.owner, "id": 1, "node_id": "O_1", "gravatar_id": "", "url": user,
        "avatar_url": "https://avatars.githubusercontent.com/u/1?v=4",
        "html_url": f"https://github.com/{stand_in.owner}",
        "type": "Organization", "site_admin": False,
        **{f"{link}_url": f"{user}/{link}" for link in OWNER_LINKS},
    }
    value = {
        "id": REPOSITORY_ID, "node_id": stand_in.node_id, "name": stand_in.name,
        "full_name": f"{stand_in.owner}/{stand_in.name}", "owner": owner,
        "private": settings.private,
        "visibility": "private" if settings.private else "public",
        "archived": settings.archived, "disabled": False, "fork": False, "description": None,
        "default_branch": stand_in.repository.default_branch,
        "size": stand_in.repository.disk_kilobytes(), "url": api, "html_url": web,
        "clone_url": f"{web}.git",
    }
    if rights is not None:
        value["permissions"] = rights
    return value
