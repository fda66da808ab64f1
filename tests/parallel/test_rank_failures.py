#!/usr/bin/env python3
"""kill -9, and SIGSTOP, which is how a rank hangs, of each rank in each phase of a server whose replica has several ranks: the job ends
with the pixels of an undisturbed run, the log names the rank and the call, within --dist-timeout, and nothing is left on the host."""
import itertools
import unittest

from ranks import FULL, LAYOUTS, main, needs_full, rank_flags
from serving import CLIP, Server, Stages, frames_of, is_alive, left_overs, ranks_of, resources, send, signal, time, wait_for

TIMEOUT_S, WATCHDOG_S = 3, 4
FLAGS = ["--checkpoint-every-s", 0, "--dist-timeout", TIMEOUT_S, "--watchdog-min-s", WATCHDOG_S, "--max-retries", 5]
KILL, HANG = signal.SIGKILL, signal.SIGSTOP
PHASES = ["idle", "text encoding", "denoising", "decoding"]
FOLLOWER_GONE = r"rank {0} of all is gone"
FOLLOWER_HANGS = r"did not arrive: (rank \d+ \(\d+ of all\), )*rank \d+ \({0} of all\)"  # numbers within the group first; who waits for it is named, too


class Failures(unittest.TestCase):
    LAYOUT = "ulysses 2"

    @classmethod
    def setUpClass(cls):
        cls.before = left_overs()
        cls.server = Server(*rank_flags(cls.LAYOUT), *FLAGS)
        cls.prompts = itertools.count()

    @classmethod
    def tearDownClass(cls):
        pids = [pid for replica in ranks_of(cls.server) for pid in replica.values()]
        cls.server.stop()
        cls.server.close()
        assert not any(map(is_alive, pids)), pids
        assert left_overs() <= cls.before, left_overs() - cls.before

    def start(self, prompt):
        return self.server.json("/v1/videos", {**CLIP, "prompt": prompt})

    def ends_right(self, job, calm):
        done = self.server.wait_job(job)
        self.assertEqual((done["status"], frames_of(done)), ("completed", calm), done["error"])
        return done

    def calm(self):
        """A new prompt, and its pixels; its embeddings are forgotten with the worker that is about to be lost."""
        prompt = f"a blue square {next(self.prompts)}"
        return prompt, frames_of(self.server.wait_job(self.start(prompt)))

    def lose_within(self, number, rank, phase, what):
        """One failure; the server's log from then on."""
        server, (calm_prompt, calm) = self.server, self.calm()
        prompt = calm_prompt
        wait_for(lambda: len(ranks_of(server)) == 1 and server.status("/health") == 200)
        before = ranks_of(server)[0]
        told = len(server.errors())
        if phase == "text encoding":  # the first pass: what was encoded is remembered
            prompt = prompt + " at night"
        send_at = {"idle": None, "text encoding": ("text encoding", 0), "denoising": ("denoising", 4), "decoding": ("decoding", 0)}[phase]
        if send_at is None:
            send(before[rank], number)
            job = self.start(prompt)
        else:
            job = self.start(prompt)
            while not Stages(server, job).comes_to(*send_at):  # it was over before anybody listened
                server.wait_job(job)
                prompt = f"{prompt} again"
                job = self.start(prompt)
            send(before[rank], number)
        start = time.monotonic()
        done = server.wait_job(job)
        self.assertEqual(done["status"], "completed", (what, done["error"], server.errors()[told:]))
        self.assertLess(time.monotonic() - start, 2 * TIMEOUT_S + WATCHDOG_S + 5, what)
        calm = calm if prompt == calm_prompt else frames_of(server.wait_job(self.start(prompt)))
        self.assertEqual(frames_of(done), calm, (what, done["attempts"], server.errors()[told:]))
        wait_for(lambda: self.is_over(before, number, rank), 2 * WATCHDOG_S + 5)
        return server.errors()[told:], done["attempts"]

    def is_over(self, before, number, rank):
        """The replica is whole again. A rank that was lost while nobody needed it (decoding is the leader's) is missed by the next job."""
        found = ranks_of(self.server)
        if rank > 0 and found and found[0][0] == before[0]:
            self.server.wait_job(self.start(f"again {next(self.prompts)}"))
        found = ranks_of(self.server)
        return len(found) == 1 and found[0].keys() == before.keys() and found[0][rank] != before[rank] and \
            self.server.status("/health") == 200

    def holds(self):
        """The server's and the scheduler's descriptors, while nobody works: when half a second changed none, as connections close late."""
        def look():
            time.sleep(0.5)
            return [resources(pid) for pid in (self.server.process.pid, *self.server.processes("scheduler"))]
        wait_for(lambda: self.server.status("/health") == 200)
        before, held = None, look()
        while held != before:
            before, held = held, look()
        return held

    def check_all(self, cases):
        self.calm()
        held = self.holds()
        for number, rank, phase in cases:
            what = f"{number.name} of rank {rank} in {phase}"
            with self.subTest(what):
                start = time.monotonic()
                log, attempts = self.lose_within(number, rank, phase, what)
                print(f"{what}: {attempts} attempts, {time.monotonic() - start:.1f} s: {log.splitlines()[0] if log else ''}", flush=True)
                if rank > 0 and attempts > 0:
                    text = (FOLLOWER_GONE if number == KILL else FOLLOWER_HANGS).format(rank)
                    self.assertRegex(log, text)
                    self.assertRegex(log, r"(all_to_all|all_reduce|all_gather|broadcast|shift|barrier) of (\w+)")
                self.assertRegex(log, r"worker 0 \(pid \d+\)")
        self.assertEqual(self.holds(), held)
        self.assertEqual(len(ranks_of(self.server)[0]), LAYOUTS[self.LAYOUT][0])


class TwoRanks(Failures):
    def test_killed(self):
        self.check_all([(KILL, rank, phase) for rank in (0, 1) for phase in PHASES])

    def test_hanging(self):
        cases = [(HANG, rank, phase) for rank in (0, 1) for phase in PHASES]
        self.check_all(cases if FULL else [(HANG, 1, "denoising"), (HANG, 0, "denoising"), (HANG, 1, "idle")])


class FourRanks(Failures):
    LAYOUT = "tp 2 x ring 2"

    def test_killed(self):
        self.check_all([(KILL, rank, phase) for rank in range(4) for phase in PHASES] if FULL else
                       [(KILL, 3, "denoising"), (KILL, 0, "denoising")])

    @needs_full
    def test_hanging(self):
        self.check_all([(HANG, rank, phase) for rank in range(4) for phase in PHASES])


class Loading(unittest.TestCase):
    """A rank that is lost before the model was ever there: the replica is started again."""

    def lose(self, number, rank, delay):
        before = left_overs()
        with Server(*rank_flags("ulysses 2"), *FLAGS, ready=False) as server:
            ranks = wait_for(lambda: next((r for r in ranks_of(server) if rank in r), None), every=0.001)
            time.sleep(delay)
            send(ranks[rank], number)
            start = time.monotonic()
            server.wait_ready()
            wait_for(lambda: [rank in r and r[rank] != ranks[rank] for r in ranks_of(server)] == [True], 30)
            self.assertLess(time.monotonic() - start, TIMEOUT_S + WATCHDOG_S + 5)
            server.wait_ready()
            done = server.wait_job(server.json("/v1/videos", {**CLIP, "prompt": "a square"}))
            self.assertEqual(done["status"], "completed", done["error"])
            self.assertEqual(server.stop(), 0)
        self.assertEqual(left_overs() - before, set())

    def test_killed(self):
        for rank, delay in itertools.product((0, 1), (0, 0.02)):
            with self.subTest(rank=rank, delay=delay):
                self.lose(KILL, rank, delay)

    def test_hanging(self):
        for rank in (0, 1):
            with self.subTest(rank=rank):
                self.lose(HANG, rank, 0)


main()
