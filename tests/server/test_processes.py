"""The processes: who starts, who dies, what becomes of the jobs."""
import hashlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import unittest

from server import PROGRAM, QUICK, SMALL, Server, ServerTest, main, wait_for

LONG = {"prompt": "a blue square", "seed": 3, "width": 64, "height": 64, "num_frames": 5, "num_inference_steps": 60, "output_format": "gif"}


def content(server, job):
    status, _, data = server.request(f"/v1/videos/{job['id']}/content")
    assert status == 200, data
    return hashlib.sha256(data).hexdigest()


def frames_of(job):
    return [output["recipe"]["frames_sha256"] for output in job["outputs"]]


def steps_of(server, job, seen, stop):
    """Collects the steps that the event stream of a job tells."""
    import urllib.request
    try:
        with urllib.request.urlopen(f"{server.url}/v1/videos/{job['id']}/events", timeout=60) as reply:
            for line in reply:
                if line.startswith(b"data: {") and not stop.is_set():
                    data = json.loads(line[6:])
                    if "step" in data:
                        seen.append(data["step"])
    except OSError:
        pass


class Dying(unittest.TestCase):
    """The embedded model: slow enough to be interrupted."""

    @classmethod
    def setUpClass(cls):
        with Server() as server:
            cls.calm = frames_of(server.wait_job(server.json("/v1/videos", LONG)))

    def running(self, server, body=LONG, percent=10):
        job = server.json("/v1/videos", body)
        wait_for(lambda: server.json(f"/v1/videos/{job['id']}")["progress"] >= percent, every=0.01)
        return job

    def test_worker_killed(self):
        with Server("--checkpoint-every-s", 0) as server:
            job, seen, stop = server.json("/v1/videos", LONG), [], threading.Event()
            listener = threading.Thread(target=steps_of, args=(server, job, seen, stop))
            listener.start()
            wait_for(lambda: len(seen) > 0 and seen[-1] >= 15, every=0.01)
            before = seen[-1]
            os.kill(server.processes("worker")[0], signal.SIGKILL)
            done = server.wait_job(job)
            listener.join()
            self.assertEqual((done["status"], frames_of(done)), ("completed", self.calm))
            self.assertGreaterEqual(done["attempts"], 1)
            again = [step for step in seen[seen.index(before):] if step > 0]
            self.assertGreaterEqual(min(again), before - 1, "it began anew instead of going on")

    def test_scheduler_killed(self):
        with Server("--checkpoint-every-s", 0) as server:
            job = self.running(server)
            old = server.processes("scheduler")
            os.kill(old[0], signal.SIGKILL)
            done = server.wait_job(job)
            self.assertEqual((done["status"], frames_of(done)), ("completed", self.calm))
            self.assertNotEqual(server.processes("scheduler"), old)

    def test_killed_while_it_plans(self):
        """Who is asked what a request takes may be gone before the answer: another one is asked."""
        for name in ("worker", "scheduler"):
            with self.subTest(name), Server() as server:
                [pid] = server.processes(name)
                os.kill(pid, signal.SIGSTOP)
                replies = []
                client = threading.Thread(target=lambda: replies.append(server.request("/v1/videos", {**LONG, "num_inference_steps": 1})))
                client.start()
                time.sleep(0.5)  # so that the question has arrived
                os.kill(pid, signal.SIGKILL)
                client.join()
                [(status, _, data)] = replies
                self.assertEqual(status, 200, data)
                self.assertEqual(server.wait_job(json.loads(data))["status"], "completed")

    def test_server_killed(self):
        with Server("--checkpoint-every-s", 0) as server:
            job = self.running(server)
            waiting = server.json("/v1/videos", {**LONG, "num_inference_steps": 2, "seed": 9})
            below = server.processes()
            self.assertEqual(len(below), 2)
            server.stop(signal.SIGKILL)
            wait_for(lambda: not any(os.path.exists(f"/proc/{p}") for p in below))
            server.start()
            done = server.wait_job(job)
            self.assertEqual((done["status"], frames_of(done)), ("completed", self.calm))
            self.assertEqual(server.wait_job(waiting)["status"], "completed")

    def test_worker_hangs(self):
        with Server("--checkpoint-every-s", 0, "--watchdog-min-s", 2, "--num-gpus", 2) as server:
            job = self.running(server)
            workers = server.json("/server_info")["workers"]
            busy = next(w["pid"] for w in workers if w["tasks"])
            os.kill(busy, signal.SIGSTOP)
            done = server.wait_job(job)
            self.assertEqual((done["status"], frames_of(done)), ("completed", self.calm))
            self.assertFalse(os.path.exists(f"/proc/{busy}"))

    def test_too_many_attempts(self):
        with Server("--max-retries", 1) as server:
            job = server.json("/v1/videos", {**LONG, "num_inference_steps": 500})
            for _ in range(2):
                pid = wait_for(lambda: [w["pid"] for w in server.json("/server_info")["workers"]
                                        if w["tasks"] and os.path.exists(f"/proc/{w['pid']}")])[0]
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
            done = server.wait_job(job)
            self.assertEqual(done["status"], "failed", server.errors())
            self.assertIn("attempt 2 of 2", done["error"]["message"])
            self.assertEqual(server.wait_job(server.json("/v1/videos", {**LONG, "num_inference_steps": 2}))["status"], "completed")

    def test_drain(self):
        with Server() as server:
            job = self.running(server)
            waiting = server.json("/v1/videos", {**LONG, "num_inference_steps": 2, "seed": 9})
            self.assertEqual(server.stop(signal.SIGTERM), 0)
            server.start()
            self.assertEqual(server.json(f"/v1/videos/{job['id']}")["status"], "completed")
            self.assertEqual(server.wait_job(waiting)["status"], "completed")

    def test_drain_timeout_and_second_signal(self):
        with Server("--drain-timeout", 1, "--checkpoint-every-s", 0) as server:
            job = self.running(server, {**LONG, "num_inference_steps": 600}, percent=1)
            start = time.monotonic()
            server.stop(signal.SIGTERM)
            self.assertLess(time.monotonic() - start, 5)
            server.flags = ("--drain-timeout", 600)
            server.start()
            wait_for(lambda: server.json(f"/v1/videos/{job['id']}")["status"] == "in_progress")
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            self.assertIsNone(server.process.poll())
            start = time.monotonic()
            server.stop(signal.SIGTERM)
            self.assertLess(time.monotonic() - start, 5)

    def test_cancel_reaches_the_step(self):
        with Server() as server:
            job = self.running(server, {**LONG, "num_inference_steps": 900}, percent=1)
            start = time.monotonic()
            self.assertEqual(server.json(f"/v1/videos/{job['id']}/cancel", b"")["status"], "cancelled")
            wait_for(lambda: not server.json("/server_info")["workers"][0]["tasks"], every=0.01)
            self.assertLess(time.monotonic() - start, 2)

    def test_deadlines(self):
        with Server() as server:
            job = server.json("/v1/videos", {**LONG, "num_inference_steps": 900, "timeout_s": 1})
            late = server.json("/v1/videos", {**LONG, "timeout_s": 0.5})
            for one, text in ((job, "running"), (late, "queued")):
                done = server.wait_job(one)
                self.assertEqual((done["status"], done["error"]["code"]), ("failed", "out_of_time"))
                self.assertIn(text, done["error"]["message"])


class Queueing(unittest.TestCase):
    def test_two_workers_take_different_jobs(self):
        with Server("--num-gpus", 2) as server:
            jobs = [server.json("/v1/videos", {**LONG, "seed": i, "num_inference_steps": 30}) for i in range(4)]
            most = 0
            while any(server.json(f"/v1/videos/{j['id']}")["status"] != "completed" for j in jobs):
                most = max(most, sum(bool(w["tasks"]) for w in server.json("/server_info")["workers"]))
                time.sleep(0.02)
            self.assertEqual(most, 2)

    def test_full_queue(self):
        with Server("--max-queue", 2) as server:
            for seed in range(2):
                server.json("/v1/videos", {**LONG, "seed": seed, "num_inference_steps": 900})
            status, headers, data = server.request("/v1/videos", LONG)
            self.assertEqual(status, 429, data)
            self.assertGreater(int(headers["Retry-After"]), 0)

    def test_priority(self):
        with Server("--batching-max-size", 1) as server:
            server.json("/v1/videos", {**LONG, "num_inference_steps": 100})
            low = [server.json("/v1/videos", {**LONG, "seed": i, "num_inference_steps": 10}) for i in range(3)]
            high = server.json("/v1/videos", {**LONG, "seed": 7, "num_inference_steps": 10, "priority": 5})
            self.assertEqual(wait_for(lambda: server.json(f"/v1/videos/{high['id']}"))["status"], "queued")
            server.wait_job(high)
            self.assertNotEqual(server.json(f"/v1/videos/{low[-1]['id']}")["status"], "completed")

    def test_fairness(self):
        """One key's hundred jobs do not keep another key's first one waiting."""
        with tempfile.NamedTemporaryFile("w") as keys:
            keys.write("key-a\nkey-b\n")
            keys.flush()
            with Server("--api-key-file", keys.name, "--batching-max-size", 1) as server:
                a, b = ({"Authorization": f"Bearer key-{name}"} for name in "ab")
                many = [server.json("/v1/videos", {**LONG, "num_inference_steps": 20, "seed": i}, headers=a) for i in range(12)]
                one = server.json("/v1/videos", {**LONG, "num_inference_steps": 20}, headers=b)
                wait_for(lambda: server.json(f"/v1/videos/{one['id']}", headers=b)["status"] == "completed")
                left = sum(server.json(f"/v1/videos/{j['id']}", headers=a)["status"] == "queued" for j in many)
                self.assertGreater(left, 6)
                self.assertEqual(server.request(f"/v1/videos/{one['id']}", headers=a)[0], 404)


class Starting(unittest.TestCase):
    def test_not_ready_before_the_model_is_loaded(self):
        with Server("--model-path", SMALL, ready=False) as server:
            self.assertIn(server.status("/health"), (503, 200))
            server.wait_ready()
            self.assertEqual(server.json("/health")["status"], "ready")

    def test_model_that_cannot_be_opened(self):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([PROGRAM, "serve", "--model-path", "/nowhere", "--store-path", folder, "--port", "0"],
                                  capture_output=True, text=True, timeout=60)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("/nowhere", done.stderr.splitlines()[-1])

    def test_store_in_use(self):
        with Server("--model-path", SMALL) as server:
            done = subprocess.run([PROGRAM, "serve", "--store-path", os.path.join(server.store, "store"), "--port", "0"],
                                  capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 11)
            self.assertIn(str(server.process.pid), done.stderr)

    def test_flags_that_do_not_go(self):
        for flags, text in ((("--sp-degree", "2"), "sp_degree 2"), (("--num-gpus", "2", "--dp-size", "3"), "dp_size"),
                            (("--ssl-certfile", "x"), "--ssl-keyfile"), (("--scheduler-endpoint", "tcp://127.0.0.1:1"), "CURVE")):
            done = subprocess.run([PROGRAM, "serve", "--port", "0", "--store-path", tempfile.mkdtemp(), *flags],
                                  capture_output=True, text=True, timeout=60)
            self.assertNotEqual(done.returncode, 0, flags)
            self.assertIn(text, done.stderr)

    def test_share_of_the_cores(self):
        with Server("--model-path", SMALL, "--num-gpus", 2) as server:
            cores = sorted(os.sched_getaffinity(0))
            shares = [sorted(os.sched_getaffinity(p)) for p in server.processes("worker")]
            if len(cores) >= 2:
                self.assertFalse(set(shares[0]) & set(shares[1]))
                self.assertEqual(sorted(shares[0] + shares[1]), cores)


class Traces(unittest.TestCase):
    """--trace-path: a file per worker, whole after the server's end, and whole lines after a worker's death."""

    def test_a_file_per_worker(self):
        body = {"prompt": "x", "async": True, **QUICK, "num_inference_steps": 30}
        with tempfile.TemporaryDirectory() as folder:
            with Server("--model-path", SMALL, "--num-gpus", 2, "--trace-path", os.path.join(folder, "trace.json")) as server:
                jobs = [server.json("/v1/images/generations", dict(body, seed=i, prompt=f"x {i}", guidance_scale=1 + i), expect=202)
                        for i in range(6)]
                self.assertEqual({server.wait_job(job)["status"] for job in jobs}, {"completed"})
                self.assertEqual(server.stop(), 0)
            self.assertEqual(sorted(os.listdir(folder)), ["trace-0.json", "trace-1.json"])
            stages = 0
            for rank in (0, 1):
                with open(os.path.join(folder, f"trace-{rank}.json"), encoding="utf-8") as file:
                    events = json.load(file)
                self.assertEqual({event["pid"] for event in events}, {rank})
                stages += sum(event["name"] == "denoising" for event in events)
            self.assertEqual(stages, 6)


class ElsewhereScheduler(unittest.TestCase):
    """A scheduler that runs already, over tcp with CURVE keys."""

    def test_curve(self):
        import zmq
        with tempfile.TemporaryDirectory() as folder:
            server_public, server_secret = zmq.curve_keypair()
            client_public, client_secret = zmq.curve_keypair()
            _, stranger = zmq.curve_keypair()

            def keys(name, text):
                path = os.path.join(folder, name)
                with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                    file.write(text)
                return path
            inside = keys("inside", f"secret={server_secret.decode()}\nallowed={client_public.decode()}\n")
            outside = keys("outside", f"secret={client_secret.decode()}\nserver={server_public.decode()}\n")
            wrong = keys("wrong", f"secret={stranger.decode()}\nserver={server_public.decode()}\n")
            endpoint = "tcp://127.0.0.1:39517"
            with subprocess.Popen([PROGRAM, "scheduler", "--endpoint", endpoint, "--curve-keys", inside, "--model-path", SMALL]) as scheduler:
                try:
                    with Server("--scheduler-endpoint", endpoint, "--curve-keys", outside) as server:
                        done = server.wait_job(server.json("/v1/images/generations", {"prompt": "x", "async": True, **QUICK}, expect=202))
                        self.assertEqual(done["status"], "completed")
                    with Server("--scheduler-endpoint", endpoint, "--curve-keys", wrong, ready=False) as server:
                        time.sleep(2)
                        self.assertEqual(server.status("/health"), 503)
                finally:
                    scheduler.terminate()


if __name__ == "__main__":
    main()
