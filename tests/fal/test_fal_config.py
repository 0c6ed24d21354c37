"""Where settings and key come from; a key is never shown."""

import os

import pytest
from yarl import URL

from animatediff_turbo.fal import config, errors

GOOD = "0123abcd-key:secret-0123456789"


def test_without_settings_it_is_fal(tmp_path):
    found = config.read(tmp_path, {})
    assert (found.queue, found.storage, found.folder, found.max_jobs) == (URL("https://queue.fal.run"), URL("https://rest.fal.ai"), tmp_path, 8)
    assert not found.own_server and found.keep_at_fal


@pytest.mark.parametrize("address", ["https://turbo.example.com", "https://turbo.example.com:8443", "http://127.0.0.1:8188", "http://localhost:1", "http://192.168.1.5:80", "http://[::1]:9"])
def test_a_server_of_ones_own(tmp_path, address):
    found = config.read(tmp_path, {"ADT_FAL_QUEUE_URL": address})
    assert found.queue == found.storage == URL(address).origin() and found.own_server


@pytest.mark.parametrize("address", ["http://example.com", "http://8.8.8.8", "ftp://localhost", "localhost:80", "https://user:pw@example.com", "https://example.com/path", "https://", "http://[", "https://e.com?a=1"])
def test_another_address_is_refused(tmp_path, address):
    with pytest.raises(errors.NotSentError, match="ADT_FAL_QUEUE_URL must be") as caught:
        config.read(tmp_path, {"ADT_FAL_QUEUE_URL": address})
    assert "pw" not in str(caught.value)


def test_other_settings(tmp_path):
    environment = {"ADT_FAL_MAX_JOBS_PER_RUN": "2", "ADT_FAL_MEDIA_HOSTS": "A.example, b.example", "ADT_FAL_FOLDER": str(tmp_path / "x"), "ADT_FAL_STORE_IO": "0"}
    found = config.read(tmp_path, environment)
    assert (found.max_jobs, found.media_hosts, found.folder, found.keep_at_fal) == (2, {"a.example", "b.example"}, tmp_path / "x", False)
    for wrong in ("-1", "many", "1.5"):
        with pytest.raises(errors.NotSentError, match="ADT_FAL_MAX_JOBS_PER_RUN"):
            config.read(tmp_path, {"ADT_FAL_MAX_JOBS_PER_RUN": wrong})


def test_a_key_is_found_in_the_documented_places_in_their_order(tmp_path):
    settings = config.Config(tmp_path)
    (tmp_path / "fal_key.txt").write_text(f"{GOOD}-file\nsecond line")
    (tmp_path / "other.txt").write_text(f"{GOOD}-other")
    places = {"FAL_KEY": f" {GOOD}-env \n", "FAL_KEY_ID": "0123abcd-key", "FAL_KEY_SECRET": "secret-two", "FAL_KEY_FILE": str(tmp_path / "other.txt")}
    expected = {"FAL_KEY": f"{GOOD}-env", "FAL_KEY_SECRET": "0123abcd-key:secret-two", "FAL_KEY_FILE": f"{GOOD}-other"}
    for name, key in expected.items():
        assert config.key(settings, places).secret == key
        del places[name]
    assert config.key(settings, {}).secret == f"{GOOD}-file"


def test_without_a_key_the_sentence_says_where_to_put_it(tmp_path):
    with pytest.raises(errors.NotSentError, match="fal_key.txt.*Nothing was sent.*https://fal.ai/dashboard/keys"):
        config.key(config.Config(tmp_path), {})


@pytest.mark.parametrize("key", ["abc", "abc\ndefghijkl", "key with spaces", "schl\u00fcssel-0123", "a" * 513, "abcdefgh\x00i", "abcdefg\r\nX-Header: 1"])
def test_a_key_that_cannot_be_sent_is_refused_at_once_without_being_shown(tmp_path, key):
    with pytest.raises(errors.NotSentError, match="characters that cannot be sent, or is cut off") as caught:
        config.key(config.Config(tmp_path), {"FAL_KEY": key})
    assert key.strip() not in str(caught.value) and caught.value.__cause__ is None


def test_a_key_file_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "fal_key.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(errors.NotSentError, match="cannot be read"):
        config.key(config.Config(tmp_path), {})


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")
@pytest.mark.parametrize(("mode", "open_to_others"), [(0o600, False), (0o644, True), (0o640, True)])
def test_a_key_file_that_others_can_read_is_warned_of(tmp_path, caplog, mode, open_to_others):
    path = tmp_path / "fal_key.txt"
    path.write_text(GOOD)
    path.chmod(mode)
    assert config.key(config.Config(tmp_path), {}).secret == GOOD
    assert ("can read the key file" in caplog.text) == open_to_others and GOOD not in caplog.text


def test_scrub_leaves_no_part_of_the_key():
    text = errors.scrub(f"Illegal header value b'Key {GOOD}\\n' and secret-0123456789\nnext\u2028line", GOOD)
    assert "secret-0123456789" not in text and "0123abcd-key" not in text and "\n" not in text and "\u2028" not in text


def test_the_systems_proxy_is_used_for_fal_and_not_for_a_server_of_ones_own(tmp_path, monkeypatch):
    for name in ("https_proxy", "http_proxy", "no_proxy", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    queue = URL("https://queue.fal.run/x")
    assert config.read(tmp_path, {}).proxy(queue) is None
    monkeypatch.setenv("https_proxy", "http://10.0.0.9:3128")
    assert config.read(tmp_path, {}).proxy(queue) == "http://10.0.0.9:3128"
    assert config.read(tmp_path, {"ADT_FAL_QUEUE_URL": "https://turbo.example.com"}).proxy(URL("https://turbo.example.com")) is None
    monkeypatch.setenv("no_proxy", "fal.run")
    assert config.read(tmp_path, {}).proxy(queue) is None
