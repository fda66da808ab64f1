"""Jobs over HTTP: lists, cancelling, deleting, content, events, idempotency, expiry."""
import base64
import io
import json
import os
import threading
import time
import unittest
import urllib.request

import requests
from PIL import Image

from server import QUICK, SMALL, Server, ServerTest, main, wait_for

# Some seconds of the small model: long enough to be caught in the act.
LONG = {"prompt": "a blue square", "seed": 3, "width": 256, "height": 256, "num_frames": 17, "num_inference_steps": 1000, "output_format": "gif"}


def events_of(url, seconds=60, stop=None):
    """Events of a stream as (name, data); ends with it, or when stop(events) is true."""
    events, name = [], None
    with urllib.request.urlopen(url, timeout=seconds) as reply:
        assert reply.headers["Content-Type"].startswith("text/event-stream"), reply.headers
        for line in reply:
            line = line.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                events.append((name, json.loads(line[6:])))
                if stop is not None and stop(events):
                    break
    return events


class Lists(ServerTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.videos = [cls.server.json("/v1/videos/generations", {"prompt": str(i), "num_frames": 1, "output_format": "gif", **QUICK})["id"]
                      for i in range(5)]
        cls.images = [cls.server.json("/v1/images/generations", {"prompt": str(i), **QUICK})["id"] for i in range(2)]

    def ids(self, query, path="/v1/videos"):
        return [job["id"] for job in self.server.json(path + query)["data"]]

    def test_newest_first(self):
        self.assertEqual(self.ids(""), self.videos[::-1])
        self.assertEqual(self.ids("?order=desc"), self.videos[::-1])
        self.assertEqual(self.ids("?order=asc"), self.videos)

    def test_pages(self):
        page = self.server.json("/v1/videos?limit=2")
        self.assertEqual((page["object"], page["has_more"]), ("list", True))
        self.assertEqual((page["first_id"], page["last_id"]), (self.videos[4], self.videos[3]))
        self.assertEqual(self.ids(f"?limit=2&after={page['last_id']}"), [self.videos[2], self.videos[1]])
        last = self.server.json(f"/v1/videos?limit=2&after={self.videos[1]}")
        self.assertEqual(([j["id"] for j in last["data"]], last["has_more"]), ([self.videos[0]], False))
        empty = self.server.json(f"/v1/videos?after={self.videos[0]}")
        self.assertEqual((empty["data"], empty["has_more"], empty["first_id"], empty["last_id"]), ([], False, None, None))
        self.assertEqual(self.ids(f"?order=asc&after={self.videos[3]}"), [self.videos[4]])

    def test_kinds(self):
        self.assertEqual(self.ids("", "/v1/images"), self.images[::-1])
        self.assertEqual(self.ids("", "/v1/jobs"), self.images[::-1] + self.videos[::-1])
        self.assertEqual(self.ids("?unfinished=true", "/v1/jobs"), [])
        self.assertEqual(len(self.ids("?unfinished=false", "/v1/jobs")), 7)

    def test_unfinished(self):
        job = self.server.json("/v1/videos", LONG)
        self.assertEqual(self.ids("?unfinished=true"), [job["id"]])
        self.assertNotIn(job["id"], self.ids("?unfinished=false"))
        self.server.json(f"/v1/videos/{job['id']}", method="DELETE")
        self.assertEqual(self.ids("?unfinished=true"), [])

    def test_what_does_not_go(self):
        for query, param in (("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("limit=", "limit"), ("order=up", "order"),
                             ("unfinished=perhaps", "unfinished"), ("limit=99999999999999999999", "limit")):
            self.assertEqual(self.refused(400, param, "/v1/videos?" + query)["param"], param)
        self.assertEqual(self.refused(404, "nobody", "/v1/videos?after=nobody")["param"], "after")

    def test_jobs_of_the_other_kind_are_not_there(self):
        for path in (f"/v1/videos/{self.images[0]}", f"/v1/images/{self.videos[0]}", f"/v1/videos/{self.images[0]}/content",
                     f"/v1/videos/{self.images[0]}/events", "/v1/videos/video_0123", "/v1/images/x"):
            self.assertEqual(self.refused(404, "", path)["code"], "not_found", path)
        self.refused(404, "", f"/v1/videos/{self.images[0]}", method="DELETE")
        self.refused(404, "", f"/v1/images/{self.videos[0]}/cancel", b"")


class Ending(ServerTest):
    def running(self, **more):
        job = self.server.json("/v1/videos", {**LONG, **more})
        return wait_for(lambda: (lambda j: j if j["status"] == "in_progress" and j["progress"] > 0 else None)(
            self.server.json(f"/v1/videos/{job['id']}")), every=0.01)

    def idle(self):
        return wait_for(lambda: not self.server.json("/server_info")["workers"][0]["tasks"], 20)

    def test_delete(self):
        job = self.server.json("/v1/videos/generations", {"prompt": "x", "num_frames": 1, "output_format": "gif", **QUICK})
        path, folder = f"/v1/videos/{job['id']}", os.path.join(self.server.store, "store", "jobs", job["id"])
        self.assertTrue(os.path.isdir(folder))
        self.assertEqual(self.server.json(path, method="DELETE"), {"id": job["id"], "object": "video.deleted", "deleted": True})
        self.refused(404, job["id"], path)
        self.refused(404, job["id"], path + "/content")
        self.refused(404, job["id"], path, method="DELETE")
        self.assertFalse(os.path.exists(folder))
        self.assertEqual(self.server.json("/v1/images/" + self.picture()["id"], method="DELETE")["object"], "image.deleted")

    def test_delete_while_it_runs(self):
        job = self.running()
        self.server.json(f"/v1/videos/{job['id']}", method="DELETE")
        self.refused(404, job["id"], f"/v1/videos/{job['id']}")
        self.idle()
        self.assertEqual(len(self.picture()["data"]), 1)
        time.sleep(0.2)
        self.assertNotIn(job["id"], os.listdir(os.path.join(self.server.store, "store", "jobs")))

    def test_cancel(self):
        job = self.running()
        path = f"/v1/videos/{job['id']}"
        self.assertIsNotNone(job["started_at"])
        self.assertGreaterEqual(job["eta_s"], 0)
        self.refused(409, "no such content yet", path + "/content")
        gone = self.server.json(path + "/cancel", b"")
        self.assertEqual((gone["status"], gone["eta_s"], gone["queue_position"]), ("cancelled", None, None))
        self.idle()
        self.assertEqual(self.server.json(path)["status"], "cancelled")
        self.assertEqual(self.server.json(path + "/cancel", b"")["status"], "cancelled")
        self.refused(404, "no such content", path + "/content")

    def test_cancel_what_has_ended(self):
        job = self.server.json("/v1/images/" + self.picture()["id"])
        self.assertEqual(self.server.json(f"/v1/images/{job['id']}/cancel", b"")["status"], "completed")

    def test_who_waits_is_told(self):
        replies = []

        def ask(path, body):
            replies.append((path, *self.server.request(path, body)))
        threads = [threading.Thread(target=ask, args=a) for a in (
            ("/v1/videos/generations", LONG), ("/v1/images/generations", {"prompt": "x", "width": 512, "height": 512, "num_inference_steps": 1000}))]
        for thread in threads:
            thread.start()
        jobs = wait_for(lambda: (lambda d: d if len(d) == 2 else None)(self.server.json("/v1/jobs?unfinished=true")["data"]))
        for job in jobs:
            self.server.json(f"/v1/{job['object']}s/{job['id']}/cancel", b"")
        for thread in threads:
            thread.join(20)
        got = {path: (status, json.loads(data)) for path, status, _, data in replies}
        self.assertEqual(got["/v1/videos/generations"][0], 200)
        self.assertEqual(got["/v1/videos/generations"][1]["status"], "cancelled")
        status, reply = got["/v1/images/generations"]
        self.assertEqual((status, reply["error"]["message"]), (499, "the job was cancelled"))

    def test_queued_jobs_know_their_place(self):
        first = self.running()
        waiting = [self.server.json("/v1/videos", {**LONG, "seed": i, "guidance_scale": 2 + i}) for i in range(3)]
        places = wait_for(lambda: (lambda p: p if None not in p else None)(
            [self.server.json(f"/v1/videos/{j['id']}")["queue_position"] for j in waiting]))
        self.assertEqual(places, [0, 1, 2])
        for job in [*waiting, first]:
            self.server.json(f"/v1/videos/{job['id']}", method="DELETE")
        self.idle()


class Content(ServerTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.job = cls.server.json("/v1/videos/generations", {"prompt": "x", "num_frames": 5, "n": 2, "seed": 1, **QUICK, "width": 64})
        cls.path = f"/v1/videos/{cls.job['id']}/content"
        _, cls.headers, cls.data = cls.server.request(cls.path)

    def get(self, path=None, **headers):
        return self.server.request(path or self.path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def test_whole(self):
        self.assertEqual(self.headers["Accept-Ranges"], "bytes")
        self.assertEqual(int(self.headers["Content-Length"]), len(self.data))
        status, headers, data = self.server.request(self.path, method="HEAD")
        self.assertEqual((status, int(headers["Content-Length"]), data), (200, len(self.data), b""))
        status, headers, _ = self.get(self.path + "?download=1")
        self.assertIn(self.job["id"], headers["Content-Disposition"])

    def test_ranges(self):
        size = len(self.data)
        for text, first, last in (("bytes=0-99", 0, 99), ("bytes=100-", 100, size - 1), ("bytes=-10", size - 10, size - 1),
                                  (f"bytes=0-{size * 2}", 0, size - 1), (f"bytes=-{size * 2}", 0, size - 1)):
            status, headers, data = self.get(Range=text)
            self.assertEqual((status, headers["Content-Range"]), (206, f"bytes {first}-{last}/{size}"), text)
            self.assertEqual(data, self.data[first:last + 1])
        for text in (f"bytes={size}-", "bytes=-0"):
            status, headers, data = self.get(Range=text)
            self.assertEqual((status, headers["Content-Range"]), (416, f"bytes */{size}"), text)
            self.assertIn("range", json.loads(data)["error"]["message"])
        for text in ("bytes=9-1", "bytes=a-b", "lines=0-1", "bytes=0-1,5-9", "bytes="):
            status, _, data = self.get(Range=text)
            self.assertEqual((status, data), (200, self.data), text)

    def test_conditions(self):
        tag, date = self.headers["ETag"], self.headers["Last-Modified"]
        self.assertEqual(self.get(Range="bytes=0-9", If_Range=tag)[0], 206)
        self.assertEqual(self.get(Range="bytes=0-9", If_Range=date)[0], 206)
        status, _, data = self.get(Range="bytes=0-9", If_Range='"other"')
        self.assertEqual((status, data), (200, self.data))
        self.assertEqual(self.get(If_None_Match=tag)[0], 304)
        self.assertEqual(self.get(If_None_Match='"other"')[0], 200)

    def test_variants(self):
        for variant, kind, size in (("video", "video/mp4", None), ("thumbnail", "image/jpeg", (64, 32)), ("spritesheet", "image/jpeg", (256, 64))):
            status, headers, data = self.get(f"{self.path}?variant={variant}")
            self.assertEqual((status, headers["Content-Type"]), (200, kind))
            if size:
                self.assertEqual(Image.open(io.BytesIO(data)).size, size)
        error = self.refused(400, "video, thumbnail, spritesheet", self.path + "?variant=film")
        self.assertEqual(error["param"], "variant")
        made = self.picture(width=64)["id"]
        self.assertEqual(Image.open(io.BytesIO(self.get(f"/v1/images/{made}/content?variant=thumbnail")[2])).size, (64, 32))
        self.refused(400, "image, thumbnail", f"/v1/images/{made}/content?variant=spritesheet")

    def test_outputs(self):
        second = self.get(self.path + "?index=1")[2]
        self.assertNotEqual(second, self.data)
        self.assertEqual(self.get(self.path + "?variant=1")[2], second)
        for index in ("2", "-1", "x", "99999999999"):
            self.assertEqual(self.refused(400, "0 to 1", f"{self.path}?index={index}")["param"], "index")

    def test_a_file_that_was_lost(self):
        job = self.server.json("/v1/videos/generations", {"prompt": "x", "num_frames": 1, "output_format": "gif", **QUICK})
        os.unlink(os.path.join(self.server.store, "store", "jobs", job["id"], "output-0.gif"))
        self.refused(404, "does not exist", job["outputs"][0]["url"])


class Events(ServerTest):
    def url(self, job, kind="videos"):
        return f"{self.server.url}/v1/{kind}/{job['id']}/events"

    def test_progress_previews_and_the_end(self):
        job = self.server.json("/v1/videos", {**LONG, "width": 64, "height": 64, "num_frames": 5})
        events = events_of(self.url(job))
        names = [name for name, _ in events]
        self.assertEqual(names[-1], "done")
        self.assertEqual(set(names), {"progress", "preview", "done"})
        progress = [data for name, data in events if name == "progress"]
        self.assertEqual([p["progress"] for p in progress], sorted(p["progress"] for p in progress))
        self.assertGreater(len({p["progress"] for p in progress}), 3)
        self.assertTrue(all("outputs" not in p and p["id"] == job["id"] for p in progress))
        self.assertTrue(any(p["stage"] == "denoising" and 0 < p["step"] <= p["steps"] == 1000 and p["eta_s"] >= 0 for p in progress), progress[-1])
        preview = next(data for name, data in events if name == "preview")
        head, text = preview["image"].split(",")
        self.assertEqual(head, "data:image/png;base64")
        self.assertEqual(Image.open(io.BytesIO(base64.b64decode(text))).size, (preview["width"], preview["height"]))
        done = events[-1][1]
        self.assertEqual((done["status"], done["progress"], len(done["outputs"])), ("completed", 100, 1))

    def test_a_job_that_has_ended(self):
        made = self.picture()
        events = events_of(self.url(made, "images"))
        self.assertEqual([name for name, _ in events], ["progress", "done"])
        self.assertEqual(events[-1][1]["status"], "completed")

    def test_a_queued_job_that_is_cancelled(self):
        first, second = (self.server.json("/v1/videos", {**LONG, "seed": i, "guidance_scale": 2 + i}) for i in range(2))
        found = []
        listener = threading.Thread(target=lambda: found.extend(events_of(self.url(second))))
        listener.start()
        wait_for(lambda: self.server.json(f"/v1/videos/{second['id']}")["queue_position"] == 0)
        self.server.json(f"/v1/videos/{second['id']}/cancel", b"")
        listener.join(10)
        self.assertFalse(listener.is_alive())
        self.assertEqual((found[-1][0], found[-1][1]["status"]), ("done", "cancelled"))
        self.server.json(f"/v1/videos/{first['id']}", method="DELETE")

    def test_a_job_that_is_deleted(self):
        job = self.server.json("/v1/videos", LONG)
        found = []
        listener = threading.Thread(target=lambda: found.extend(events_of(self.url(job))))
        listener.start()
        wait_for(lambda: self.server.json(f"/v1/videos/{job['id']}")["progress"] > 0, every=0.01)
        self.server.json(f"/v1/videos/{job['id']}", method="DELETE")
        listener.join(10)
        self.assertFalse(listener.is_alive())
        self.assertEqual((found[-1][0], found[-1][1]["status"]), ("done", "cancelled"))

    def test_readers_that_leave(self):
        job = self.server.json("/v1/videos", LONG)
        for _ in range(20):
            events_of(self.url(job), stop=lambda events: len(events) > 1)
        self.server.json(f"/v1/videos/{job['id']}", method="DELETE")
        self.assertEqual(self.server.status("/health"), 200)

    def test_streams_of_pictures(self):
        reply = requests.post(self.server.url + "/v1/images/generations", json={"prompt": "x", "stream": True, "partial_images": 1, "n": 2, "seed": 1,
                                                                                "size": "64x64", "num_inference_steps": 300},
                              timeout=60)
        types = [json.loads(line[6:])["type"] for line in reply.text.splitlines() if line.startswith("data: ")]
        self.assertEqual(types, ["image_generation.partial_image"] + ["image_generation.completed"] * 2)


class Idempotency(unittest.TestCase):
    BODY = {"prompt": "x", "num_frames": 1, "output_format": "gif", **QUICK}

    def post(self, server, path, body, key="key-1"):
        status, headers, data = server.request(path, body, headers={"Idempotency-Key": key})
        return status, headers.get("Idempotent-Replayed"), json.loads(data)

    def test_keys(self):
        with Server("--model-path", SMALL) as server:
            status, again, job = self.post(server, "/v1/videos", self.BODY)
            self.assertEqual((status, again), (200, None))
            server.wait_job(job)
            status, again, same = self.post(server, "/v1/videos", dict(reversed(self.BODY.items())))
            self.assertEqual((status, again, same["id"]), (200, "true", job["id"]))
            status, again, error = self.post(server, "/v1/videos", {**self.BODY, "prompt": "y"})
            self.assertEqual((status, again), (409, None))
            self.assertIn("key-1", error["error"]["message"])
            self.assertNotEqual(self.post(server, "/v1/videos", self.BODY, "key-2")[2]["id"], job["id"])
            server.stop()
            server.start()
            status, again, same = self.post(server, "/v1/videos", self.BODY)
            self.assertEqual((status, again, same["id"], same["status"]), (200, "true", job["id"], "completed"))
            self.assertEqual(len(server.json("/v1/videos")["data"]), 2)
            picture = {"prompt": "x", **QUICK}
            first = self.post(server, "/v1/images/generations", picture, "key-3")
            second = self.post(server, "/v1/images/generations", picture, "key-3")
            self.assertEqual((first[0], second[0], second[1]), (200, 200, "true"))
            self.assertEqual(first[2]["data"], second[2]["data"])
            self.assertEqual(self.post(server, "/v1/videos", picture, "key-3")[0], 409)  # another kind of job

    def test_many_at_once_make_one_job(self):
        with Server("--model-path", SMALL) as server:
            replies = []
            threads = [threading.Thread(target=lambda: replies.append(self.post(server, "/v1/videos", self.BODY))) for _ in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual({reply[0] for reply in replies}, {200})
            self.assertEqual(len({reply[2]["id"] for reply in replies}), 1)
            self.assertEqual(sum(reply[1] == "true" for reply in replies), 11)


class Expiry(unittest.TestCase):
    def test_age(self):
        with Server("--model-path", SMALL, "--keep-results-h", 1 / 3600, "--drain-timeout", 0) as server:
            job = server.json("/v1/videos/generations", {"prompt": "x", "num_frames": 1, "output_format": "gif", **QUICK})
            self.assertLessEqual(job["expires_at"], job["completed_at"] + 2)
            running = server.json("/v1/videos", LONG)
            time.sleep(1.2)
            server.stop()
            server.start()  # it looks once a minute, and at its start
            wait_for(lambda: server.request(f"/v1/videos/{job['id']}")[0] == 404, 10)
            self.assertIn(server.json(f"/v1/videos/{running['id']}")["status"], ("queued", "in_progress", "completed"))
            self.assertNotIn(job["id"], os.listdir(os.path.join(server.store, "store", "jobs")))

    def test_bytes(self):
        body = {"prompt": "x", "width": 512, "height": 512, "num_inference_steps": 1}
        with Server("--model-path", SMALL, "--max-store-gb", 1e-3) as server:
            ids = [server.json("/v1/images/generations", body)["id"] for _ in range(4)]
            self.assertGreater(sum(o["bytes"] for j in server.json("/v1/images")["data"] for o in j["outputs"]), 1e6)
            server.stop()
            server.start()
            wait_for(lambda: server.request(f"/v1/images/{ids[0]}")[0] == 404, 10)
            self.assertEqual(server.request(f"/v1/images/{ids[-1]}")[0], 200)


if __name__ == "__main__":
    main()
