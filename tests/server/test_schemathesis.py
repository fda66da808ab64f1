"""schemathesis against /openapi.json: replies are what the description says, and no request makes a server error."""
import os
import subprocess
import sys
import tempfile
import unittest

from server import SMALL, Server, main

SEED = os.environ.get("DARKROOM_TEST_SEED", "1")
EXAMPLES = os.environ.get("DARKROOM_TEST_EXAMPLES", "30")
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance", "response_schema_conformance",
          "unsupported_method")
# Small pictures and a short queue, so that nothing takes long; more is refused, which is an answer too.
FLAGS = ("--model-path", SMALL, "--max-pixels", 1024, "--max-queue", 4, "--max-body-mb", 1)


class Description(unittest.TestCase):
    def run_against(self, server, *more):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json", "--seed", SEED, "--max-examples", EXAMPLES,
                 "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--request-timeout", "60",
                 "--no-color", "--warnings", "off", "--exclude-path-regex", "lora", *more],
                cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=800, env=dict(os.environ, COLUMNS="160"))
        if done.returncode != 0:
            self.fail(done.stdout[-12000:])
        self.assertEqual(server.status("/health"), 200)
        self.assertIsNone(server.process.poll())

    def test_conformance(self):
        with Server(*FLAGS) as server:
            self.run_against(server)

    def test_with_keys(self):
        with Server(*FLAGS, "--api-key", "secret-1") as server:
            self.run_against(server, "--checks", ",".join((*CHECKS, "ignored_auth")), "-H", "Authorization: Bearer secret-1",
                             "--include-method", "GET", "--max-examples", "5")


if __name__ == "__main__":
    main()
