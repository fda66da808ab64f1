"""The asyncio twin."""
import asyncio
import contextlib
import time
import unittest

import numpy
import sdk
from sdk import FAST, LONG

import darkroom
from darkroom import AsyncDiffGenerator, DiffGenerator


class Async(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.generator = await AsyncDiffGenerator.from_pretrained(sdk.SMALL)

    async def asyncTearDown(self):
        await self.generator.close()

    async def idle(self):
        for _ in range(500):
            if all(w["state"] == "idle" for w in self.generator.info()["workers"]):
                return
            await asyncio.sleep(0.02)
        self.fail("a worker is still busy")

    async def test_side_by_side(self):
        results = await asyncio.gather(*(self.generator.generate("x", **FAST, num_frames=1, seed=s, save_output=False)
                                         for s in range(6)))
        self.assertEqual([r.seed for r in results], list(range(6)))
        with DiffGenerator.from_pretrained(sdk.SMALL) as other:
            for result in results:
                alone = other.generate("x", **FAST, num_frames=1, seed=result.seed, save_output=False)
                numpy.testing.assert_array_equal(alone.frames, result.frames)

    async def test_the_loop_stays_free(self):
        ticks = []

        async def tick():
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.01)

        ticker = asyncio.create_task(tick())
        await self.generator.generate("x", width=32, height=32, num_frames=9, num_inference_steps=200, save_output=False)
        ticker.cancel()
        self.assertGreater(len(ticks), 5)
        self.assertLess(max(b - a for a, b in zip(ticks, ticks[1:])), 0.25)

    async def test_stream_and_callbacks(self):
        kinds = [event.kind async for event in self.generator.stream("x", **FAST, num_frames=1, save_output=False)]
        self.assertEqual((kinds[-1], kinds.count("done")), ("done", 1))
        steps = []
        results = await self.generator.generate(["a", "b"], **FAST, num_frames=1, save_output=False,
                                                on_progress=lambda e: steps.append((e.prompt_index, e.step)))
        self.assertEqual([r.prompt for r in results], ["a", "b"])
        self.assertLessEqual({(0, 1), (0, 2), (1, 1), (1, 2)}, set(steps))

    async def test_cancelling_the_task(self):
        running = asyncio.Event()
        task = asyncio.create_task(self.generator.generate("x", **LONG, save_output=False, on_progress=lambda e: running.set()))
        await asyncio.wait_for(running.wait(), 20)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        await self.idle()
        task = asyncio.create_task(self.generator.generate("x", **LONG, save_output=False))
        await asyncio.sleep(0)  # cancelled while it is being submitted
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.3)
        await self.idle()

    async def test_leaving_early(self):
        async with contextlib.aclosing(self.generator.stream("x", **LONG, save_output=False)) as events:
            async for event in events:
                if event.kind == "progress" and event.step == 2:
                    break
        await self.idle()

    async def test_failures(self):
        with self.assertRaises(darkroom.UnknownArgumentError):
            await self.generator.generate("x", widht=3)
        with self.assertRaises(darkroom.InvalidRequestError):
            await self.generator.generate("x", width=33, save_output=False)
        with self.assertRaises(darkroom.OutOfTimeError):
            await self.generator.generate("x", **LONG, save_output=False, timeout_s=0.3)
        self.assertEqual((await self.generator.plan(num_frames=6)).num_frames, 5)


unittest.main()
