"""What an attacker tries: each is refused, and nothing of anybody's is in a log."""

import json
import os
import socket
import ssl

import pytest
from serve_server import REQUESTS, T2V, Server

from animatediff_turbo.serve import access

SECRET_PROMPT = "<script>alert(1)</script> a very private prompt"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    return path, access.new_key(path, "alice"), access.new_key(path, "bob")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, keys):
    running = Server(tmp_path_factory.mktemp("guarded"), keys=str(keys[0]), limits={"body": 20_000, "upload": 50_000, "head_seconds": 0.5, "body_seconds": 1.0, "upload_seconds": 1.0})
    yield running
    running.stop()


def raw(server, data, patience=30):
    """What a server answers to these bytes until it closes the connection or has said all."""
    host, port = server.address.rpartition("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=patience) as connection:
        connection.sendall(data)
        answer = b""
        while block := connection.recv(65536):
            answer += block
        return answer.decode("latin-1")


def request(method, path, body=b"", **headers):
    lines = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    return f"{method} {path} HTTP/1.1\r\n".encode() + "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None).encode() + b"\r\n" + body


def key(secret):
    return {"Authorization": f"Key {secret}"}


def test_without_a_key_or_with_a_wrong_one_there_is_nothing(guarded, keys):
    for headers in ({}, key("alice:wrong"), {"Authorization": "Bearer " + keys[1]}, {"Authorization": keys[1]}, {"Authorization": "Key"}):
        for method, path in (("POST", T2V), ("POST", f"/run{T2V}"), ("GET", f"{REQUESTS}/x"), ("PUT", f"{REQUESTS}/x/cancel"), ("POST", "/storage/upload/initiate"), ("GET", "/nothing")):
            answer = guarded.client.request(method, path, headers=headers, json={"prompt": "x"} if method == "POST" else None)
            assert answer.status_code == 401 and answer.json()["error_type"] == "unauthorized"
    assert guarded.client.get(f"{REQUESTS}/x", headers=key("alice:wrong")).json()["detail"] == "No user found for Key ID and Secret"


def test_the_document_says_what_needs_a_key(guarded):
    paths = guarded.client.get("/openapi.json").json()["paths"]
    needing = {path for path, methods in paths.items() for route in methods.values() if "security" in route}
    assert needing == set(paths) - {"/files/{name}", "/storage/put/{name}"}


def test_another_keys_job_is_not_there(guarded, keys):
    _, alice, bob = keys
    id = guarded.submit(seed=1, headers=key(alice)).json()["request_id"]
    for path in ("", "/status", "/status/stream"):
        assert guarded.client.get(f"{REQUESTS}/{id}{path}", headers=key(bob)).status_code == 404
    assert guarded.cancel(id, headers=key(bob)).status_code == 404 and guarded.status(id, headers=key(alice)).status_code in (200, 202)
    again = guarded.submit(seed=1, headers=key(bob)).json()["request_id"]  # nor is it an answer for others
    assert guarded.result(again, headers=key(bob)).status_code == 200 and guarded.begun(again) == [1]


@pytest.mark.parametrize("name", ["../queue.sqlite", "..%2fqueue.sqlite", "%2e%2e/queue.sqlite", "....//queue.sqlite", "%00", "made-x.mp4", "/etc/passwd", "..\\queue.sqlite", "made-" + "a" * 32 + ".mp4%00.txt", "."])
def test_no_path_leads_out_of_the_folder(server, name):
    answer = raw(server, request("GET", f"/files/{name}"))
    assert answer.split(" ")[1] in ("400", "404") and "SQLite" not in answer


def test_bodies_that_are_too_large_or_too_slow_are_refused(guarded, keys):
    mine = f"Key {keys[1]}"
    announced = raw(guarded, request("POST", T2V, b"", Authorization=mine, Content_Length="20001", Content_Type="application/json"))
    assert " 413 " in announced
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    endless = raw(guarded, request("POST", T2V, chunk * 5, Authorization=mine, Content_Length=None, Transfer_Encoding="chunked", Content_Type="application/json"))
    assert " 413 " in endless
    slow = raw(guarded, request("POST", T2V, b'{"pro', Authorization=mine, Content_Length="100", Content_Type="application/json"))
    assert " 408 " in slow and "request_timeout" in slow
    upload = guarded.client.post("/storage/upload/initiate", headers=key(keys[1])).json()["upload_url"]
    path = "/" + upload.split("/", 3)[3]
    assert " 413 " in raw(guarded, request("PUT", path, Content_Length="50001")) and " 408 " in raw(guarded, request("PUT", path, b"x", Content_Length="9"))
    assert not [file for file in (guarded.folder / "files").iterdir() if file.name.endswith(".part")] and guarded.client.put(upload, content=b"x" * 50_000).status_code == 200


def test_a_connection_that_says_nothing_or_little_is_closed(guarded):
    assert raw(guarded, b"") == "" and raw(guarded, b"GET / HT") == ""
    host, port = guarded.address.rpartition("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request("GET", "/files/x", Connection="keep-alive"))
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        connection.sendall(b"GET / HT")  # and in a second request
        assert b" 404 " in answer and connection.recv(65536) == b""


@pytest.mark.parametrize(
    "lines",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET /\r\nX-Evil: 1 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    ],
)
def test_broken_requests_are_refused(server, lines):
    assert raw(server, lines).split(" ")[1] in ("400", "403")


def test_headers_can_not_be_injected(server):
    answer = server.client.get("/files/x%0d%0aSet-Cookie:%20a=b")
    assert answer.status_code == 404 and "set-cookie" not in answer.headers
    answer = server.client.post(T2V, json={"prompt": "a\r\nSet-Cookie: a=b"})
    assert answer.status_code == 200 and "set-cookie" not in answer.headers


def test_pages_of_other_sites_and_names_that_lead_here_are_refused(server):
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}, {"Host": "evil.example:80@localhost"}):
        answer = server.submit(headers=headers)
        assert answer.status_code in (400, 403), headers
    assert server.submit(headers={"Origin": server.address, "Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert server.client.post(T2V, content=json.dumps({"prompt": "x"}), headers={"Content-Type": "text/plain"}).status_code == 422
    assert server.client.get("/openapi.json", headers={"Host": "evil.example"}).status_code == 403
    assert "access-control-allow-origin" not in server.client.options(T2V, headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}).headers


def test_every_answer_has_the_headers_that_keep_browsers_safe(server):
    id = server.accepted(seed=2)
    file = server.result(id).json()["video"]["url"]
    for answer in (server.client.get("/openapi.json"), server.client.get("/nothing"), server.status(id), server.client.get(file), server.submit(headers={"Origin": "null"})):
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-frame-options"] == "DENY" and "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers


def test_html_in_a_prompt_comes_back_nowhere(server):
    answer = server.submit(SECRET_PROMPT, num_frames=99)
    assert answer.status_code == 422 and "script" not in answer.text
    id = server.accepted(SECRET_PROMPT)
    assert "script" not in server.result(id).text + server.status(id).text


def test_no_prompt_key_or_path_is_logged(guarded, keys):
    id = guarded.submit(SECRET_PROMPT, headers=key(keys[1])).json()["request_id"]
    dying = guarded.submit("die " + SECRET_PROMPT, headers=key(keys[1])).json()["request_id"]
    guarded.client.get(f"{REQUESTS}/{id}", headers=key("wrong:" + keys[2]))
    guarded.until_logged(f"Job {id}: done")
    guarded.until_logged(f"Job {dying}: failed")
    for secret in (keys[1], keys[2], keys[1].split(":")[1], "private prompt", "made-", str(guarded.folder)):
        assert secret not in guarded.text


def test_the_folder_is_its_owners_alone(server):
    if os.name == "posix":
        assert (server.folder.stat().st_mode | (server.folder / "files").stat().st_mode | (server.folder / "queue.sqlite").stat().st_mode) & 0o077 == 0


def test_a_host_of_the_network_needs_keys(start):
    with pytest.raises(AssertionError, match="would let everybody in the network render here"):
        start(host="0.0.0.0")


def test_plain_http_to_tls_is_refused(start, tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = start(certificate=str(tmp_path / "cert.pem"), private_key=str(tmp_path / "key.pem"))
    assert server.address.startswith("https://") and server.submit().json()["status_url"].startswith("https://")
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    host, port = server.address.rpartition("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=30) as plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
        secure.sendall(request("GET", "/openapi.json"))
        assert b" 200 " in secure.recv(100)
    assert "200" not in raw(server, request("GET", "/openapi.json"))
