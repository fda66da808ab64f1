"""Runs the examples of docs/api.md and docs/serving.md against a server, each as a program of its own. A block of ```json
behind one of ```sh is its reply, shortened: what it names must be there, with a value of the same type."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from server import ROOT, Server, main


def blocks(name):
    """(line, language, words behind it, text) of every example."""
    with open(os.path.join(ROOT, "docs", name), encoding="utf-8") as file:
        text = file.read()
    found = re.finditer(r"^```(sh|python|json)\b(.*)\n((?:(?!```).*\n)*)```", text, re.MULTILINE)
    return [(text.count("\n", 0, m.start()) + 1, m[1], m[2].split(), m[3]) for m in found]


def kind(value):
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


class Docs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.folder = tempfile.mkdtemp(prefix="darkroom-docs-")

    @classmethod
    def tearDownClass(cls):
        cls.server.close()
        shutil.rmtree(cls.folder)

    def run_block(self, where, language, text):
        command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-W", "ignore::DeprecationWarning", "-c", text]
        env = dict(os.environ, DARKROOM_URL=self.server.url)
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=120)
        self.assertEqual((done.returncode, done.stderr), (0, ""), f"{where}\n{text}\n{done.stdout[:2000]}")
        return done.stdout

    def compare(self, where, shown, got):
        """Everything that is shown is in what came."""
        self.assertEqual(kind(shown), kind(got), where)
        if isinstance(shown, dict):
            for name, value in shown.items():
                self.assertIn(name, got, where)
                self.compare(f"{where}.{name}", value, got[name])
        elif isinstance(shown, list) and shown and isinstance(shown[0], str):
            self.assertEqual(shown, got, where)
        elif isinstance(shown, list):
            self.assertGreaterEqual(len(got), len(shown), where)
            for i, value in enumerate(shown):
                self.compare(f"{where}[{i}]", value, got[i])

    def run_page(self, name):
        output, ran, compared = None, 0, 0
        for line, language, words, text in blocks(name):
            where = f"docs/{name}:{line}"
            with self.subTest(where):
                if language == "json":
                    self.assertIsNotNone(output, f"{where}: no example before it")
                    self.compare(where, json.loads(text), json.loads(output))
                    output, compared = None, compared + 1
                elif "no-test" not in words:
                    output, ran = self.run_block(where, language, text), ran + 1
        return ran, compared

    def test_api(self):
        ran, compared = self.run_page("api.md")
        self.assertGreater(ran, 25)
        self.assertGreater(compared, 15)

    def test_serving(self):
        self.assertGreater(self.run_page("serving.md")[0], 2)

    def test_routes(self):
        """docs/api.md names every route of the server."""
        with open(os.path.join(ROOT, "docs/api.md"), encoding="utf-8") as file:
            text = file.read()
        for path, methods in self.server.json("/openapi.json")["paths"].items():
            for spelling in (path, path.replace("/videos/", "/images/")):
                if spelling in text:
                    break
            else:
                self.assertIn(path, ("/{file}",), methods)

    def test_metrics(self):
        """docs/serving.md lists every metric."""
        with open(os.path.join(ROOT, "docs/serving.md"), encoding="utf-8") as file:
            text = file.read()
        with open(os.path.join(ROOT, "src/server/service/metrics.def"), encoding="utf-8") as file:
            names = re.findall(r"^METRIC\((\w+)", file.read(), re.MULTILINE)
        self.assertGreater(len(names), 20)
        self.assertEqual([], [name for name in names if f"`{name}`" not in text])


if __name__ == "__main__":
    main()
