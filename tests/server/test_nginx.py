"""packaging/nginx/darkroom.conf in a real nginx, with TLS, at the root and below a prefix."""
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import unittest
import urllib.request

from server import ROOT, Server, main, wait_for

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
FRAME = """daemon off; pid {folder}/pid; error_log {folder}/error; worker_processes 1;
events {{}}
http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
{site} }}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@unittest.skipUnless(NGINX and shutil.which("openssl"), "nginx or openssl is not installed")
class Nginx(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="darkroom-nginx-")
        cls.server = Server()
        cls.port = free_port()
        cls.url = f"https://localhost:{cls.port}"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{cls.folder}/key.pem", "-out", f"{cls.folder}/cert.pem"],
                       check=True, capture_output=True)
        with open(f"{cls.folder}/nginx.conf", "w", encoding="utf-8") as file:
            file.write(FRAME.format(folder=cls.folder, site=cls.site()))
        checked = subprocess.run([NGINX, "-t", "-c", f"{cls.folder}/nginx.conf", "-e", f"{cls.folder}/error"],
                                 capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        cls.nginx = subprocess.Popen([NGINX, "-c", f"{cls.folder}/nginx.conf", "-e", f"{cls.folder}/error"])
        cls.tls = ssl.create_default_context(cafile=f"{cls.folder}/cert.pem")
        wait_for(lambda: cls.status("/liveness") == 200, 20)

    @classmethod
    def tearDownClass(cls):
        cls.nginx.terminate()
        cls.nginx.wait(20)
        cls.server.close()
        shutil.rmtree(cls.folder, ignore_errors=True)

    @classmethod
    def site(cls):
        """The file as it is shipped, but for ports, names and folders; the block of the prefix is switched on."""
        with open(os.path.join(ROOT, "packaging/nginx/darkroom.conf"), encoding="utf-8") as file:
            text = file.read()
        text = text[:text.index("server {\n    listen 80;")]
        inside = re.search(r"location / \{\n(.*?)\n    \}", text, re.DOTALL)[1].replace("proxy_pass http://darkroom;", "")
        text = re.sub(r"(?m)^    # (location|\}|    )", r"    \1", text).replace("… the other lines of \"location /\"", inside)
        text = re.sub(r"(?m)^ +listen \[::\].*\n", "", text)
        return (text.replace("127.0.0.1:30000", f"127.0.0.1:{cls.server.port}").replace("listen 443", f"listen 127.0.0.1:{cls.port}")
                .replace("/etc/ssl/darkroom/fullchain.pem", f"{cls.folder}/cert.pem")
                .replace("/etc/ssl/darkroom/privkey.pem", f"{cls.folder}/key.pem").replace("darkroom.example.org", "localhost"))

    @classmethod
    def open(cls, path, body=None):
        request = urllib.request.Request(cls.url + path, json.dumps(body).encode() if body is not None else None)
        request.add_header("Content-Type", "application/json")
        return urllib.request.urlopen(request, timeout=60, context=cls.tls)

    @classmethod
    def status(cls, path):
        try:
            with cls.open(path) as reply:
                return reply.status
        except OSError:
            return 0

    def test_links_name_the_proxy(self):
        with self.open("/v1/images/generations", {"prompt": "a cat", "num_inference_steps": 2, "response_format": "url"}) as reply:
            link = json.load(reply)["data"][0]["url"]
        self.assertTrue(link.startswith(self.url + "/v1/images/"), link)
        self.assertEqual(self.status(link.removeprefix(self.url)), 200)

    def test_events_are_not_held_back(self):
        for prefix in ("", "/darkroom"):
            with self.open(prefix + "/v1/videos", {"prompt": "a cat", "num_inference_steps": 60, "size": "256x256"}) as reply:
                job = json.load(reply)["id"]
            times = []
            with self.open(f"{prefix}/v1/videos/{job}/events") as events:
                for line in events:
                    if line.startswith(b"event: progress"):
                        times.append(time.monotonic())
                    if len(times) == 12:
                        break
            self.assertGreater(times[-1] - times[0], 0.2, "all events came at once")
            with self.open(f"{prefix}/v1/videos/{job}/cancel", {}) as reply:
                self.assertEqual(json.load(reply)["status"], "cancelled")

    def test_the_page_below_a_prefix(self):
        with self.open("/darkroom/") as reply:
            page = reply.read().decode()
        for name in re.findall(r'(?:src|href)="([^"#]+)"', page):
            self.assertFalse(name.startswith("/"), name)
            self.assertEqual(self.status("/darkroom/" + name), 200, name)


if __name__ == "__main__":
    main()
