#!/usr/bin/env python3
"""Starting and ending groups of four ranks: nothing is left of them. tests/unit/comm's cycles are about groups in one process; these are
engines: processes that load a model, meet, compute and end. DARKROOM_TEST_CYCLES says how many (10)."""
import os
import signal
import subprocess
import time
import unittest

from ranks import PROGRAM, ROOT_MAY, SMALL, main
from serving import left_overs

CYCLES = int(os.environ.get("DARKROOM_TEST_CYCLES", "10"))


def own_processes(session):
    """Processes of that session."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.getsid(int(name)) == session:
                    found.append(int(name))
            except OSError:
                pass
    return found


class Cycles(unittest.TestCase):
    def start(self, frames, steps):
        return subprocess.Popen([PROGRAM, "generate", "--prompt", "a cat", "--save-output=false", "--model-path", SMALL, "--width", "32", "--height", "32",
                                 "--num-frames", str(frames), "--num-inference-steps", str(steps), "--num-gpus", "4", "--tp-size", "2", "--ring-degree", "2",
                                 "--ulysses-degree", "1", "--log-level", "error"], env=dict(os.environ, **ROOT_MAY), start_new_session=True,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def check_end(self, process):
        _, said = process.communicate(timeout=60)
        end = time.monotonic() + 5
        while own_processes(process.pid) and time.monotonic() < end:
            time.sleep(0.005)
        self.assertEqual(own_processes(process.pid), [])
        return said

    def test_cycles(self):
        """Every fourth is killed: the ranks end with the one that leads."""
        before, start = left_overs(), time.monotonic()
        for cycle in range(CYCLES):
            killed = cycle % 4 == 3
            process = self.start(81, 1000) if killed else self.start(1, 3)
            if killed:
                time.sleep(0.05 + 0.01 * (cycle % 32))
                process.send_signal(signal.SIGKILL)
            said = self.check_end(process)
            self.assertEqual(process.returncode, -signal.SIGKILL if killed else 0, said)
            if cycle % 100 == 99:
                print(f"{cycle + 1} cycles, {time.monotonic() - start:.0f} s", flush=True)
        self.assertEqual(left_overs() - before, set())
        print(f"{CYCLES} cycles of 4 ranks in {time.monotonic() - start:.0f} s", flush=True)


main()
