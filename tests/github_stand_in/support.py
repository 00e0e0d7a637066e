"""What the tests of the stand-in share: starting one and talking to it."""

import base64
import hashlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
RAW = {"accept": "application/vnd.github.raw+json"}


def blob_sha(data):
    """The id git gives these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def git(*words):
    """Runs git and returns its stdout; fails loudly."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(["git", *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"git {words}: {done.stdout}{done.stderr}")
    return done.stdout


class StandInCase(unittest.TestCase):
    """Starts one stand-in for each class, with `FLAGS`."""

    FLAGS = ["--token", "good", "--read-only-token", "reader", "--no-access-token", "stranger"]

    @classmethod
    def setUpClass(cls):
        cls.state = tempfile.TemporaryDirectory()
        cls.bare = os.path.join(cls.state.name, "repo.git")
        cls.start()

    @classmethod
    def tearDownClass(cls):
        cls.stop()
        cls.state.cleanup()

    @classmethod
    def start(cls):
        command = [sys.executable, os.path.join(HERE, "server.py"), "--exit-with-stdin"]
        cls.process = subprocess.Popen(
            [*command, "--state", cls.state.name, *cls.FLAGS],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        line = cls.process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        cls.port = int(line.rsplit(":", 1)[1])

    @classmethod
    def stop(cls):
        cls.process.stdin.close()
        assert cls.process.wait(5) == 0
        cls.process.stdout.close()

    def setUp(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        self.addCleanup(self.connection.close)
        self.control("DELETE", "faults")
        self.control("DELETE", "requests")

    def call(self, method, path, body=None, token="good", **headers):
        """(status, JSON or bytes, headers) for one request. A path that does
        not start with `/` is below the repository."""
        if not path.startswith("/"):
            path = "/repos/acme/backups/" + path
        sent = {"user-agent": "test", **{k.replace("_", "-"): v for k, v in headers.items()}}
        if token:
            sent["authorization"] = f"Bearer {token}"
        sent = {name: value for name, value in sent.items() if value}
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        self.connection.request(method, path, body, sent)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.headers.get("content-type", "").startswith("application/json"):
            data = json.loads(data)
        return answer.status, data, answer.headers

    def control(self, method, name, body=None):
        """One control request, which must succeed."""
        status, value, _ = self.call(method, f"/_control/{name}", body)
        self.assertEqual(status, 200, value)
        return value

    def put(self, path, data, **body):
        """PUTs a file."""
        body = {"message": "m", "content": base64.b64encode(data).decode(), **body}
        return self.call("PUT", f"contents/{path}", body)

    def refused(self, status, message, answer):
        """Checks an error answer's status and words."""
        self.assertEqual((answer[0], answer[1]["message"]), (status, message))

    def fault(self, kind, method="*", path_contains="", **options):
        """Arms one fault."""
        given = {"kind": kind, "method": method, "path_contains": path_contains, **options}
        self.control("POST", "faults", [given])
