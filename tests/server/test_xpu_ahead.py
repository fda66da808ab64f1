"""Prompts on a device of their own: the next request's are encoded while the one before is denoised. On the XPU's CPU device."""
import tempfile
import unittest

from server import Server, main, wait_for
from test_api_info import read_metrics

FIRST = {"prompt": "a red circle", "seed": 3, "width": 128, "height": 128, "num_frames": 5, "num_inference_steps": 60, "output_format": "gif"}
LONG = {**FIRST, "num_inference_steps": 1000}  # a worker tells its counts once a second; this is cancelled when they were heard
SECOND = {**FIRST, "prompt": "a blue square, that waits behind the circle", "num_inference_steps": 2}
KEPT = "darkroom_embedding_cache_"


class Ahead(unittest.TestCase):
    def count(self, name, **labels):
        _, samples = read_metrics(self.server.request("/metrics")[2].decode()).get(name, (None, {}))
        return samples.get((name, tuple(sorted({"worker": "0", **labels}.items()))), 0)

    def run_two(self, first, *flags, prepared, counted):
        """Asks for the second while the first is denoised, and cancels the first when `prepared` prompts were encoded within it.
        Counts of prompts, of which `counted` were looked for; how the first ended; pixels of the second."""
        with tempfile.TemporaryDirectory() as folder:
            with Server("--device", "xpu:cpu", "--attention-backend", "flash", *flags, env={"XDG_CACHE_HOME": folder}) as self.server:
                first = self.server.json("/v1/videos", first)
                path = f"/v1/videos/{first['id']}"
                wait_for(lambda: self.server.json(path)["progress"] > 0, every=0.01)
                second = self.server.json("/v1/videos", SECOND)
                if prepared > 0:
                    wait_for(lambda: self.count(KEPT + "prepared_total") == prepared)
                    self.assertEqual(self.server.json(path)["status"], "in_progress")
                    self.server.json(path + "/cancel", b"")
                first, second = [self.server.wait_job(job) for job in (first, second)]
                wait_for(lambda: self.count(KEPT + "misses_total") + self.count(KEPT + "hits_total", place="memory") == counted, 20)
                numbers = {name: self.count(KEPT + name) for name in ("prepared_total", "misses_total")}
                numbers["hits"] = self.count(KEPT + "hits_total", place="memory")
        self.assertEqual(second["status"], "completed", second)
        return numbers, first["status"], second["outputs"][0]["recipe"]["frames_sha256"]

    def test_within_the_denoising_of_another(self):
        numbers, ended, pixels = self.run_two(LONG, "--text-encoder-device", "cpu", prepared=1, counted=4)
        self.assertEqual(ended, "cancelled")
        self.assertEqual(numbers, {"prepared_total": 1, "misses_total": 2, "hits": 2})  # the negative prompt is empty in both
        numbers, ended, alone = self.run_two(FIRST, "--text-encoder-device", "cpu", "--embedding-cache-mb", 0, prepared=0, counted=0)
        self.assertEqual(ended, "completed")
        self.assertEqual(numbers["prepared_total"], 0)
        self.assertEqual(pixels, alone)


main()
