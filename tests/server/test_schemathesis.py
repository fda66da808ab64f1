"""schemathesis against /openapi.json: replies are what the description says, and no request makes a server error."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

from server import SMALL, Server, main

SEED = os.environ.get("DARKROOM_TEST_SEED", "1")
EXAMPLES = os.environ.get("DARKROOM_TEST_EXAMPLES", "30")
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance", "response_schema_conformance")
# Not unsupported_method: GET /v1/videos/generations is GET /v1/videos/{id} of a job that is not there, 404 and not 405.
# Small pictures and a short queue, so that nothing takes long; more is refused, which is an answer too.
FLAGS = ("--model-path", SMALL, "--max-pixels", 8192, "--max-queue", 8, "--max-body-mb", 1)
# A job whose time passes ends in 504, and should.
PATIENT = {"timeout_s": {"type": "number", "minimum": 100, "maximum": 1000}}
# What the model makes quickly; the description itself allows far more.
QUICK = {**PATIENT, "width": {"type": "integer", "enum": [16, 32]}, "height": {"type": "integer", "enum": [16, 32]}, "size": {"type": "string", "enum": ["32x32", "auto"]},
         "num_inference_steps": {"type": "integer", "minimum": 1, "maximum": 3}, "num_frames": {"type": "integer", "enum": [1, 5]},
         "n": {"type": "integer", "minimum": 1, "maximum": 2}, "seconds": {"type": "number", "minimum": 0.01, "maximum": 0.5}}


class Description(unittest.TestCase):
    def run_against(self, server, *more, checks=CHECKS, phases="examples,coverage,fuzzing,stateful", examples=EXAMPLES, quick=True):
        document = server.json("/openapi.json")
        for name, schema in document["components"]["schemas"].items():
            if name.endswith("Request"):
                properties = schema["properties"]
                properties.update({field: value for field, value in (QUICK if quick else PATIENT).items() if field in properties})
            if name.endswith("Request") and quick:
                schema["required"] = schema["required"] + [f for f in ("width", "height", "num_inference_steps") if f in properties]
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "openapi.json"), "w", encoding="utf-8") as file:
                json.dump(document, file)
            done = subprocess.run(
                [sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", server.url, "--seed", SEED, "--max-examples", str(examples),
                 "--checks", ",".join(checks), "--phases", phases, "--generation-database", "none", "--request-timeout", "60", "--no-color",
                 "--warnings", "off", "--exclude-path-regex", "lora", *more],
                cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=800, env=dict(os.environ, COLUMNS="160"))
        if os.environ.get("DARKROOM_TEST_VERBOSE"):
            print(done.stdout)
        if done.returncode != 0:
            self.fail(done.stdout[-20000:])
        self.assertEqual(server.status("/health"), 200)
        self.assertIsNone(server.process.poll())
        return document

    def test_conformance(self):
        """Bodies that can be made: jobs are, and the operations on them find them."""
        with Server(*FLAGS) as server:
            self.run_against(server)
            made = server.json("/v1/jobs?unfinished=false")["data"]
            self.assertGreater(sum(job["status"] == "completed" for job in made), 10)

    def test_the_whole_description(self):
        """Bodies within the ranges that the description tells, most of them refused."""
        with Server(*FLAGS) as server:
            self.run_against(server, phases="coverage,fuzzing", quick=False)

    def test_with_keys(self):
        with Server(*FLAGS, "--api-key", "secret-1") as server:
            document = self.run_against(server, "-H", "Authorization: Bearer secret-1", "--include-method", "GET", checks=(*CHECKS, "ignored_auth"),
                                        phases="coverage,fuzzing", examples=5)
            self.assertEqual(document["security"], [{"key": []}])


if __name__ == "__main__":
    main()
