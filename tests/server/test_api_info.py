"""What the server tells of itself: plans, models, health, metrics; and what surrounds requests: CORS, TLS, paths."""
import json
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import unittest
import urllib.request

import requests

from server import QUICK, SMALL, Server, ServerTest, main, wait_for

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def labels_of(text):
    labels, at = {}, 0
    while at < len(text):
        match = LABEL.match(text, at)
        assert match, text
        assert match[1] not in labels, text
        labels[match[1]] = match[2]
        at = match.end()
    return labels


def read_metrics(text):
    """The text format 0.0.4, strictly: {family: (type, {(sample name, labels): value})}."""
    families, family = {}, None
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            assert family not in families and re.fullmatch(NAME, family) and line.split(" ", 3)[3], line
            families[family] = [None, {}]
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family and families[name][0] is None and not families[name][1], line
            assert kind in ("counter", "gauge", "histogram"), line
            families[name][0] = kind
        else:
            match = SAMPLE.match(line)
            assert match, line
            kind, samples = families[family]
            ending = match[1].removeprefix(family)
            assert match[1].startswith(family) and ending in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",)), line
            key = (match[1], tuple(sorted(labels_of(match[2] or "").items())))
            assert key not in samples, line
            samples[key] = float(match[3])
    for name, (kind, samples) in families.items():
        assert samples, name
        if kind == "counter":
            assert name.endswith("_total") and all(v >= 0 for v in samples.values()), name
        if kind == "histogram":
            check_histogram(name, samples)
    return {name: (kind, samples) for name, (kind, samples) in families.items()}


def check_histogram(name, samples):
    series = {}
    for (sample, labels), value in samples.items():
        rest = tuple(l for l in labels if l[0] != "le")
        series.setdefault(rest, {"buckets": [], "_sum": None, "_count": None})
        if sample == name + "_bucket":
            series[rest]["buckets"].append((float(dict(labels)["le"]), value))
        else:
            series[rest][sample.removeprefix(name)] = value
    for rest, found in series.items():
        bounds, counts = zip(*found["buckets"])
        assert list(bounds) == sorted(set(bounds)) and bounds[-1] == float("inf"), (name, rest)
        assert list(counts) == sorted(counts) and counts[-1] == found["_count"], (name, rest)
        assert found["_sum"] is not None and (found["_count"] == 0) == (found["_sum"] == 0), (name, rest)


class Metrics(ServerTest):
    def read(self):
        status, headers, data = self.server.request("/metrics")
        self.assertEqual((status, headers["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        return read_metrics(data.decode())

    def value(self, name, metrics=None, **labels):
        _, samples = (metrics or self.read()).get(name.removesuffix("_count"), (None, {}))
        return samples.get((name, tuple(sorted(labels.items()))), 0)

    def test_counters_grow(self):
        before = self.read()
        self.picture()
        self.server.json("/v1/videos/generations", {"prompt": "x", "num_frames": 1, "output_format": "gif", "n": 2, **QUICK})
        self.server.request("/v1/videos", {"prompt": "x", "width": 0})
        self.server.request("/nowhere/at/all%ff")
        after = self.read()
        for name, (kind, samples) in before.items():
            if kind in ("counter", "histogram"):
                for key, value in samples.items():
                    self.assertGreaterEqual(after[name][1][key], value, key)
        for name, grown, labels in (
                ("darkroom_jobs_total", 1, {"kind": "image", "status": "completed"}), ("darkroom_jobs_total", 1, {"kind": "video", "status": "completed"}),
                ("darkroom_jobs_accepted_total", 1, {"kind": "video"}), ("darkroom_finish_seconds_count", 3, {}), ("darkroom_step_seconds_count", 6, {}),
                ("darkroom_queue_wait_seconds_count", 3, {}),
                ("darkroom_http_requests_total", 1, {"method": "POST", "route": "/v1/images/generations", "status": "200"}),
                ("darkroom_http_requests_total", 1, {"method": "POST", "route": "/v1/videos", "status": "400"}),
                ("darkroom_http_request_seconds_count", 1, {"route": "/v1/images/generations"})):
            self.assertEqual(self.value(name, after, **labels) - self.value(name, before, **labels), grown, (name, labels))

    def test_gauges(self):
        wait_for(lambda: self.value("darkroom_queue_depth") == 0, 20)  # the scheduler tells it every 50 ms at most
        metrics = self.read()
        self.assertEqual(self.value("darkroom_worker_up", metrics, worker="0"), 1)
        self.assertGreater(self.value("darkroom_memory_bytes", metrics), 1e6)
        self.assertGreater(self.value("darkroom_worker_memory_bytes", metrics, worker="0"), 1e6)
        self.assertLessEqual(self.value("darkroom_worker_busy_ratio", metrics, worker="0"), 1)

    def test_clients_make_no_labels(self):
        before = len(self.read()["darkroom_http_requests_total"][1])
        for i in range(20):
            self.server.request(f"/v1/nothing/{i}", method="GET")
            self.server.request(f"/v1/videos/video_{i}")
        self.assertLessEqual(len(self.read()["darkroom_http_requests_total"][1]), before + 3)

    def test_store(self):
        self.picture()
        metrics = self.read()
        self.assertGreaterEqual(self.value("darkroom_jobs_stored", metrics, status="completed"), 1)
        self.assertGreater(self.value("darkroom_store_bytes", metrics), 0)


class KeptEmbeddings(ServerTest):
    def test_counters(self):
        def count(name, **labels):
            _, samples = read_metrics(self.server.request("/metrics")[2].decode()).get(name, (None, {}))
            return samples.get((name, tuple(sorted(labels.items()))), 0)
        self.picture(prompt="a prompt of its own")  # and the negative one, which is empty
        wait_for(lambda: count("darkroom_embedding_cache_misses_total", worker="0") == 2, 20)
        for scale in range(2, 5):
            self.picture(prompt="a prompt of its own", guidance_scale=scale)
        wait_for(lambda: count("darkroom_embedding_cache_hits_total", worker="0", place="memory") == 6, 20)
        self.assertEqual(count("darkroom_embedding_cache_misses_total", worker="0"), 2)
        self.assertGreater(count("darkroom_embedding_cache_bytes", worker="0"), 0)


class Plans(ServerTest):
    BODY = {"prompt": "x", "width": 64, "height": 64, "num_frames": 5, "num_inference_steps": 10}

    def plan(self, **more):
        return self.server.json("/v1/plan", {**self.BODY, **more})

    def test_numbers(self):
        plan = self.plan()
        self.assertTrue(plan["fits"])
        for name in ("peak_bytes", "weight_bytes", "flops", "seconds", "step_seconds", "budget_bytes"):
            self.assertGreater(plan[name], 0, name)
        self.assertEqual((plan["num_frames"], plan["outputs"]), (5, 1))
        more = self.plan(num_inference_steps=40)
        self.assertGreater(more["flops"], 1.5 * plan["flops"])
        self.assertEqual(more["weight_bytes"], plan["weight_bytes"])
        larger = self.plan(width=128, height=128)
        self.assertGreater(larger["flops"], 2 * plan["flops"])
        self.assertGreater(larger["peak_bytes"], plan["peak_bytes"])
        self.assertLess(self.plan(guidance_scale=1)["flops"], plan["flops"])
        self.assertGreater(self.plan(num_frames=17)["flops"], plan["flops"])
        self.assertEqual(self.plan(prompt="y " * 50)["flops"], plan["flops"])
        self.assertEqual((self.plan(n=3)["outputs"], self.plan(n=3)["flops"]), (3, plan["flops"]))

    def test_frames_that_the_model_does_not_make(self):
        self.assertEqual(self.plan(num_frames=7)["num_frames"], 5)

    def test_faults(self):
        for more, param in (({"width": 65}, "width"), ({"widht": 1}, "widht"), ({"num_inference_steps": 0}, "num_inference_steps")):
            self.assertEqual(self.refused(400, param, "/v1/plan", {**self.BODY, **more})["param"], param)

    def test_nothing_is_made(self):
        self.plan()
        self.assertEqual(self.server.json("/v1/jobs")["data"], [])

    def test_what_does_not_fit(self):
        with Server("--model-path", SMALL, "--max-memory-gb", 0.001) as server:
            plan = server.json("/v1/plan", self.BODY)
            self.assertFalse(plan["fits"])
            self.assertEqual(plan["budget_bytes"], 1e6)
            status, _, data = server.request("/v1/videos", self.BODY)
            error = json.loads(data)["error"]
            self.assertEqual((status, error["code"], error["param"]), (400, "does_not_fit", "size"))
            for number in (plan["peak_bytes"] / 1e9, plan["budget_bytes"] / 1e9, plan["weight_bytes"] / 1e9):
                self.assertIn(f"{number:.3f} GB", error["message"])
            self.assertIn(f"{plan['flops']:.3g} FLOP", error["message"])
            self.assertEqual(server.json("/v1/jobs")["data"], [])


class Vertex(ServerTest):
    def test_instances(self):
        reply = self.server.json("/vertex_generate", {"instances": [{"prompt": "a", "seed": 1}, {"text": "b", "n": 2}], "parameters": QUICK})
        first, second = reply["predictions"]
        self.assertEqual((first["status"], len(first["images"]), len(second["images"])), ("completed", 1, 2))
        self.assertEqual(first["images"][0]["mimeType"], "image/png")
        self.assertEqual(first["images"][0]["bytesBase64Encoded"], self.picture(prompt="a", seed=1)["data"][0]["b64_json"])

    def test_faults(self):
        for body in ({}, {"instances": []}, {"instances": "x"}, {"instances": [7]}, {"instances": [{"prompt": "x"}] * 9}, []):
            self.refused(400, "", "/vertex_generate", body)
        before = self.jobs()
        error = self.refused(400, "widht", "/vertex_generate", {"instances": [{"prompt": "x", **QUICK}, {"prompt": "y", "widht": 3}]})
        self.assertEqual(error["param"], "widht")
        self.assertEqual(self.jobs(), before)  # all or none

    def test_queue_without_room_for_all(self):
        with Server("--model-path", SMALL, "--max-queue", 2) as server:
            running = server.json("/v1/videos", {"prompt": "x", "num_frames": 1, "output_format": "gif", **QUICK, "num_inference_steps": 1000})
            status, _, data = server.request("/vertex_generate", {"instances": [{"prompt": "x", **QUICK}] * 2})
            self.assertEqual((status, json.loads(data)["error"]["type"]), (429, "rate_limit_error"))
            self.assertEqual([job["id"] for job in server.json("/v1/jobs")["data"]], [running["id"]])

    def test_idempotency(self):
        """One key for a body of several jobs: all of them come again, and another body's failure ends none of them."""
        def post(*prompts):
            status, headers, data = self.server.request("/vertex_generate", {"instances": [{"prompt": p} for p in prompts], "parameters": QUICK},
                                                        headers={"Idempotency-Key": "vertex"})
            return status, headers.get("Idempotent-Replayed"), json.loads(data)

        first, again = post("a", "b"), post("a", "b")
        self.assertEqual((first[:2], again[:2]), ((200, None), (200, "true")))
        self.assertEqual(first[2], again[2])
        self.assertEqual(len({one["id"] for one in first[2]["predictions"]}), 2)
        before = self.jobs()
        for prompts in (("a", "c"), ("a",), ("a", "b", "c")):
            self.assertEqual(post(*prompts)[0], 409)
        self.assertEqual(self.jobs(), before)

    def jobs(self):
        return [(job["id"], job["status"]) for job in self.server.json("/v1/jobs")["data"]]


class Information(ServerTest):
    FLAGS = ("--model-path", SMALL, "--served-model-name", "org/small", "--num-gpus", 2)

    def test_models(self):
        listed = self.server.json("/v1/models")
        self.assertEqual((listed["object"], [m["id"] for m in listed["data"]]), ("list", ["org/small"]))
        self.assertEqual(self.server.json("/v1/models/org%2Fsmall"), listed["data"][0])
        self.assertEqual(self.refused(404, "other", "/v1/models/other")["code"], "model_not_found")

    def test_server_info(self):
        wait_for(lambda: len(self.server.processes("worker")) == 2, 20)  # ready means one of them
        info = self.server.json("/server_info")
        self.assertEqual((info["num_gpus"], info["served_model_name"], len(info["workers"]), info["queued"]), (2, "org/small", 2, 0))
        self.assertEqual(info["pid"], self.server.process.pid)
        self.assertEqual({w["pid"] for w in info["workers"]}, set(self.server.processes("worker")))
        self.assertRegex(info["version"], r"^\d+\.\d+\.\d+$")

    def test_model_info(self):
        for path in ("/model_info", "/v1/model_info"):
            info = self.server.json(path)
            self.assertEqual((info["model_path"], info["architectures"]), ("org/small", ["WanPipeline"]))
            self.assertGreater(info["defaults"]["width"], 0)

    def test_parameters(self):
        reply = self.server.json("/v1/parameters")
        names = [(p["name"], p.get("kind")) for p in reply["parameters"]]
        self.assertEqual(len(names), len(set(names)))
        known = {p["name"]: p for p in reply["parameters"]}
        self.assertEqual((known["width"]["type"], known["width"]["min"], known["width"]["max"]), ("int", 1, 8192))
        self.assertIn("euler", known["sampler"]["choices"])
        self.assertEqual(known["num_inference_steps"]["default"], reply["defaults"]["num_inference_steps"])
        for hidden in ("image_path", "mask_path", "dump_tensors", "initial_latents"):
            self.assertNotIn(hidden, known)
        for parameter in reply["parameters"]:
            self.assertIn(parameter["type"], ("text", "choice", "int", "real", "seed", "bool"))
            self.assertTrue(parameter["help"])

    def test_openapi(self):
        document = self.server.json("/openapi.json")
        self.assertTrue(document["openapi"].startswith("3."))
        text = json.dumps(document)
        for reference in set(re.findall(r'"#/components/schemas/(\w+)"', text)):
            self.assertIn(reference, document["components"]["schemas"])
        ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
        self.assertEqual(len(ids), len(set(ids)))
        self.assertIn("/v1/videos/{id}/events", document["paths"])

    def test_liveness(self):
        self.assertEqual(self.server.json("/liveness"), {"status": "alive"})
        self.assertEqual(self.server.json("/health")["status"], "ready")

    def test_paths_lead_nowhere(self):
        for path in ("/../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd", "/v1/videos/..%2f..%2fjobs.sqlite/content", "//etc/passwd",
                     "/v1/images/%2e%2e/content", "/index.html/..", "/style.css%00.png", "/etc/passwd", "/store", "/v1/videos/.../content", "/./app.js",
                     "/\\..\\etc", "/v1/videos/%2fetc%2fpasswd/content"):
            with self.subTest(path):
                status, _, data = self.server.request(path)
                self.assertIn(status, (400, 404))
                self.assertNotIn(b"root:", data)
        for variant in ("../../jobs.sqlite", "..%2f..%2fjobs.sqlite", "output-0.png", "%00"):
            made = self.server.json("/v1/images/generations", {"prompt": "x", **QUICK})["id"]
            status, _, data = self.server.request(f"/v1/images/{made}/content?variant={variant}")
            self.assertEqual(status, 400, data[:100])

    def test_the_page_and_its_headers(self):
        status, headers, data = self.server.request("/")
        self.assertEqual((status, headers["Content-Type"].split(";")[0]), (200, "text/html"))
        self.assertIn("default-src 'self'", headers["Content-Security-Policy"])
        self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
        self.assertEqual(self.server.request("/", headers={"If-None-Match": headers["ETag"]})[0], 304)
        self.assertIn(b"<", data)


class Loading(unittest.TestCase):
    def test_before_the_model_is_there(self):
        with tempfile.TemporaryDirectory() as folder, Server("--scheduler-endpoint", f"ipc://{folder}/nobody", ready=False) as server:
            os.chmod(folder, 0o700)
            status, _, data = server.request("/health")
            self.assertEqual((status, json.loads(data)["status"]), (503, "loading"))
            self.assertEqual(server.status("/liveness"), 200)
            status, headers, data = server.request("/v1/images/generations", {"prompt": "x"})
            self.assertEqual(status, 503, data)
            self.assertGreater(int(headers["Retry-After"]), 0)
            for path in ("/v1/models", "/server_info", "/model_info", "/v1/parameters", "/openapi.json", "/v1/jobs", "/metrics", "/"):
                self.assertEqual(server.status(path), 200, path)
            read_metrics(server.request("/metrics")[2].decode())


class Cors(unittest.TestCase):
    ORIGIN = "https://app.example.org"

    def preflight(self, server):
        return server.request("/v1/videos", method="OPTIONS", headers={
            "Origin": self.ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"})

    def test_off(self):
        with Server("--model-path", SMALL) as server:
            for _, headers, _ in (self.preflight(server), server.request("/v1/models", headers={"Origin": self.ORIGIN})):
                self.assertFalse([name for name in headers if name.lower().startswith("access-control")])

    def test_on(self):
        with Server("--model-path", SMALL, "--cors-origin", self.ORIGIN, "--api-key", "k") as server:
            status, headers, _ = self.preflight(server)
            self.assertIn(status, (200, 204))  # without a key: browsers send none
            self.assertEqual(headers["Access-Control-Allow-Origin"], self.ORIGIN)
            self.assertIn("POST", headers["Access-Control-Allow-Methods"])
            self.assertIn("authorization", headers["Access-Control-Allow-Headers"].lower())
            for path, key in (("/v1/models", "k"), ("/v1/models", "wrong"), ("/v1/nothing", "k")):
                _, headers, _ = server.request(path, headers={"Origin": self.ORIGIN, "Authorization": f"Bearer {key}"})
                self.assertEqual(headers["Access-Control-Allow-Origin"], self.ORIGIN, path)
                self.assertEqual(headers["Vary"], "Origin")


@unittest.skipUnless(shutil.which("openssl"), "openssl is not installed")
class Tls(unittest.TestCase):
    def test_a_certificate_of_our_own(self):
        with tempfile.TemporaryDirectory() as folder:
            cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "1", "-subj", "/CN=localhost",
                            "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
            with Server("--model-path", SMALL, "--ssl-certfile", cert, "--ssl-keyfile", key, ready=False) as server:
                self.assertTrue(server.url.startswith("https://"))
                wait_for(lambda: requests.get(server.url + "/health", verify=cert, timeout=10).status_code == 200)
                made = requests.post(server.url + "/v1/images/generations", json={"prompt": "x", "response_format": "url", **QUICK}, verify=cert, timeout=60)
                url = made.json()["data"][0]["url"]
                self.assertTrue(url.startswith(server.url))
                self.assertEqual(requests.get(url, verify=cert, timeout=10).content[:4], b"\x89PNG")
                with self.assertRaises(requests.exceptions.SSLError):
                    requests.get(server.url + "/health", timeout=10)
                with self.assertRaises(OSError):
                    urllib.request.urlopen("http" + server.url[5:] + "/health", timeout=5)
                old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
                old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
                with self.assertRaises(OSError):
                    urllib.request.urlopen(server.url + "/health", timeout=5, context=old)


if __name__ == "__main__":
    main()
