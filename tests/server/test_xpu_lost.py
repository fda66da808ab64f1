"""A device that is lost in the middle of a job: the worker ends, says why, and the job goes on from its checkpoint. On the XPU's CPU
device."""
import os
import tempfile

from server import Server, ServerTest, main, wait_for

LONG = {"prompt": "a blue square", "seed": 3, "width": 64, "height": 64, "num_frames": 1, "num_inference_steps": 60, "output_format": "gif"}


def frames_of(job):
    return [output["recipe"]["frames_sha256"] for output in job["outputs"]]


class LostDevice(ServerTest):
    def test_the_job_goes_on(self):
        with tempfile.TemporaryDirectory() as folder:
            loss = os.path.join(folder, "loss")
            env = {"DARKROOM_XPU_FAULT": f"lost:{loss}", "XDG_CACHE_HOME": folder}
            with Server("--device", "xpu:cpu", "--checkpoint-every-s", 0, env=env) as server:
                calm = frames_of(server.wait_job(server.json("/v1/videos", LONG)))
                worker = server.processes("worker")[0]
                job = server.json("/v1/videos", LONG)
                wait_for(lambda: server.json(f"/v1/videos/{job['id']}")["progress"] >= 20, every=0.01)
                with open(loss, "w", encoding="ascii"):
                    pass
                ended = server.wait_job(job)
                self.assertFalse(os.path.exists(loss))
                self.assertEqual(ended["status"], "completed", ended)
                self.assertEqual(frames_of(ended), calm)
                self.assertNotIn(worker, server.processes("worker"))
                self.assertIn("the device was lost", server.errors())


main()
