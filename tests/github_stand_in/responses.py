"""What travels between the HTTP layer and the endpoints."""

import json
from dataclasses import dataclass, field

DOCUMENTATION = "https://docs.github.com/rest"


@dataclass
class Request:
    """One request with its whole body. `body` is None when it was larger than
    the limit: it was read and thrown away so that the client hears the answer."""

    method: str
    target: str
    path: str
    query: dict
    headers: object
    base_url: str
    body: bytes | None = b""

    def json(self):
        """The body as an object; 400 with GitHub's words when it is not one."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as error:
            raise ApiError(400, "Problems parsing JSON") from error
        if not isinstance(value, dict):
            raise ApiError(400, "Body should be a JSON object")
        return value


@dataclass
class Response:
    """One answer."""

    status: int
    body: bytes = b""
    headers: dict = field(default_factory=dict)
    content_type: str = "application/json; charset=utf-8"

    @classmethod
    def of(cls, status, value, headers=None):
        """A JSON answer."""
        return cls(status, json.dumps(value).encode(), dict(headers or {}))

    def json(self):
        """The answer's own JSON, for a fault that rewrites it."""
        return json.loads(self.body)


class ApiError(Exception):
    """An error answer in GitHub's form: message, documentation_url, status."""

    def __init__(self, status, message, documentation="", errors=None, headers=None):
        super().__init__(message)
        value = {"message": message}
        if errors:
            value["errors"] = errors
        value["documentation_url"] = DOCUMENTATION + documentation
        value["status"] = str(status)
        self.response = Response.of(status, value, headers)


def missing_field(name, documentation=""):
    """422 in the words of the Contents API for a field that is not there."""
    return ApiError(422, f'Invalid request.\n\n"{name}" wasn\'t supplied.', documentation)
