#!/usr/bin/env python3
"""--device and darkroom selftest: without the module for Intel GPUs, and, where DK_TEST_XPU is set, with it."""
import json
import os
import re
import unittest

from command import CommandTest, main

NOWHERE = {"DARKROOM_MODULE_PATH": "/nonexistent"}


class WithoutModule(CommandTest):
    def test_the_missing_module_is_named(self):
        for command in (["selftest"], ["generate", "--prompt", "x", "--output-path", self.folder]):
            for device in ("xpu", "xpu:1", "xpu:cpu"):
                self.fails(3, ["/nonexistent/libdarkroom-xpu.so", "./dev build --xpu", "DARKROOM_MODULE_PATH"],
                           *command, "--device", device, env=NOWHERE)

    def test_as_json(self):
        done = self.fails(3, [], "selftest", "--device", "xpu", "--json", env=NOWHERE)
        error = json.loads(done.stdout)["error"]
        self.assertEqual(error["exit_code"], 3)
        self.assertIn("./dev build --xpu", error["message"])

    def test_a_file_that_is_no_module(self):
        self.write("libdarkroom-xpu.so", "text")
        self.fails(5, ["libdarkroom-xpu.so cannot be loaded"], "selftest", "--device", "xpu",
                   env={"DARKROOM_MODULE_PATH": self.folder})

    def test_other_names(self):
        for device in ("tpu", "xpux", "cpu:1", "XPU"):
            self.fails(2, [f"'{device}'", "accepted are cpu, xpu, xpu:N"], "selftest", "--device", device, env=NOWHERE)

    def test_what_means_nothing_on_a_cpu_is_said_or_refused(self):
        small = ["generate", "--prompt", "x", "--width", "32", "--height", "32", "--num-frames", "1", "--num-inference-steps", "1",
                 "--output-path", self.folder]
        told = self.passes(*small, "--explain", "--attention-backend", "sdpa", "--dit-layerwise-offload").stderr
        self.assertIn("attention: flash (sdpa: a CPU computes it as flash)", told)
        self.assertIn("offload changes nothing on cpu, ", told)
        self.fails(2, ["'int4-weights'", "accepted on the CPU are none, int8"], *small, "--quantization", "int4-weights")

    def test_the_cpu_is_told_of_as_before(self):
        report = json.loads(self.passes("selftest", "--device", "cpu", "--json", env=NOWHERE).stdout)
        self.assertTrue(report["passed"])
        self.assertIn("kernels", report)
        self.assertNotIn("module", report)


@unittest.skipUnless(os.environ.get("DK_TEST_XPU"), "this build has no module")
class WithModule(CommandTest):
    def test_the_report(self):
        report = json.loads(self.passes("selftest", "--device", "xpu:cpu", "--json",
                                        env={"ZE_AFFINITY_MASK": "0,1"}).stdout)
        self.assertTrue(report["passed"])
        self.assertEqual([check["dtype"] for check in report["checks"]], ["f32", "bf16"])
        self.assertTrue(report["device"].startswith("xpu:cpu, "), report["device"])
        module = report["module"]
        self.assertRegex(module["libraries"], r"oneDNN \d+\.\d+")
        self.assertEqual(module["environment"]["ZE_AFFINITY_MASK"], "0,1")
        self.assertIsNone(module["environment"]["OCL_ICD_FILENAMES"])  # what the module sets itself is not the user's
        cpu = [device for device in module["devices"] if device["device"] == "xpu:cpu"][0]
        self.assertEqual((cpu["kind"], cpu["backend"]), ("cpu", "opencl"))
        self.assertTrue(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", cpu["uuid"]), cpu["uuid"])
        self.assertNotIn(set(cpu["uuid"]), ({"0", "-"}, {"f", "-"}))
        self.assertTrue(cpu["name"] and cpu["driver"])
        self.assertGreater(cpu["compute_units"], 0)
        self.assertIn(16, cpu["sub_group_sizes"])
        with open("/proc/meminfo", encoding="ascii") as file:
            memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
        self.assertAlmostEqual(cpu["memory_bytes"] / memory["MemTotal"], 1, delta=0.1)
        self.assertAlmostEqual(cpu["free_bytes"] / memory["MemAvailable"], 1, delta=0.3)

    def test_what_was_chosen_is_explained(self):
        told = self.passes("generate", "--device", "xpu:cpu", "--prompt", "x", "--width", "32", "--height", "32", "--num-frames", "1",
                           "--num-inference-steps", "2", "--output-path", self.folder, "--explain", "--dit-layerwise-offload",
                           "--quantization", "int8", env={"XDG_CACHE_HOME": self.folder}).stderr
        self.assertRegex(told, r"attention: auto; .* queries, .*multiply \d+\.\d ms")
        self.assertRegex(told, r"quantization: int8: 60 layers")
        self.assertRegex(told, r"offload: \d+ copies, \d+\.\d MB")

    def test_the_text(self):
        text = self.passes("selftest", "--device", "xpu:cpu").stdout
        for part in ("oneDNN", "ZE_AFFINITY_MASK", "xpu:cpu", "uuid", "MiB free", "sub-group sizes", "f32", "bf16", "passed"):
            self.assertIn(part, text)
        self.assertNotIn("FAILED", text)

    def test_what_is_hidden(self):
        done = self.fails(3, ["xpu:cpu", "ONEAPI_DEVICE_SELECTOR"], "selftest", "--device", "xpu:cpu",
                          env={"ONEAPI_DEVICE_SELECTOR": "level_zero:gpu"})
        self.assertRegex(done.stdout, r"ONEAPI_DEVICE_SELECTOR +level_zero:gpu")  # why, although nothing was computed

    def test_names(self):
        for device in ("xpu:x", "xpu:", "xpu:-1", "xpu:1024", "xpu:0x", "xpu:cpux"):
            self.fails(2, [f"'{device}'", "accepted are xpu, xpu:N"], "selftest", "--device", device)
        self.fails(3, ["xpu:7", "xpu:cpu"], "selftest", "--device", "xpu:7")


if __name__ == "__main__":
    main()
