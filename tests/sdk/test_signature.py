"""Names: the package's against the program's tables, the exceptions against the list of statuses, types by mypy."""
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import unittest

import sdk
from darkroom import AsyncDiffGenerator, DiffGenerator, errors, files, options


def tables():
    """Title of a table -> key -> (accepted, default), of generate and of scheduler."""
    text = subprocess.run([sdk.PROGRAM, "parameters"], capture_output=True, text=True, check=True).stdout
    found, title, command = {}, "", ""
    for line in text.splitlines():
        if line.startswith("## darkroom "):
            command = line.split()[2]
        elif line.startswith("### "):
            title = line[4:]
        elif line.startswith("| `--") and command in ("generate", "scheduler"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            found.setdefault(title, {})[cells[1].strip("` ")] = (cells[2], cells[3])
    return found


class Names(unittest.TestCase):
    def names_of(self, function):
        return set(inspect.signature(function).parameters)

    def test_request(self):
        table = set(tables()["What to generate"]) - {"dump_tensors"}
        self.assertEqual(set(options.names(options.RequestOptions)) | {"prompt"}, table)
        for function in (DiffGenerator.generate, DiffGenerator.stream, DiffGenerator.plan, AsyncDiffGenerator.generate,
                         AsyncDiffGenerator.stream, AsyncDiffGenerator.plan):
            self.assertLessEqual(table, self.names_of(function))

    def test_output(self):
        table = set(tables()["Input and output"]) - {"prompt_file_path", "perf_dump_path", "explain", "json", "config"}
        own = {"return_frames", "priority", "timeout_s"}
        self.assertEqual(set(options.names(options.OutputOptions)) - own, table)

    def test_engine(self):
        found = tables()
        table = (set(found["Model and machine"]) | set(found["Several ranks"]) | set(found["Scheduler and workers"])) - {
            "checkpoint_every_s"}
        self.assertEqual(set(options.names(options.EngineOptions)) | {"model_path"}, table)
        for function in (DiffGenerator.from_pretrained, AsyncDiffGenerator.from_pretrained):
            self.assertLessEqual(table, self.names_of(function))

    def test_types(self):
        found = tables()
        rows = {**found["What to generate"], **found["Model and machine"], **found["Several ranks"], **found["Scheduler and workers"]}
        hints = {**options.RequestOptions.__annotations__, **options.EngineOptions.__annotations__}
        for name, hint in hints.items():
            text, accepted = hint.__forward_arg__, rows[name][0]
            wanted = ("int", "int | Sequence[int]") if accepted.startswith("whole") else ("float",) if accepted.startswith(
                "numbers") else ("bool",) if accepted.startswith("true") else ("str", "Path")
            self.assertIn(text, wanted, name)

    def test_formats(self):
        accepted = tables()["Input and output"]["output_format"][0]
        self.assertEqual(set(files.FORMATS), set(accepted.split(", ")))

    def test_twins(self):
        for name, method in vars(DiffGenerator).items():
            if not name.startswith("_"):
                twin = inspect.signature(getattr(AsyncDiffGenerator, name))
                self.assertEqual(list(inspect.signature(getattr(DiffGenerator, name)).parameters), list(twin.parameters), name)


class Errors(unittest.TestCase):
    def test_statuses(self):
        with open(os.path.join(sdk.ROOT, "include/darkroom/error.h"), encoding="utf-8") as file:
            rows = re.findall(r'X\((\w+), (\d+), (\d+), "([^"]+)"\)', file.read())
        self.assertEqual(len(rows), len(errors.ALL))
        for number, ((_, exit_code, http, text), kind) in enumerate(zip(rows, errors.ALL), 1):
            self.assertEqual((kind.status, kind.exit_code, kind.http_status, kind.text),
                             (number, int(exit_code), int(http), text), kind)
            self.assertIs(type(errors.of_status(number, "x")), kind)
            self.assertIs(type(errors.of_code(text.replace(" ", "_"), "x")), kind)
            self.assertIs(type(errors.of_exit_code(int(exit_code), "x")), kind)

    def test_http(self):
        busy = errors.of_http(429, {"message": "later"}, "7")
        self.assertIsInstance(busy, errors.BusyError)
        self.assertEqual((busy.message, busy.retry_after), ("later", 7.0))
        self.assertIsInstance(errors.of_http(403, {}, None), errors.AccessDeniedError)
        self.assertIsInstance(errors.of_http(418, {}, None), errors.InvalidRequestError)
        self.assertIsInstance(errors.of_http(599, {}, None), errors.InternalError)
        self.assertIsInstance(errors.of_http(500, {"code": "no_space_left"}, None), errors.NoSpaceError)


class Types(unittest.TestCase):
    @unittest.skipUnless(importlib.util.find_spec("mypy"), "mypy is not installed")
    def test_strict(self):
        folder = os.path.join(sdk.ROOT, "python")
        done = subprocess.run([sys.executable, "-m", "mypy", "--cache-dir", os.devnull, "--config-file", "pyproject.toml", "-p",
                               "darkroom"], cwd=folder, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


unittest.main()
