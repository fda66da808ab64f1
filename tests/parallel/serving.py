"""Servers whose replicas have several ranks, and what must be gone after them. argv[1] of every test is the program."""
import json
import os
import signal
import sys
import threading
import time
import urllib.request

from ranks import PROGRAM, ROOT

sys.path.insert(0, os.path.join(ROOT, "tests/server"))
sys.argv.insert(1, PROGRAM)
from server import Server, children, wait_for  # noqa: E402 (takes argv[1], too)

# The built-in model; each prompt is new, so that it has to be encoded. 33 frames are decoded for longer than it takes to kill somebody.
CLIP = {"seed": 3, "width": 64, "height": 64, "num_frames": 33, "num_inference_steps": 12, "output_format": "gif"}


def frames_of(job):
    return [output["recipe"]["frames_sha256"] for output in job["outputs"]]


def ranks_of(server):
    """{rank: pid} of all processes that compute, replica by replica: the worker leads."""
    found = []
    for pid, line in sorted(children(server.process.pid).items()):
        words = line.split()
        if len(words) > 1 and words[1] == "worker":
            own = {0: pid}
            for below, text in children(pid).items():
                own.update({int(word[7:]): below for word in text.split() if word.startswith("--rank=")})
            found.append(own)
    return found


def resources(pid):
    """What a process holds, but for what comes and goes with requests: kinds of descriptors with their numbers, mappings, threads."""
    held = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            kind = os.readlink(f"/proc/{pid}/fd/{name}").split(":")[0]
        except OSError:
            continue
        held[kind] = held.get(kind, 0) + 1
    return held


def is_alive(pid):
    return os.path.exists(f"/proc/{pid}")


def left_overs():
    """What ranks could leave on the host: names in shared memory, abstract sockets of a leader that is gone."""
    found = {f"/dev/shm/{name}" for name in os.listdir("/dev/shm") if not name.startswith("darkroom-test-")}
    with open("/proc/net/unix", encoding="ascii", errors="replace") as file:
        names = {line.split()[-1] for line in file if "@darkroom-ranks-" in line}
    return found | {name for name in names if not is_alive(int(name.split("-")[2]))}


class Stages:
    """Tells in which stage a job is, from its event stream."""

    def __init__(self, server, job):
        self.seen, self.server, self.job = [], server, job
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        try:
            with urllib.request.urlopen(f"{self.server.url}/v1/videos/{self.job['id']}/events", timeout=120) as reply:
                for line in reply:
                    if line.startswith(b"data: {"):
                        data = json.loads(line[6:])
                        if "stage" in data:
                            self.seen.append((data["stage"], data.get("step") or 0))
        except OSError:
            pass

    def wait(self, stage, step=0, seconds=60):
        wait_for(lambda: any(s == stage and n >= step for s, n in list(self.seen)), seconds, every=0.001)

    def comes_to(self, stage, step=0):
        """False: the job has ended, and nobody saw it there."""
        def look():
            return any(s == stage and n >= step for s, n in list(self.seen)) or not self.thread.is_alive()
        wait_for(look, 60, every=0.001)
        return any(s == stage and n >= step for s, n in list(self.seen))


def send(pid, number):
    os.kill(pid, number)


__all__ = ["CLIP", "Server", "Stages", "children", "frames_of", "is_alive", "left_overs", "ranks_of", "resources", "send", "signal", "time", "wait_for"]
