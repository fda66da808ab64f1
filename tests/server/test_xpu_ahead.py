"""Prompts on a device of their own: the next request's are encoded while the one before is denoised. On the XPU's CPU device."""
import tempfile
import unittest

from server import Server, main, wait_for
from test_api_info import read_metrics

FIRST = {"prompt": "a red circle", "seed": 3, "width": 128, "height": 128, "num_frames": 5, "num_inference_steps": 60, "output_format": "gif"}
SECOND = {**FIRST, "prompt": "a blue square, that waits behind the circle", "num_inference_steps": 2}
KEPT = "darkroom_embedding_cache_"


class Ahead(unittest.TestCase):
    def count(self, name, **labels):
        _, samples = read_metrics(self.server.request("/metrics")[2].decode()).get(name, (None, {}))
        return samples.get((name, tuple(sorted({"worker": "0", **labels}.items()))), 0)

    def run_two(self, *flags, kept):
        """Whether the first was being denoised still when the second's prompt had been encoded; how many prompts were kept; pixels."""
        def prepared():
            done = self.count(KEPT + "prepared_total")
            job = self.server.json(f"/v1/videos/{first['id']}")
            return (done, job) if done or job["status"] != "in_progress" and job["status"] != "queued" else None
        with tempfile.TemporaryDirectory() as folder:
            with Server("--device", "xpu:cpu", "--attention-backend", "flash", *flags, env={"XDG_CACHE_HOME": folder}) as self.server:
                first = self.server.json("/v1/videos", FIRST)
                wait_for(lambda: self.server.json(f"/v1/videos/{first['id']}")["progress"] >= 5, every=0.01)
                second = self.server.json("/v1/videos", SECOND)
                done, job = wait_for(prepared)
                within = done > 0 and job["status"] == "in_progress" and job["progress"] < 100
                ended = [self.server.wait_job(job) for job in (first, second)]
                wait_for(lambda: self.count(KEPT + "misses_total") + self.count(KEPT + "hits_total", place="memory") == kept, 20)
                numbers = {name: self.count(KEPT + name) for name in ("prepared_total", "misses_total")}
                numbers["hits"] = self.count(KEPT + "hits_total", place="memory")
        for job in ended:
            self.assertEqual(job["status"], "completed", job)
        return within, numbers, ended[1]["outputs"][0]["recipe"]["frames_sha256"]

    def test_within_the_denoising_of_another(self):
        within, numbers, pixels = self.run_two("--text-encoder-device", "cpu", kept=4)
        self.assertTrue(within)
        self.assertEqual(numbers, {"prepared_total": 1, "misses_total": 2, "hits": 2})  # the negative prompt is empty in both
        within, numbers, alone = self.run_two("--text-encoder-device", "cpu", "--embedding-cache-mb", 0, kept=0)
        self.assertFalse(within)
        self.assertEqual(pixels, alone)


main()
