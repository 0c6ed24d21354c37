"""fal's own clients complete jobs against the tests' server, so that what our client is tested against speaks the real protocol."""

import json
import os
import shutil
import ssl
import subprocess
import sys

import pytest
import trustme
from fal_helpers import asked
from fal_server import KEY, FalServer

from animatediff_turbo.fal.request import TEXT_TO_VIDEO

PYTHON = """
import json, sys
import fal_client
seen = []
def note(update):
    seen.append(type(update).__name__)
result = fal_client.subscribe(sys.argv[1], json.loads(sys.argv[2]), with_logs=True, on_queue_update=note)
handle = fal_client.submit(sys.argv[1], json.loads(sys.argv[2]))
handle.cancel()
print(json.dumps({"result": result, "seen": seen}))
"""

NODE = """
import { createFalClient } from "@fal-ai/client";
const [endpoint, body, address, key] = process.argv.slice(2);
const moved = url => url.replace("https://queue.fal.run", address);
const client = createFalClient({ credentials: key, requestMiddleware: async request => ({ ...request, url: moved(request.url) }) });
const seen = [];
const result = await client.subscribe(endpoint, { input: JSON.parse(body), logs: true, onQueueUpdate: update => seen.push(update.status) });
const { request_id } = await client.queue.submit(endpoint, { input: JSON.parse(body) });
await client.queue.cancel(endpoint, { requestId: request_id });
console.log(JSON.stringify({ result: result.data, seen, id: result.requestId }));
"""


def last_line(process):
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.strip().splitlines()[-1])


def test_the_real_fal_client_completes_and_cancels_jobs(video, tmp_path):
    """Over TLS by its environment alone, as it allows no plain http."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = FalServer(video, context)
    try:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FAL_")} | {
            "FAL_QUEUE_RUN_HOST": f"localhost:{server.port}", "SSL_CERT_FILE": str(tmp_path / "ca.pem"), "FAL_KEY": KEY, "FAL_HOME_DIR": str(tmp_path),
            "NO_PROXY": "127.0.0.1,localhost",
        }  # fmt: skip
        command = [sys.executable, "-c", PYTHON, TEXT_TO_VIDEO, asked().body({})]
        found = last_line(subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False))
        first, second = server.jobs.values()
        assert first.arguments == second.arguments == dict(asked().arguments) and second.cancelled and server.posts == 2
        assert found["result"]["seed"] == 5 and found["result"]["video"]["url"].startswith(server.address)
        assert {"Queued", "InProgress", "Completed"} <= set(found["seen"])
    finally:
        server.stop()


def test_the_real_javascript_client_completes_and_cancels_jobs(server, tmp_path):
    npm, node = shutil.which("npm"), shutil.which("node")
    if not (npm and node):
        pytest.skip("no npm: fal's JavaScript client is not tried")
    installed = subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", "@fal-ai/client@1"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    if installed.returncode:
        pytest.skip(f"npm could not install fal's JavaScript client: {installed.stderr.strip()[-200:]}")
    (tmp_path / "client.mjs").write_text(NODE)
    command = [node, "client.mjs", TEXT_TO_VIDEO, asked().body({}), server.address, KEY]
    found = last_line(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False))
    first, second = server.jobs.values()
    assert first.arguments == second.arguments == dict(asked().arguments) and second.cancelled
    assert found["result"]["seed"] == 5 and found["id"] == next(iter(server.jobs)) and "COMPLETED" in found["seen"]
