"""Tests of every fault kind: what the client sees, and what was really done."""

import http.client
import json
import time
import unittest

import faults
from support import RAW, StandInCase, blob_sha


class Faults(StandInCase):
    def exists(self, path):
        """Whether a file is there, over a connection of its own."""
        self.connection.close()
        return self.call("GET", f"contents/{path}")[0] == 200

    def test_status_forms_of_rate_limits(self):
        text = "You have exceeded a secondary rate limit. Please wait a few minutes."
        self.fault("status", "PUT", "limited", status=403, message=text,
                   headers={"Retry-After": "2", "X-RateLimit-Remaining": "0"})
        self.fault("status", "PUT", "limited", status=429, body="slow down", times=2)
        status, value, headers = self.put("limited", b"1")
        self.assertEqual((status, value["message"], headers["retry-after"]), (403, text, "2"))
        self.assertEqual(headers.get_all("x-ratelimit-remaining"), ["0"])
        self.assertEqual(self.put("limited", b"1")[1], b"slow down")
        self.assertEqual(self.put("limited", b"1")[0], 429)
        self.assertFalse(self.exists("limited"))
        self.assertEqual(self.put("limited", b"1")[0], 201)

    def test_status_after_is_a_lost_reply(self):
        self.fault("status_after", "PUT", status=502)
        self.assertEqual(self.put("lost-reply", b"1")[0], 502)
        self.assertTrue(self.exists("lost-reply"))

    def test_skip_times_and_matching(self):
        self.fault("status", "PUT", "a b", skip=1, times=-1, status=500)
        self.assertEqual([self.put("a%20b", b"1")[0], self.put("a%20b", b"1")[0],
                          self.put("a%20b", b"1")[0]], [201, 500, 500])
        self.assertEqual(self.put("other", b"1")[0], 201)
        self.assertEqual(self.control("GET", "faults")[0]["hits"], 2)
        kinds = [each["fault"] for each in self.control("GET", "requests")]
        self.assertEqual(kinds, [None, "status", "status", None])
        for wrong in ({"kind": "nonsense"}, {"kind": "status"}, {"kind": "flip", "offest": 1}):
            self.assertEqual(self.call("POST", "/_control/faults", [wrong])[0], 400)

    def test_resets(self):
        large = b"x" * 3_000_000
        for kind, stored in (("reset_before", False), ("reset_during", False),
                             ("reset_after", True)):
            self.fault(kind, "PUT")
            with self.assertRaises(ConnectionError):
                self.put(kind, large)
            self.assertEqual(self.exists(kind), stored)
        entries = [each for each in self.control("GET", "requests") if each["method"] == "PUT"]
        self.assertEqual([each["status"] for each in entries], [None] * 3)
        before, during, after = (each["request_bytes"] for each in entries)
        self.assertEqual(before, 0)
        self.assertTrue(0.4 * after < during < 0.6 * after)

    def test_client_that_hangs_up_stores_nothing(self):
        whole = json.dumps({"message": "m", "content": "YQ=="})
        self.connection.putrequest("PUT", "/repos/acme/backups/contents/half")
        for name, value in (("user-agent", "t"), ("authorization", "Bearer good"),
                            ("content-length", str(len(whole) + 9))):
            self.connection.putheader(name, value)
        self.connection.endheaders(whole.encode())
        self.assertFalse(self.exists("half"))

    def test_silence(self):
        for kind, stored in (("silence", False), ("silence_after", True)):
            self.fault(kind, "PUT", seconds=0.3)
            started = time.monotonic()
            with self.assertRaises(http.client.RemoteDisconnected):
                self.put(kind, b"1")
            self.assertGreaterEqual(time.monotonic() - started, 0.3)
            self.assertEqual(self.exists(kind), stored)

    def test_damaged_downloads(self):
        data = bytes(range(256)) * 20
        self.put("download", data)
        self.fault("slow_body", "GET", "download", chunk=1000, delay=0.05)
        started = time.monotonic()
        self.assertEqual(self.call("GET", "contents/download", **RAW)[1], data)
        self.assertGreaterEqual(time.monotonic() - started, 0.25)
        self.fault("over_long", "GET", "download", bytes=3)
        self.assertEqual(self.call("GET", "contents/download", **RAW)[1], data + b"xxx")
        self.fault("flip", "GET", "download", offset=-1, bit=7)
        damaged = self.call("GET", "contents/download", **RAW)[1]
        self.assertEqual(damaged, data[:-1] + bytes([data[-1] ^ 0x80]))
        self.fault("truncate", "GET", "download", bytes=100)
        with self.assertRaises(http.client.IncompleteRead) as caught:
            self.call("GET", "contents/download", **RAW)
        self.assertEqual(caught.exception.partial, data[:100])
        self.assertEqual(caught.exception.expected, len(data) - 100)
        self.connection.close()
        self.fault("truncate", "GET", "download", bytes=100, reset=True)
        with self.assertRaises((ConnectionResetError, http.client.IncompleteRead)):
            self.call("GET", "contents/download", **RAW)
        self.connection.close()
        self.assertEqual(self.call("GET", "contents/download", **RAW)[1], data)

    def test_html_from_a_proxy(self):
        self.fault("html", "PUT")
        status, body, headers = self.put("html", b"1")
        self.assertEqual((status, headers["content-type"]), (502, "text/html; charset=utf-8"))
        self.assertIn(b"<h1>502 Bad Gateway</h1>", body)
        self.assertFalse(self.exists("html"))
        self.fault("html", "PUT", status=504, perform=True)
        self.assertEqual(self.put("html", b"1")[0], 504)
        self.assertTrue(self.exists("html"))

    def test_wrong_sha(self):
        self.fault("wrong_sha", "PUT")
        status, value, _ = self.put("wrong-sha", b"1")
        self.assertEqual(status, 201)
        self.assertNotEqual(value["content"]["sha"], blob_sha(b"1"))
        self.assertEqual(self.call("GET", "contents/wrong-sha")[1]["sha"], blob_sha(b"1"))

    def test_redirect_of_a_renamed_repository(self):
        place = "/repositories/1296269{rest}"
        self.fault("redirect", "GET", location=place)
        status, value, headers = self.call("GET", "contents/README.md?ref=main")
        self.assertEqual((status, value["message"]), (301, "Moved Permanently"))
        self.assertTrue(headers["location"].endswith("/1296269/contents/README.md?ref=main"))
        self.assertEqual(self.call("GET", "/repositories/1296269/contents/README.md")[0], 200)
        self.fault("redirect", "PUT", status=307, location=place)
        self.assertEqual(self.put("moved", b"1")[0], 307)
        self.assertFalse(self.exists("moved"))

    def test_other_writer_and_protected_branch(self):
        before = self.call("GET", "git/ref/heads/main")[1]["object"]["sha"]
        self.fault("other_writer", "PUT")
        answer = self.put("mine", b"1")
        after = self.call("GET", "git/ref/heads/main")[1]["object"]["sha"]
        self.refused(409, f"is at {after} but expected {before}", answer)
        self.assertNotEqual(before, after)
        self.fault("protected_branch", "PUT")
        self.refused(409, faults.PULL_REQUEST_RULE, self.put("mine", b"1"))
        self.assertEqual(self.put("mine", b"1")[0], 201)

    def test_every_kind_has_a_test(self):
        with open(__file__) as source:
            text = source.read()
        for kind in faults.KINDS:
            self.assertIn(f'"{kind}"', text)


if __name__ == "__main__":
    unittest.main()
