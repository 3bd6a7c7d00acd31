"""What the SDK tests stand on.

SEDGE_URL is an edge that relays to the simulator; SEDGE_BIN is the binary, for tests that need an upstream of their own.
"""

import http.server
import os
import re
import subprocess
import threading
import time

import openai
import pytest

URL = os.environ["SEDGE_URL"].rstrip("/")
KEY = "sk-test"
# How long a test waits for something that must come, in seconds: long, since a busy machine is no failure.
PATIENCE = 120


@pytest.fixture
def client():
    with openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def edge_before(tmp_path):
    """Starts an edge with a configuration in front of a scripted upstream; gives back its URL.

    A script gives the parts of the answer: bytes, or seconds to wait, or None to break off.
    """
    children, servers = [], []

    def start(script, config, status=200):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(status)
                self.send_header("Content-Type", "text/event-stream" if status == 200 else "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    for part in script():
                        if part is None:
                            self.close_connection = True
                            return
                        if isinstance(part, float):
                            time.sleep(part)
                        else:
                            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                    self.wfile.write(b"0\r\n\r\n")
                except ConnectionError:
                    self.close_connection = True

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        file = tmp_path / "sedge.toml"
        file.write_text(config.format(upstream=f"http://127.0.0.1:{server.server_port}"))
        child = subprocess.Popen(
            [os.environ["SEDGE_BIN"], "--listen", "127.0.0.1:0", "--admin", "off", "--config", str(file)],
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        for line in child.stderr:
            if found := re.search(r"listening on (http://\S+)", line):
                return found[1].rstrip("/")
        raise AssertionError("sedge ended before it served")

    yield start
    for child in children:
        child.kill()
        child.wait()
    for server in servers:
        server.shutdown()
        server.server_close()
