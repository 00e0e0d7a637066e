"""Tests of the stand-in's endpoints: `python3 -m unittest discover -s tests/github_stand_in`."""

import base64
import json
import os
import tempfile
import threading
import unittest

from support import RAW, StandInCase, blob_sha, git

ZERO = "0" * 40
COMMITTER = {"name": "Backup <Agent>", "email": "agent@example.com", "date": "2026-01-02T03:04:05Z"}
CAS = "mutation($input: UpdateRefsInput!) { updateRefs(input: $input) { clientMutationId } }"


class RepositoryAndAccess(StandInCase):
    def test_repository_object(self):
        status, value, headers = self.call("GET", "/repos/ACME/backups")
        self.assertEqual(status, 200)
        self.assertEqual(value["full_name"], "acme/backups")
        self.assertEqual(value["default_branch"], "main")
        self.assertTrue(value["private"])
        self.assertEqual(value["permissions"], {"admin": False, "push": True, "pull": True})
        for name in ("x-github-request-id", "x-ratelimit-remaining", "x-ratelimit-reset"):
            self.assertTrue(headers[name])

    def test_who_may_do_what(self):
        self.refused(401, "Bad credentials", self.call("GET", "contents/x", token="bad"))
        self.refused(401, "Bad credentials", self.call("GET", "contents/x", token=None))
        self.refused(404, "Not Found", self.call("GET", "contents/x", token="stranger"))
        self.refused(404, "Not Found", self.call("GET", "/repos/acme/other"))
        answer = self.call("PUT", "contents/x", {"message": "m", "content": ""}, token="reader")
        self.refused(403, "Resource not accessible by personal access token", answer)
        self.assertEqual(answer[2]["X-Accepted-GitHub-Permissions"], "contents=write")
        self.assertEqual(self.call("GET", "contents/README.md", token="reader")[0], 200)
        status, body, _ = self.call("GET", "contents/x", user_agent=None)
        self.assertEqual((status, b"User-Agent" in body), (403, True))

    def test_settings(self):
        before = self.control("GET", "settings")
        self.addCleanup(self.control, "POST", "settings", before)
        self.control("POST", "settings", {"archived": True})
        self.refused(403, "Repository was archived so is read-only.", self.put("y", b"y"))
        self.control("POST", "settings", {"archived": False, "protected_branch": True})
        self.assertEqual(self.put("y", b"y")[0], 409)
        self.control("POST", "settings", {"private": False, "permissions": {"push": False}})
        self.assertEqual(self.call("GET", "contents/README.md", token=None)[0], 200)
        self.assertEqual(self.put("y", b"y")[0], 403)
        self.assertEqual(self.call("POST", "/_control/settings", {"nonsense": 1})[0], 400)

    def test_requests_are_recorded(self):
        self.call("GET", "contents/README.md?ref=main", x_github_api_version="2022-11-28")
        self.put("recorded", b"12345", branch="nope")
        first, second = self.control("GET", "requests")
        self.assertEqual((first["method"], first["status"]), ("GET", 200))
        self.assertEqual(first["path"], "/repos/acme/backups/contents/README.md?ref=main")
        self.assertEqual(first["headers"]["x-github-api-version"], "2022-11-28")
        self.assertEqual((second["status"], second["authorization"]), (404, True))
        self.assertGreater(second["request_bytes"], 20)


class Contents(StandInCase):
    def test_create_read_update_delete(self):
        status, value, _ = self.put("a/b%20c/d%231%3F.bin", b"one", committer=COMMITTER)
        self.assertEqual((status, value["content"]["path"]), (201, "a/b c/d#1?.bin"))
        self.assertEqual(value["content"]["sha"], blob_sha(b"one"))
        self.assertEqual(value["commit"]["committer"]["name"], "Backup Agent")
        path = "contents/a/b%20c/d%231%3F.bin"
        value = self.call("GET", path)[1]
        self.assertEqual((value["type"], value["encoding"], value["size"]), ("file", "base64", 3))
        self.assertEqual(base64.b64decode(value["content"]), b"one")
        for kind in ("application/vnd.github.raw+json", "application/vnd.github.v3.raw"):
            self.assertEqual(self.call("GET", path, accept=kind)[1], b"one")
        new = {"message": "m", "content": "dHdv", "sha": value["sha"]}
        status, updated, _ = self.call("PUT", path, new)
        self.assertEqual((status, updated["content"]["sha"]), (200, blob_sha(b"two")))
        self.refused(409, f"a/b c/d#1?.bin does not match {value['sha']}",
                     self.call("PUT", path, new))
        old = self.call("GET", f"{path}?ref={updated['commit']['parents'][0]['sha']}", **RAW)
        self.assertEqual(old[1], b"one")
        gone = {"message": "m", "sha": blob_sha(b"two")}
        self.assertEqual(self.call("DELETE", path, gone)[0], 200)
        self.assertEqual(self.call("GET", path)[0], 404)
        self.assertEqual(self.call("GET", "contents/a")[0], 404)

    def test_refused_writes(self):
        self.put("once", b"1")
        self.refused(422, 'Invalid request.\n\n"sha" wasn\'t supplied.', self.put("once", b"2"))
        self.refused(404, "Branch nope not found", self.put("new", b"1", branch="nope"))
        self.refused(422, "content is not valid Base64", self.put("new", b"", content="%%%"))
        self.refused(422, 'Invalid request.\n\n"message" wasn\'t supplied.',
                     self.put("new", b"", message=""))
        self.refused(422, "path contains a malformed path component", self.put("a/../b", b""))
        self.assertEqual(self.put("once/below", b"")[0], 422)
        self.assertEqual(self.call("PUT", "contents/new", "{")[0], 400)
        self.assertEqual(self.call("GET", "contents/new")[0], 404)

    def test_sizes_and_listing(self):
        self.addCleanup(self.control, "POST", "settings",
                        {"inline_limit": 1 << 20, "raw_limit": 100 << 20, "directory_limit": 1000})
        self.put("big", b"x" * 2000)
        self.control("POST", "settings", {"inline_limit": 1000})
        value = self.call("GET", "contents/big")[1]
        self.assertEqual((value["content"], value["encoding"]), ("", "none"))
        self.control("POST", "settings", {"raw_limit": 1999})
        status, value, _ = self.call("GET", "contents/big", **RAW)
        self.assertEqual((status, value["errors"][0]["code"]), (403, "too_large"))
        for name in ("z/1", "z/2", "z/3/4"):
            self.put(name, b"z")
        listed = self.call("GET", "contents/z")[1]
        self.assertEqual([each["type"] for each in listed], ["file", "file", "dir"])
        self.control("POST", "settings", {"directory_limit": 2})
        self.assertEqual(len(self.call("GET", "contents/z/", **RAW)[1]), 2)

    def test_concurrent_writers(self):
        def write(number):
            case = Contents("test_concurrent_writers")
            case.setUp()
            self.statuses.append(case.put(f"together/{number}", b"%d" % number)[0])
            case.connection.close()

        self.statuses = []
        threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.statuses, [201] * 12)
        self.assertEqual(len(self.call("GET", "contents/together")[1]), 12)

    def test_chunked_body_and_keep_alive(self):
        body = json.dumps({"message": "m", "content": "YQ=="}).encode()
        for number in range(3):
            self.connection.request(
                "PUT", f"/repos/acme/backups/contents/chunked/{number}", iter([body[:7], body[7:]]),
                {"authorization": "token good", "user-agent": "t", "expect": "100-continue"},
                encode_chunked=True)
            self.assertEqual(self.connection.getresponse().read()[:1], b"{")
        self.assertTrue(all(each["chunked"] and each["status"] == 201
                            for each in self.control("GET", "requests")))


class LargeObjects(StandInCase):
    FLAGS = [*StandInCase.FLAGS, "--body-limit", "42000000"]

    def test_30_megabytes_there_and_back(self):
        data = base64.b64encode(os.urandom(22_500_000))
        self.assertEqual(len(data), 30_000_000)
        status, value, _ = self.put("large/object", data)
        self.assertEqual((status, value["content"]["sha"]), (201, blob_sha(data)))
        self.assertTrue(self.call("GET", "contents/large/object", **RAW)[1] == data)
        self.assertEqual(self.call("GET", "contents/large/object")[1]["encoding"], "none")
        status, value, _ = self.put("large/more", b"x" * 32_000_000)
        self.assertEqual(status, 422)
        self.assertTrue(value["message"].startswith("Sorry, your input was too large to process."))
        self.assertEqual(self.call("GET", "contents/large/more")[0], 404)


class EmptyRepository(StandInCase):
    FLAGS = [*StandInCase.FLAGS, "--empty", "--default-branch", "trunk"]

    def test_empty_then_first_commit_then_restart(self):
        self.refused(404, "This repository is empty.", self.call("GET", "contents/x"))
        for method, path in (("GET", "git/trees/HEAD"), ("POST", "git/trees"),
                             ("POST", "git/blobs"), ("GET", "git/ref/heads/trunk")):
            self.refused(409, "Git Repository is empty.", self.call(method, path, {}))
        self.assertEqual(self.put("x", b"x", branch="nope")[0], 404)
        status, value, _ = self.put("x", b"x")
        self.assertEqual((status, value["commit"]["parents"]), (201, []))
        self.connection.close()
        self.stop()
        self.start()
        self.setUp()
        self.assertEqual(self.call("GET", "contents/x?ref=trunk", **RAW)[1], b"x")


class GitData(StandInCase):
    def head(self):
        return self.call("GET", "git/ref/heads/main")[1]["object"]["sha"]

    def orphan(self, message):
        """A commit without parents that holds one file of the present tree."""
        entry = {"path": "kept/file", "mode": "100644", "type": "blob", "sha": blob_sha(b"kept")}
        status, tree, _ = self.call("POST", "git/trees", {"tree": [entry]})
        self.assertEqual(status, 201)
        body = {"message": message, "tree": tree["sha"], "parents": []}
        return self.call("POST", "git/commits", body)[1]["sha"]

    def test_trees(self):
        self.put("t/one", b"1")
        self.put("t/u/two", b"22")
        value = self.call("GET", "git/trees/main?recursive=1")[1]
        sizes = {each["path"]: each.get("size") for each in value["tree"]}
        self.assertEqual((sizes["t/u/two"], sizes["t/u"], value["truncated"]), (2, None, False))
        flat = self.call("GET", "git/trees/HEAD")[1]["tree"]
        tree = next(each for each in flat if each["path"] == "t")
        self.assertEqual((tree["type"], tree["mode"]), ("tree", "040000"))
        below = self.call("GET", f"git/trees/{tree['sha']}?recursive=1")[1]
        self.assertEqual([each["path"] for each in below["tree"]], ["one", "u", "u/two"])
        self.control("POST", "settings", {"tree_limit": 2})
        self.addCleanup(self.control, "POST", "settings", {"tree_limit": 100_000})
        value = self.call("GET", "git/trees/main?recursive=1")[1]
        self.assertEqual((len(value["tree"]), value["truncated"]), (2, True))
        self.assertEqual(self.call("GET", "git/trees/nope")[0], 404)

    def test_blobs(self):
        body = {"content": "a2VwdA==", "encoding": "base64"}
        status, value, _ = self.call("POST", "git/blobs", body)
        self.assertEqual((status, value["sha"]), (201, blob_sha(b"kept")))
        self.assertEqual(self.call("GET", f"git/blobs/{value['sha']}", **RAW)[1], b"kept")
        self.assertEqual(self.call("GET", f"git/blobs/{value['sha']}")[1]["content"], "a2VwdA==\n")

    def test_squash_with_rest(self):
        self.put("kept/file", b"kept")
        before, after = self.head(), self.orphan("squashed")
        path = "git/refs/heads/main"
        self.refused(422, "Update is not a fast forward", self.call("PATCH", path, {"sha": after}))
        self.control("POST", "settings", {"append_only": True})
        self.assertEqual(self.call("PATCH", path, {"sha": after, "force": True})[0], 422)
        self.control("POST", "settings", {"append_only": False})
        self.assertEqual(self.call("PATCH", path, {"sha": after, "force": True})[0], 200)
        self.assertEqual(self.call("GET", "contents/kept/file", **RAW)[1], b"kept")
        status, old, _ = self.call("GET", f"contents/kept/file?ref={before[:9]}")
        self.assertEqual((status, old["sha"]), (200, blob_sha(b"kept")))
        self.assertEqual(self.call("GET", f"git/commits/{after}")[1]["parents"], [])

    def test_refs(self):
        head = self.head()
        new = {"ref": "refs/heads/side/one", "sha": head}
        self.assertEqual(self.call("POST", "git/refs", new)[0], 201)
        self.refused(422, "Reference already exists", self.call("POST", "git/refs", new))
        self.assertEqual(self.put("only-here", b"1", branch="side/one")[0], 201)
        self.assertEqual(self.call("GET", "contents/only-here?ref=side/one")[0], 200)
        self.assertEqual(self.call("DELETE", "git/refs/heads/side/one")[0], 204)
        self.assertEqual(self.call("GET", "git/ref/heads/side/one")[0], 404)

    def test_compare_and_swap(self):
        self.put("kept/file", b"kept")
        node = self.call("GET", "/repos/acme/backups")[1]["node_id"]
        query = '{ repository(owner: "acme", name: "backups") { id } }'
        value = self.call("POST", "/graphql", {"query": query})[1]
        self.assertEqual(value["data"]["repository"]["id"], node)
        before, after = self.head(), self.orphan("swapped")
        main = {"name": "refs/heads/main", "beforeOid": ZERO, "afterOid": after, "force": True}
        made = {"name": "refs/heads/made", "beforeOid": ZERO, "afterOid": after}

        def swap(*updates):
            given = {"repositoryId": node, "refUpdates": updates, "clientMutationId": "1"}
            body = {"query": CAS, "variables": {"input": given}}
            return self.call("POST", "/graphql", body)[1]

        self.assertIn("expected", swap(made, main)["errors"][0]["message"])
        self.assertEqual(self.call("GET", "git/ref/heads/made")[0], 404)
        self.assertEqual(self.head(), before)
        main["beforeOid"] = before
        self.assertIn("errors", swap({**main, "force": False}))
        self.assertEqual(swap(made, main), {"data": {"updateRefs": {"clientMutationId": "1"}}})
        self.assertEqual(self.head(), after)
        inline = (f'mutation {{ updateRefs(input: {{repositoryId: "{node}", refUpdates: [{{name: '
                  f'"refs/heads/made", beforeOid: "{after}", afterOid: "{ZERO}"}}]}}) '
                  '{ clientMutationId } }')
        self.assertNotIn("errors", self.call("POST", "/graphql", {"query": inline})[1])
        self.assertEqual(self.call("GET", "git/ref/heads/made")[0], 404)


class RealGit(StandInCase):
    def test_fsck_and_clone(self):
        for name in ("a", "a.b", "a-dir/x", "a-dir/y/z", "ä/ü"):
            path = name.replace("ä", "%C3%A4").replace("ü", "%C3%BC")
            self.assertEqual(self.put(path, name.encode(), committer=COMMITTER)[0], 201)
        gone = {"message": "m", "sha": blob_sha(b"a-dir/x")}
        self.assertEqual(self.call("DELETE", "contents/a-dir/x", gone)[0], 200)
        self.assertNotIn("error", git("-C", self.bare, "fsck", "--strict", "--full"))
        with tempfile.TemporaryDirectory() as folder:
            git("clone", "-q", self.bare, folder)
            for name in ("a", "a.b", "a-dir/y/z", "ä/ü"):
                with open(os.path.join(folder, name), "rb") as file:
                    self.assertEqual(file.read(), name.encode())
            self.assertFalse(os.path.exists(os.path.join(folder, "a-dir/x")))
            self.assertEqual(len(git("-C", folder, "log", "--format=%H").split()), 7)


if __name__ == "__main__":
    unittest.main()
