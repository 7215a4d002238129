"""The page that finds nuclei in the browser, in headless Chromium on a drawn image; needs `make browser`."""

import functools
import http.server
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

BROWSER = Path(__file__).parents[1] / "docs" / "browser"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGE = """<!doctype html>
<div class="try" data-base="./"><input type="file"><p role="status"></p><canvas hidden></canvas></div>
<script type="module">
import { show } from "./try.js";
const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [160, 128];
const context = canvas.getContext("2d");
context.fillStyle = "rgb(10 10 10)"; context.fillRect(0, 0, 160, 128);
context.fillStyle = "rgb(150 150 150)";
for (const [x, y] of [[40, 40], [59, 40], [110, 90]]) {
  context.beginPath(); context.arc(x, y, 10, 0, 7); context.fill();
}
canvas.toBlob(async (blob) => {
  const found = await show(document.querySelector(".try"), blob).catch((error) => error.message);
  document.title = `found ${found}`;
});
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.skipif(not (BROWSER / "vendor" / "nuclei.onnx").is_file(), reason="make browser")
def test_the_page_counts_drawn_nuclei_without_outside_requests(tmp_path):
    shutil.copytree(BROWSER, tmp_path / "site")
    (tmp_path / "site" / "index.html").write_text(PAGE)
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *given):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += ["--virtual-time-budget=120000", f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--host-resolver-rules=MAP * 0.0.0.0, EXCLUDE 127.0.0.1"]  # nothing from outside
        shown = subprocess.run([*command, f"http://127.0.0.1:{server.server_port}/"], capture_output=True, text=True,
                               timeout=200, check=False).stdout  # fmt: skip
        server.shutdown()
    status = re.search(r'role="status">([^<]*)<', shown)
    assert status is not None and status[1].startswith("3 nuclei"), (status and status[1], asked)
