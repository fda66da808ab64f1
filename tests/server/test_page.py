"""The page of `darkroom serve` in headless Chromium. argv[1] is the program; argv[2] or
DARKROOM_SCREENSHOT is where the screenshot goes, else a folder that is removed."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

PROGRAM = os.path.abspath(sys.argv.pop(1))
SCRATCH = tempfile.TemporaryDirectory()
SCREENSHOT = os.path.abspath(sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-")
                             else os.environ.get("DARKROOM_SCREENSHOT", os.path.join(SCRATCH.name, "page.png")))
CHROMEDRIVER = os.environ.get("CHROMEDRIVER", "/usr/bin/chromedriver")
START_S, WAIT_S = 60, 60
LONG = 1000  # steps: still at work when a test cancels
RECORD = """
    window.seen = {values: [], statuses: [], previews: 0};
    new MutationObserver(() => {
        const bar = document.querySelector("#queue progress");
        if (!bar) return;
        const {values, statuses} = window.seen, status = document.querySelector("#queue .status").textContent;
        if (values.at(-1) !== bar.value) values.push(bar.value);
        if (statuses.at(-1) !== status) statuses.push(status);
        if (document.querySelector("#queue .preview img").naturalWidth > 0) window.seen.previews++;
    }).observe(document.getElementById("queue"), {subtree: true, childList: true, attributes: true, characterData: true});
"""


class Server:
    """`darkroom serve` with a store of its own."""

    def __init__(self, *flags):
        self.store, self.flags = tempfile.TemporaryDirectory(), flags
        self.start(0)

    def start(self, port):
        self.process = subprocess.Popen([PROGRAM, "serve", "--port", str(port), "--store-path", self.store.name, *self.flags],
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://"), line
        self.url = line.split()[-1].rstrip("/")
        self.wait_ready()

    def wait_ready(self):
        end = time.monotonic() + START_S
        while True:
            try:
                return self.get("/health")
            except urllib.error.HTTPError as error:
                assert error.code == 503 and time.monotonic() < end, error
                time.sleep(0.1)

    def get(self, path, key=None):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=10) as reply:
            return json.load(reply)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.store.cleanup()


def open_browser():
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))


class PageTest(unittest.TestCase):
    FLAGS = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.FLAGS)
        cls.addClassCleanup(cls.server.stop)
        cls.browser = open_browser()
        cls.addClassCleanup(cls.browser.quit)

    def setUp(self):
        self.size(1280, 900)
        self.browser.get(self.server.url + "/")
        self.browser.execute_script("localStorage.clear(); sessionStorage.clear()")
        self.browser.get(self.server.url + "/")
        self.browser.get_log("browser")  # of the tests before

    # --- helpers ---

    def size(self, width, height):
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                     {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def find(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, condition, what, seconds=WAIT_S):
        return WebDriverWait(self.browser, seconds, poll_frequency=0.05).until(lambda _: condition(), what)

    def fill(self, selector, text):
        field = self.find(selector)
        field.clear()
        field.send_keys(str(text))

    def wait_form(self):
        self.wait(lambda: self.find("#generate").is_enabled() and self.all("#p-seed"), "the form")

    def ask(self, prompt, steps=20, seed=0, kind="image"):
        self.wait_form()
        self.script(f"document.querySelector('[name=kind][value={kind}]').click()")
        self.fill("#prompt", prompt)
        self.fill("#p-num_inference_steps", steps)
        self.fill("#p-seed", seed)

    def tiles(self, status="completed"):
        return self.all(f"#gallery [data-status={status}]")

    def tile(self, prompt, status="completed"):
        """The newest one of this prompt, or None."""
        return self.script("""return [...document.querySelectorAll(`#gallery [data-status=${arguments[1]}] button`)]
            .find(button => button.title === arguments[0])""", prompt, status)

    def generate(self, prompt, **more):
        self.ask(prompt, **more)
        self.find("#generate").click()
        return self.wait(lambda: self.tile(prompt), f"a tile of '{prompt}'")

    def card(self, prompt):
        return self.script("""return [...document.querySelectorAll("#queue > li")]
            .find(card => card.textContent.includes(arguments[0]))""", prompt)

    def active(self):
        return self.script("return document.activeElement.id || document.activeElement.className")

    def assert_sound(self):
        self.assertEqual([entry for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"], [])


class Making(PageTest):
    def test_progress_moves_and_the_picture_appears(self):
        self.wait_form()
        self.script(RECORD)
        self.generate("a red circle on a blue background", steps=200)
        seen = self.script("return window.seen")
        moving = [value for value in seen["values"] if 0 < value <= 100]
        self.assertGreaterEqual(len(moving), 5, seen)
        self.assertEqual(moving, sorted(moving))
        self.assertTrue([text for text in seen["statuses"] if "step " in text and "of 200" in text], seen)
        self.assertGreater(seen["previews"], 0)

        image = self.find("#gallery li:first-child img")
        self.wait(lambda: image.get_property("naturalWidth") > 0, "a thumbnail")
        self.find("#gallery li:first-child button").click()
        self.wait(lambda: self.all("#viewer img.result") and self.find("#viewer img.result").get_property("naturalWidth") == 128,
                  "the picture in its size")
        self.assertIn("Steps\n200", self.find("#viewer .recipe").text)
        self.assertEqual(self.find("#viewer .download").get_attribute("download").rsplit(".")[-1], "png")
        self.assertFalse(self.find("#queue-section").is_displayed())
        self.assert_sound()

    def test_a_video_plays(self):
        self.generate("a green star moving left", kind="video", steps=4).click()
        self.wait(lambda: self.all("#viewer video"), "the video")
        self.wait(lambda: self.script("""const video = document.querySelector('#viewer video');
            return video.videoWidth === 128 && video.currentTime > 0"""), "a video that plays")
        self.assert_sound()

    def test_cancel(self):
        self.ask("a purple ring", steps=LONG)
        self.find("#generate").click()
        self.wait(lambda: self.all("#queue [data-status=in_progress]"), "a running job")
        self.fill("#prompt", "a white cross")
        self.find("#generate").click()
        self.wait(lambda: self.card("a white cross"), "a second job")
        self.assertIn("Next in line", self.card("a white cross").text)
        for prompt in ("a white cross", "a purple ring"):  # one that waits, one that runs
            self.card(prompt).find_element(By.CSS_SELECTOR, ".cancel").click()
            self.wait(lambda: self.tile(prompt, "cancelled") and not self.card(prompt), f"'{prompt}' cancelled", 10)
        self.assertFalse(self.server.get("/v1/jobs?unfinished=true")["data"])
        self.assert_sound()

    def test_reload_keeps_everything(self):
        self.generate("a yellow heart", seed=5)
        self.ask("a job that runs on", steps=LONG)
        self.find("#generate").click()
        self.wait(lambda: self.card("a job that runs on"), "a running job")
        before = [tile.get_attribute("data-job") for tile in self.tiles()]
        self.browser.refresh()
        self.wait(lambda: self.card("a job that runs on"), "the running job")
        self.wait(lambda: [tile.get_attribute("data-job") for tile in self.tiles()] == before, "the same gallery")
        self.assertEqual(self.find("#prompt").get_attribute("value"), "a job that runs on")
        self.wait_form()
        self.assertEqual(self.find("#p-num_inference_steps").get_attribute("value"), str(LONG))
        self.find("#queue .cancel").click()
        self.wait(lambda: not self.card("a job that runs on"), "the job cancelled")
        self.assert_sound()

    def test_make_again(self):
        self.generate("a pink square", steps=7, seed=18446744073709551615)
        first = self.tile("a pink square").find_element(By.XPATH, "..").get_attribute("data-job")
        self.ask("something else", steps=3, seed=1)
        self.tile("a pink square").click()
        self.find("#viewer .again").click()
        self.assertFalse(self.find("#viewer").is_displayed())
        for selector, value in (("#prompt", "a pink square"), ("#p-num_inference_steps", "7"),
                                ("#p-seed", "18446744073709551615"), ("#p-width", "128")):
            self.assertEqual(self.find(selector).get_attribute("value"), value, selector)
        self.find("#generate").click()
        self.wait(lambda: self.all("#gallery li:first-child") and self.tile("a pink square").find_element(By.XPATH, "..")
                  .get_attribute("data-job") != first, "the same picture again")
        self.assert_sound()

    def test_delete(self):
        self.generate("an orange diamond", steps=2).click()
        job = self.script("return document.querySelector('#gallery li').dataset.job")
        self.find("#viewer .delete").click()
        self.find("#viewer .keep").click()
        self.find("#viewer .delete").click()
        self.find("#viewer .confirm").click()
        self.wait(lambda: not self.all(f"[data-job={job}]"), "the tile gone")
        self.assertNotIn(job, [entry["id"] for entry in self.server.get("/v1/jobs")["data"]])
        self.assert_sound()

    def test_edit_with_a_mask(self):
        self.generate("a gray triangle", steps=4).click()
        self.find("#viewer .edit").click()
        self.wait(lambda: self.find("#edit-body").is_displayed(), "the picture in the form")
        self.assertEqual(self.find("#generate").text, "Edit the picture")
        self.script("document.getElementById('mask-toggle').scrollIntoView({block: 'center'})")
        self.find("#mask-toggle").click()
        ActionChains(self.browser).drag_and_drop_by_offset(self.find("#mask"), 20, 10).perform()
        self.fill("#prompt", "a gray triangle, edited")
        self.find("#generate").click()
        self.wait(lambda: self.tile("a gray triangle, edited"), "the edited picture")
        self.assert_sound()

    def test_what_is_wrong_is_shown_at_the_field(self):
        self.ask("a circle", steps=2)
        self.fill("#p-num_inference_steps", "0")
        self.find("#generate").click()
        self.assertIn("from 1 to 1000", self.find("#p-num_inference_steps-error").text)
        self.assertEqual(self.active(), "p-num_inference_steps")
        self.fill("#p-num_inference_steps", "2")
        self.assertEqual(self.find("#p-num_inference_steps-error").text, "")
        self.fill("#p-width", "17")  # what only the server knows
        self.find("#generate").click()
        self.wait(lambda: "17" in self.find("#p-width-error").text, "the server's words", 10)
        self.assertEqual(self.active(), "p-width")


class Keyboard(PageTest):
    def press(self, *keys):
        ActionChains(self.browser).send_keys(*keys).perform()

    def tab_to(self, name, most=60):
        for _ in range(most):
            if name in self.active().split():
                return
            self.press(Keys.TAB)
        self.fail(f"{name} is not reached with Tab")

    def test_generate_look_and_close(self):
        self.wait_form()
        self.tab_to("prompt")
        self.press("a black circle")
        self.tab_to("p-num_inference_steps")
        self.press("3")
        self.tab_to("dice")
        self.press(Keys.ENTER)
        self.assertRegex(self.find("#p-seed").get_attribute("value"), r"^\d+$")
        ActionChains(self.browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
        self.wait(lambda: self.tile("a black circle"), "the picture")
        self.tab_to("tile")
        self.press(Keys.ENTER)
        self.wait(lambda: self.find("#viewer").is_displayed(), "the dialog")
        self.assertIn("again", self.active())
        self.press(Keys.ESCAPE)
        self.wait(lambda: not self.find("#viewer").is_displayed(), "the dialog closed")
        self.assertIn("tile", self.active())
        self.assert_sound()

    def test_the_focus_stays_in_the_page_after_cancel(self):
        self.ask("a long one", steps=LONG)
        self.find("#generate").send_keys(Keys.ENTER)
        self.wait(lambda: self.card("a long one"), "a running job")
        self.tab_to("cancel")
        self.press(Keys.ENTER)
        self.wait(lambda: not self.card("a long one"), "the job cancelled")
        self.assertEqual(self.active(), "gallery-title")

    def test_what_has_the_focus_is_outlined_and_named(self):
        self.wait_form()
        self.script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        for _ in range(25):
            self.press(Keys.TAB)
            tag, outline, name = self.script("""const at = document.activeElement;
                const shown = at.type === "radio" || at.type === "file" ? at.parentElement.lastElementChild : at;
                const drawn = [shown, at.parentElement].some(each => getComputedStyle(each).outlineStyle !== "none");
                return [at.outerHTML, drawn, at.ariaLabel || at.textContent.trim() || at.labels?.[0]?.textContent]""")
            if tag.startswith("<body"):
                break
            self.assertTrue(outline, tag)
            self.assertTrue(name, tag)


class Looks(PageTest):
    def scheme(self, name):
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                                     {"features": [{"name": "prefers-color-scheme", "value": name}]})

    def test_no_horizontal_scroll_on_a_phone(self):
        self.generate("a small red star with a long prompt that has averylongwordinit" + "o" * 80, steps=2)
        for width in (360, 390, 1280):
            self.size(width, 740)
            self.script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
            self.assertLessEqual(self.script("return document.documentElement.scrollWidth"), width)
            self.find("#gallery .tile").click()
            self.assertLessEqual(self.script("const box = document.getElementById('viewer'); return box.scrollWidth - box.clientWidth"), 0)
            self.find("#viewer .close").click()

    def test_text_is_never_markup(self):
        prompt = "<img src=x onerror='document.title=1'><b>bold</b> & \"quoted\""
        self.generate(prompt, steps=2).click()
        self.assertEqual(self.find("#viewer-title").text, prompt)
        self.assertFalse(self.all("img[src=x], #viewer b, .tile.completed b"))
        self.assertEqual(self.browser.title, "Darkroom")

    def test_light_and_dark(self):
        self.wait_form()
        seen = {}
        for name in ("light", "dark"):
            self.scheme(name)
            seen[name] = self.script(CONTRAST)
            for what, ratio in seen[name]["ratios"].items():
                self.assertGreaterEqual(ratio, 4.5, (name, what))
        self.assertNotEqual(seen["light"]["ground"], seen["dark"]["ground"])
        self.assertNotEqual(seen["light"]["text"], seen["dark"]["text"])

    def test_screenshot(self):
        self.scheme("dark")
        for seed, prompt in enumerate(("a small red star moving left over the sea", "a green heart on a night sky",
                                       "a big yellow circle on a sunset", "a white ring on grass")):
            self.generate(prompt, seed=seed)
        self.ask("a blue star bouncing on a sunset", steps=LONG, kind="video")
        self.find("#generate").click()
        self.wait(lambda: self.all("#queue .preview img:not([hidden])"), "a preview")
        self.script("scrollTo(0, 0)")
        os.makedirs(os.path.dirname(SCREENSHOT), exist_ok=True)
        self.assertTrue(self.browser.save_screenshot(SCREENSHOT))
        self.find("#queue .cancel").click()
        self.wait(lambda: not self.all("#queue .card"), "the job cancelled")


CONTRAST = """
    const numbers = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const light = (colour) => numbers(colour).map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (!/, 0\\)$|transparent/.test(colour)) return colour;
        }
    };
    const ratios = {};
    for (const what of ["h1", "#model", "label", ".hint", "#generate", "summary", ".switch :checked + span", ".drop b", "h2"]) {
        const node = document.querySelector(what);
        const pair = [light(getComputedStyle(node).color), light(ground(node))];
        ratios[what] = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    }
    const body = getComputedStyle(document.body);
    return {ground: body.backgroundColor, text: body.color, ratios};
"""


class WithKey(PageTest):
    FLAGS = ("--api-key", "open-sesame")

    def answer(self, key):
        self.wait(lambda: self.find("#key-dialog").is_displayed(), "the question for a key")
        self.fill("#key-input", key)
        self.find("#key-input").send_keys(Keys.ENTER)

    def test_the_key_is_asked_for_and_used(self):
        self.answer("wrong")
        self.wait(lambda: "did not accept" in self.find("#key-text").text, "the second question")
        self.answer("open-sesame")
        self.generate("a cyan square", steps=2)
        self.wait(lambda: self.find("#gallery img").get_property("naturalWidth") > 0, "a thumbnail fetched with the key")
        self.assertTrue(self.find("#gallery img").get_attribute("src").startswith("blob:"))
        self.browser.refresh()
        self.wait(lambda: self.tile("a cyan square"), "the gallery without a question")
        self.assertFalse(self.find("#key-dialog").is_displayed())

    def test_no_key_is_no_endless_question(self):
        self.wait(lambda: self.find("#key-dialog").is_displayed(), "the question for a key")
        self.find("#key-cancel").click()
        self.wait(lambda: self.find("#banner-key").is_displayed(), "the banner")
        time.sleep(3)  # polls go on
        self.assertFalse(self.find("#key-dialog").is_displayed())
        self.find("#banner-key").click()
        self.answer("open-sesame")
        self.wait(lambda: not self.find("#banner").is_displayed(), "the banner gone")


class Away(PageTest):
    def test_a_lost_server_is_told_and_found_again(self):
        self.wait_form()
        self.server.kill()
        self.wait(lambda: "cannot be reached" in self.find("#banner").text, "the banner", 20)
        self.assertFalse(self.find("#generate").is_enabled())
        self.server.start(self.server.url.rsplit(":")[-1])
        self.wait(lambda: not self.find("#banner").is_displayed(), "the banner gone", 40)
        self.generate("a red star", steps=2)


if __name__ == "__main__":
    unittest.main(verbosity=1)
