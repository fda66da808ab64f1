#!/usr/bin/env python3
"""Replicas whose ranks a launcher started: rank 0's server gives requests to the leaders of all of them, whose frames are those of one rank. A
replica that is lost costs no job and no other replica, and comes back when it is started again."""
import base64
import functools
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

from ranks import PICTURE, PROGRAM, ROOT_MAY, SMALL, hiding, main, needs_full, needs_mpi
from serving import Server, Stages, children, frames_of, is_alive, wait_for

CLIP = {"prompt": "a red circle", "width": 32, "height": 32, "num_frames": 5, "num_inference_steps": 8, "output_format": "gif"}
MODEL = ("--model-path", SMALL, "--dtype", "f32", "--batching-max-size", 1, "--checkpoint-every-s", 0)
TWO_RANKS = ("--num-gpus", 2, "--sp-degree", 2)
SECONDS = 90  # for what takes one or two


def free_ports(count):
    """The first of so many neighbours that nobody has now."""
    for first in range(23000, 30000, count):
        taken = False
        for port in range(first, first + count):
            with socket.socket() as trial:
                try:
                    trial.bind(("127.0.0.1", port))
                except OSError:
                    taken = True
        if not taken:
            return first
    raise AssertionError("no free ports")


class Launched(Server):
    """A server whose ranks somebody else started; others of them than rank 0 are self.others. is_hidden: they do not see the store's files."""

    def __init__(self, ranks, *flags, by="environment", address=None, is_hidden=False):
        self.ranks, self.by, self.others, self.is_hidden = ranks, by, {}, is_hidden
        self.folder = tempfile.TemporaryDirectory(prefix="darkroom-test-")
        self.place = address or {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(8))}
        super().__init__(*flags, ready=False)

    def words(self, rank, flags=None):
        return [PROGRAM, "serve", "--store-path", os.path.join(self.store, "store" if rank == 0 else f"store-{rank}"), "--port", "0",
                *map(str, self.flags if flags is None else flags)]

    def place_of(self, rank):
        return dict(os.environ, **ROOT_MAY, **self.place, XDG_RUNTIME_DIR=self.folder.name, WORLD_SIZE=str(self.ranks), RANK=str(rank))

    def start_rank(self, rank):
        with open(os.path.join(self.folder.name, f"rank-{rank}"), "ab") as log:
            hides = []
            if self.is_hidden:
                os.makedirs(os.path.join(self.store, "store"), exist_ok=True)
                hides = hiding(os.path.join(self.store, "store"))
            self.others[rank] = subprocess.Popen([*hides, *self.words(rank)], env=self.place_of(rank), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self, port=0):
        self.log = open(os.path.join(self.folder.name, "log"), "w+", encoding="utf-8")
        words, env = self.words(0), self.place_of(0)
        if self.by == "mpirun":
            words = ["mpirun", "--oversubscribe", "-n", str(self.ranks), *words]
            env = dict(os.environ, **ROOT_MAY)
        self.process = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True)
        for rank in range(1, self.ranks if self.by == "environment" else 1):
            self.start_rank(rank)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise AssertionError(f"no server: {line!r} {self.errors()}")
        self.url = line.split()[2]
        self.port = int(self.url.rsplit(":", 1)[1])

    def workers(self):
        return self.json("/server_info").get("workers") or []

    def wait_up(self):
        """Until all replicas are; returns what is told of them."""
        wait_for(self.workers, SECONDS)
        return self.wait_states(*["idle"] * len(self.workers()))

    def wait_states(self, *states):
        """Until the workers are in these states; returns what is told of them."""
        try:
            wait_for(lambda: [worker["state"] for worker in self.workers()] == list(states), SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.workers()}\n{self.errors()}\n{self.others_say()}") from None
        return self.workers()

    def others_say(self):
        said = []
        for rank in self.others:
            with open(os.path.join(self.folder.name, f"rank-{rank}"), encoding="utf-8", errors="replace") as file:
                said.append(f"rank {rank}: {file.read()}")
        return "\n".join(said)

    def make(self, seeds, **more):
        """Videos at once, a seed each; their records when they have ended."""
        jobs = [self.json("/v1/videos", {**CLIP, "seed": seed, **more}) for seed in seeds]
        return [self.wait_job(job) for job in jobs]

    def everybody(self):
        """All processes of all ranks."""
        roots = [self.process.pid, *(other.pid for other in self.others.values())]
        return {pid for root in roots for pid in [root, *children(root)] if is_alive(pid)}

    def server_pid(self):
        """Rank 0's own process, which mpirun starts."""
        if self.by == "environment":
            return self.process.pid
        return next(w for w in sorted(children(self.process.pid)) if "scheduler" in " ".join(children(w).values()))

    def end(self):
        """As a user ends the server; the codes of all ranks, none of which has left a process behind."""
        everybody = self.everybody()
        os.kill(self.server_pid(), signal.SIGTERM)
        codes = [process.wait(SECONDS) for process in (self.process, *self.others.values())]
        wait_for(lambda: not any(is_alive(pid) for pid in everybody), SECONDS)
        return codes

    def close(self):
        for process in (self.process, *self.others.values()):
            if process.poll() is None:
                process.kill()
                process.wait()
        self.process.stdout.close()
        self.log.close()
        self.folder.cleanup()
        shutil.rmtree(self.store, ignore_errors=True)


class Replicas(unittest.TestCase):
    """Of ranks that were started from outside."""

    @functools.lru_cache(maxsize=None)
    def of_one_replica(self, *flags):
        """What a server of its own makes: of one rank, or of the ranks that a replica has, whose sums are rounded in another order."""
        with Server(*MODEL, *flags) as server:
            jobs = [server.json("/v1/videos", {**CLIP, "seed": seed}) for seed in range(6)]
            return [frames_of(server.wait_job(job)) for job in jobs]

    def check(self, server, *flags):
        """Requests at once go to all replicas, and are what one replica makes."""
        server.wait_up()
        made = server.make(range(6))
        self.assertEqual([job["status"] for job in made], ["completed"] * 6, server.errors())
        self.assertEqual([frames_of(job) for job in made], self.of_one_replica(*flags))
        wait_for(lambda: all(worker["busy_seconds"] > 0 for worker in server.workers()), SECONDS)
        codes = server.end()
        self.assertEqual(set(codes), {0}, f"{codes}\n{server.errors()}\n{server.others_say()}")

    @needs_mpi
    def test_mpirun(self):
        with Launched(2, *MODEL, "--dp-size", 2, by="mpirun") as server:
            self.check(server)

    @needs_mpi
    def test_mpirun_with_ranks(self):
        with Launched(4, *MODEL, "--dp-size", 2, "--sp-degree", 2, by="mpirun") as server:
            self.check(server, *TWO_RANKS)

    def test_environment(self):
        with Launched(3, *MODEL, "--dp-size", 3) as server:
            self.check(server)

    def test_environment_with_ranks(self):
        """Each replica is a world of its own: of two ranks, by shared memory."""
        place = {"MASTER_ADDR": f"unix:@darkroom-test-{os.getpid()}"}
        with Launched(4, *MODEL, "--dp-size", 2, "--sp-degree", 2, address=place) as server:
            self.check(server, *TWO_RANKS)


class Strangers(unittest.TestCase):
    """Who does not belong to the server is sent away with the reason, and costs nobody anything."""

    def sent_away(self, server, *flags):
        done = subprocess.run(server.words(1, flags), env=server.place_of(1), capture_output=True, text=True, timeout=SECONDS, check=False)
        self.assertEqual(done.returncode, 2, done.stderr)
        return done.stderr

    def test_strangers(self):
        with Launched(2, *MODEL, "--dp-size", 2) as server:
            pids = [worker["pid"] for worker in server.wait_up()]
            self.assertIn("replica 1 is there twice", self.sent_away(server, *server.flags))
            self.assertEqual([worker["pid"] for worker in server.workers()], pids)
            server.others[1].terminate()
            server.others[1].wait(SECONDS)
            self.assertRegex(self.sent_away(server, "--dp-size", 2, "--dtype", "f32"), "replica 1 has model_path 'tiny-wan' and dtype f32, replica 0 has")
            self.assertIn("dtype bf16, replica 0", self.sent_away(server, "--dp-size", 2, "--model-path", SMALL, "--dtype", "bf16"))
            server.start_rank(1)
            server.wait_up()
            self.assertEqual([frames_of(job) for job in server.make(range(2))], Replicas().of_one_replica()[:2])
            self.assertEqual(server.end(), [0, 0])


class Losses(unittest.TestCase):
    """Of ranks that nobody but this test starts again."""

    def run_both(self, server, **more):
        """A long job on each replica; [job of replica 0, job of replica 1]."""
        jobs = [server.json("/v1/videos", {**CLIP, "seed": seed, "num_inference_steps": 500, **more}) for seed in (1, 2)]
        workers = wait_for(lambda: (found := server.workers()) and all(worker["tasks"] for worker in found) and found, SECONDS, every=0.005)
        jobs.sort(key=lambda job: workers[1]["tasks"][0].startswith(job["id"]))
        wait_for(lambda: server.json(f"/v1/videos/{jobs[1]['id']}")["progress"] >= 3, SECONDS, every=0.005)
        return jobs

    def check_done(self, server, jobs, attempts):
        done = [server.wait_job(job) for job in jobs]
        self.assertEqual([job["status"] for job in done], ["completed"] * len(jobs), server.errors())
        self.assertEqual([job["attempts"] for job in done], attempts, server.errors())
        return [frames_of(job) for job in done]

    def test_a_leader_is_killed(self):
        with Launched(2, *MODEL, "--dp-size", 2) as server:
            server.wait_up()
            calm = self.check_done(server, self.run_both(server), [0, 0])
            jobs = self.run_both(server)
            first = server.workers()[0]["pid"]
            below = list(children(server.others[1].pid))
            server.others[1].kill()
            server.others[1].wait()
            wait_for(lambda: not any(is_alive(pid) for pid in below), SECONDS)
            self.assertEqual(sorted(self.check_done(server, jobs, [0, 1])), sorted(calm))
            self.assertEqual(server.wait_states("idle", "down")[0]["pid"], first, "the other replica is the same process")
            server.start_rank(1)  # as its starter would
            server.wait_up()
            self.check_done(server, self.run_both(server), [0, 0])
            self.assertEqual(server.end(), [0, 0])

    def test_a_worker_is_killed(self):
        """A replica of one rank starts its worker again by itself."""
        with Launched(2, *MODEL, "--dp-size", 2) as server:
            server.wait_up()
            jobs = self.run_both(server)
            os.kill(server.workers()[1]["pid"], signal.SIGKILL)
            self.check_done(server, jobs, [0, 1])
            workers = server.wait_up()
            self.assertEqual([worker["restarts"] for worker in workers], [0, 1])
            os.kill(next(pid for pid, line in children(server.process.pid).items() if " scheduler " in line), signal.SIGKILL)
            wait_for(lambda: len(server.workers()) == 2 and server.workers()[1]["restarts"] == 0, SECONDS)
            server.wait_up()  # the next scheduler is found by the relay
            self.check_done(server, self.run_both(server), [0, 0])
            self.assertEqual(server.end(), [0, 0])

    def test_one_that_does_not_see_the_store(self):
        """Pictures are sent to its worker, checkpoints from there; after its loss it goes on from the last one, and leaves nothing behind."""
        if subprocess.run([*hiding(os.path.dirname(PICTURE)), "true"], capture_output=True, check=False).returncode != 0:
            self.skipTest("this user may hide no folders")
        with open(PICTURE, "rb") as file:
            picture = {"input_reference": base64.b64encode(file.read()).decode()}
        with Server(*MODEL) as server:
            calm = self.check_done(server, [server.json("/v1/videos", {**CLIP, "seed": seed, "num_inference_steps": 500, **picture})
                                            for seed in (1, 2)], [0, 0])
        with Launched(2, *MODEL, "--dp-size", 2, is_hidden=True) as server:
            server.wait_up()
            jobs = self.run_both(server, **picture)
            stages = Stages(server, jobs[1])
            stages.wait("denoising", 30)
            os.kill(server.workers()[1]["pid"], signal.SIGKILL)
            wait_for(lambda: server.workers()[1]["state"] != "busy", SECONDS, every=0.005)
            before = len(stages.seen)
            self.assertEqual(sorted(self.check_done(server, jobs, [0, 1])), sorted(calm))
            self.assertGreater(min(step for _, step in stages.seen[before:] if step > 0), 10, "it began anew")
            self.assertEqual({job["outputs"][0]["recipe"]["image_path"] for job in map(server.wait_job, jobs)}, {"input-image.png"})
            wait_for(lambda: not glob.glob(os.path.join(server.folder.name, "darkroom-relay-*")), SECONDS)
            self.assertEqual(server.end(), [0, 0])

    def test_a_rank_that_follows_is_killed(self):
        """Its replica ends, whose starter starts it again; the other one does not notice."""
        place = {"MASTER_ADDR": f"unix:@darkroom-test-{os.getpid()}-lost"}
        with Launched(4, *MODEL, "--dp-size", 2, "--sp-degree", 2, "--dist-timeout", 20, address=place) as server:
            first = server.wait_up()[0]["pid"]
            jobs = self.run_both(server)
            server.others[3].kill()
            self.assertNotEqual(server.others[2].wait(SECONDS), 0)
            self.check_done(server, jobs, [0, 1])
            for rank in (2, 3):
                server.others[rank].wait(SECONDS)
                server.start_rank(rank)
            self.assertEqual(server.wait_up()[0]["pid"], first)
            self.check_done(server, self.run_both(server), [0, 0])
            self.assertEqual(server.end(), [0] * 4)

    @needs_full
    def test_the_server_is_killed(self):
        """Nobody waits for it for ever."""
        with Launched(2, *MODEL, "--dp-size", 2) as server:
            server.wait_up()
            everybody = server.everybody()
            server.process.kill()
            self.assertNotEqual(server.others[1].wait(SECONDS), 0)
            wait_for(lambda: not any(is_alive(pid) for pid in everybody - {server.process.pid}), SECONDS)
            self.assertIn("was not heard of", server.others_say())


main()
