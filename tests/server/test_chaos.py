"""Chaos: processes die and hang at random while jobs run; a disk fills up. Nothing accepted is lost, nothing is
done twice, pixels are those of a calm run. argv[2], when given, is the seed."""
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import unittest
import urllib.error

from server import PROGRAM, SMALL, Server, main, wait_for

SEED = int(sys.argv.pop(1)) if len(sys.argv) > 1 and sys.argv[1].isdigit() else random.randrange(10**6)
JOBS, KILLS, CLIENTS = 200, 30, 4
FLAGS = ("--model-path", SMALL, "--num-gpus", 2, "--checkpoint-every-s", 0, "--watchdog-min-s", 2, "--max-retries", 100)


def body(number):
    return {"prompt": f"number {number}", "seed": number, "width": 32, "height": 32, "async": True,
            "num_inference_steps": 20 + number % 7 * 20, "num_frames": 5, "output_format": "gif"}


def submit(server, number, stop=None):
    """Until it is accepted: the key makes a second try the same job."""
    while stop is None or not stop.is_set():
        try:
            status, _, data = server.request("/v1/videos", body(number), headers={"Idempotency-Key": f"chaos-{number}"}, timeout=20)
        except OSError:
            status = 0
        if status == 200:
            import json
            return json.loads(data)["id"]
        if status not in (0, 429, 503):
            raise AssertionError((status, data))
        time.sleep(0.1)
    return None


def all_jobs(server):
    jobs, after = {}, ""
    while True:
        page = server.json("/v1/jobs?limit=100&order=asc" + (f"&after={after}" if after else ""))
        for job in page["data"]:
            jobs[job["id"]] = job
        if not page["has_more"]:
            return jobs
        after = page["last_id"]


def wait_all(server, ids, seconds):
    """All jobs when they have ended; the server may be away meanwhile."""
    def ended():
        try:
            jobs = all_jobs(server)
        except (OSError, AssertionError):
            return None
        return jobs if all(i in jobs and jobs[i]["status"] in ("completed", "failed", "cancelled") for i in ids) else None
    return wait_for(ended, seconds, every=0.5)


def pixels(jobs, ids):
    return [[o["recipe"]["frames_sha256"] if o["recipe"] else None for o in jobs[i]["outputs"]] for i in ids]


class Chaos(unittest.TestCase):
    def hurt(self, server, dice):
        """One blow. The server itself is started again, as systemd would."""
        kind = dice.choice(["server", "scheduler", "worker", "worker", "hang"])
        if kind == "server":
            below = server.processes()
            server.stop(signal.SIGKILL)
            wait_for(lambda: not any(os.path.exists(f"/proc/{p}") for p in below), 20)
            server.start(server.port)
            return kind
        found = server.processes("scheduler" if kind == "scheduler" else "worker")
        if found:
            try:
                os.kill(dice.choice(found), signal.SIGSTOP if kind == "hang" else signal.SIGKILL)
            except ProcessLookupError:
                pass
        return kind

    def test_chaos(self):
        print(f"seed {SEED}", flush=True)
        dice = random.Random(SEED)
        with Server(*FLAGS) as server:
            calm_ids = [submit(server, number) for number in range(JOBS)]
            calm = pixels(wait_all(server, calm_ids, 300), calm_ids)
        with Server(*FLAGS) as server:
            ids, ends = [None] * JOBS, {}
            stop = threading.Event()

            def client(first):
                for number in range(first, JOBS, CLIENTS):
                    ids[number] = submit(server, number, stop)
                    time.sleep(0.05)
            clients = [threading.Thread(target=client, args=(n,), daemon=True) for n in range(CLIENTS)]
            for one in clients:
                one.start()
            for blow in range(KILLS):
                time.sleep(dice.uniform(0.1, 1.5))
                self.hurt(server, dice)
                try:
                    for i, job in all_jobs(server).items():
                        if job["completed_at"] is not None:
                            self.assertEqual(ends.setdefault(i, job["completed_at"]), job["completed_at"], "it ended twice")
                except (OSError, AssertionError) as error:
                    if "ended twice" in str(error):
                        raise
            for one in clients:
                one.join(120)
            stop.set()
            self.assertTrue(all(ids), "a client never got its job accepted")
            jobs = wait_all(server, ids, 600)
            self.assertEqual(len(jobs), JOBS)
            self.assertEqual([(job["id"], job["error"], job["attempts"]) for job in jobs.values() if job["status"] != "completed"], [])
            self.assertEqual(pixels(jobs, ids), calm)
            for i, when in ends.items():
                self.assertEqual(jobs[i]["completed_at"], when)
            self.check_store(server, jobs)
            below = wait_for(lambda: server.processes() if len(server.processes()) == 3 else None)
            self.assertEqual(server.stop(), 0)
            self.assertFalse([p for p in below if os.path.exists(f"/proc/{p}")], "orphans")

    def check_store(self, server, jobs):
        store = os.path.join(server.store, "store")
        with sqlite3.connect(os.path.join(store, "jobs.sqlite")) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        self.assertEqual(set(os.listdir(os.path.join(store, "jobs"))), set(jobs))
        for i in jobs:
            self.assertEqual(sorted(os.listdir(os.path.join(store, "jobs", i))), ["output-0.gif", "spritesheet-0.jpg", "thumbnail-0.jpg"])


class FullDisk(unittest.TestCase):
    """The store on a small tmpfs, in a mount namespace of its own."""

    def setUp(self):
        self.folder = f"/tmp/darkroom-full-{os.getpid()}"
        os.makedirs(self.folder, exist_ok=True)
        probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", self.folder], capture_output=True)
        if probe.returncode != 0:
            self.skipTest("no mount namespaces here: " + probe.stderr.decode())

    def test_full_disk(self):
        script = os.path.join(self.folder + ".sh")
        with open(script, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nmount -t tmpfs -o size=8m none {self.folder} || exit 99\nexec "{PROGRAM}" "$@"\n')
        os.chmod(script, 0o755)
        program = os.path.join(self.folder + "-unshare.sh")
        with open(program, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec unshare -rm {script} "$@"\n')
        os.chmod(program, 0o755)
        self.addCleanup(os.unlink, script)
        self.addCleanup(os.unlink, program)
        with Server(*FLAGS, store=self.folder, program=program) as server:
            inside = f"/proc/{server.process.pid}/root{self.folder}"
            first = server.wait_job(server.json("/v1/videos", body(0)))
            self.assertEqual(first["status"], "completed")
            running = [server.json("/v1/videos", {**body(n), "num_inference_steps": 900}) for n in range(2)]
            waiting = server.json("/v1/videos", body(2))
            with open(os.path.join(inside, "filler"), "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"\0" * 4096)
                except OSError:
                    pass
            status, headers, data = server.request("/v1/images/generations", {"prompt": "x" * 60000, "async": True, "width": 32, "height": 32})
            self.assertEqual(status, 507, data)
            self.assertIn(b"space", data)
            self.assertEqual(server.status("/health"), 200)
            time.sleep(8)
            states = [(job["status"], job["error"]) for job in (server.json(f"/v1/videos/{i['id']}") for i in (*running, waiting))]
            self.assertFalse([s for s in states if s[0] in ("failed", "cancelled")])
            os.unlink(os.path.join(inside, "filler"))
            for job in (*running, waiting):
                self.assertEqual(server.wait_job(job)["status"], "completed")
            self.assertEqual(server.wait_job(server.json("/v1/videos", body(3)))["status"], "completed")


if __name__ == "__main__":
    main()
