"""Where a client finds its gateway, and what it trusts."""

import json
import os
import subprocess
import sys

import pytest

from tether.client import endpoint
from tether.client.endpoint import Endpoint, check_key, check_url, find_endpoint, is_on_this_machine
from tether.client.gateways import open_gateway
from tether.errors import ConfigError, GatewayUnknown

URL = "http://127.0.0.1:8470"
TOLD = {"v": 1, "url": URL, "api_key": "tk_here", "pid": os.getpid()}


@pytest.fixture
def find(tmp_path):
    """Finds endpoints in folders of the test's own."""

    def find_one(url=None, api_key=None, **environ):
        return find_endpoint(
            url,
            api_key,
            environ=environ,
            working_folder=tmp_path / "work",
            home=tmp_path / "home",
        )

    return find_one


def write(folder, value):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "endpoint.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    path.chmod(0o600)
    return path


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_arguments_go_before_the_environment(find):
    assert find("http://a", "k1", TETHER_URL="http://b", TETHER_API_KEY="k2") == Endpoint("http://a", "k1")
    assert find(TETHER_URL="http://b/", TETHER_API_KEY="k2") == Endpoint("http://b", "k2")


def test_the_environment_goes_before_what_runs_here(find, tmp_path):
    write(tmp_path / "home/.tether", TOLD)
    assert find(TETHER_URL="http://b", TETHER_API_KEY="k2") == Endpoint("http://b", "k2")
    assert find(TETHER_API_KEY="k2") == Endpoint(URL, "k2")


def test_the_working_folder_goes_before_the_home(find, tmp_path):
    write(tmp_path / "home/.tether", TOLD)
    assert find() == Endpoint(URL, "tk_here")
    write(tmp_path / "work/.tether", {**TOLD, "url": "http://127.0.0.1:1", "api_key": "tk_there"})
    assert find() == Endpoint("http://127.0.0.1:1", "tk_there")


def test_a_named_folder_is_the_only_one(find, tmp_path):
    write(tmp_path / "home/.tether", TOLD)
    with pytest.raises(GatewayUnknown, match="tether up"):
        find(TETHER_DIR=str(tmp_path / "other"))
    write(tmp_path / "other", {**TOLD, "api_key": "tk_other"})
    assert find(TETHER_DIR=str(tmp_path / "other")).api_key == "tk_other"


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_the_address_that_other_clients_take_is_good_too(end):
    assert check_url(f"http://127.0.0.1:8470{end}") == "http://127.0.0.1:8470"
    assert check_url(f"https://example.com/tether{end}") == "https://example.com/tether"


def test_nothing_found_says_what_to_do(find):
    with pytest.raises(
        GatewayUnknown, match="set TETHER_URL and TETHER_API_KEY, or start one with `tether up`"
    ):
        find()


def test_the_key_found_here_goes_nowhere_else(find, tmp_path):
    write(tmp_path / "home/.tether", TOLD)
    assert find(f"{URL}/").api_key == "tk_here"
    with pytest.raises(ConfigError, match="TETHER_API_KEY") as caught:
        find("https://elsewhere.example")
    assert "tk_here" not in str(caught.value)


def test_a_named_gateway_without_a_key_is_refused_for_that_alone(find, tmp_path):
    write(tmp_path / "home/.tether", "nonsense")
    with pytest.raises(ConfigError, match="no API key"):
        find(URL)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nonsense", "not written by a tether up"),
        ("[]", "not written by a tether up"),
        ("[" * 50_000, "not written by a tether up"),
        ("x" * 100_000, "not written by a tether up"),
        ({**TOLD, "v": 2}, "version of Tether"),
        ({**TOLD, "v": True}, "version of Tether"),
        ({**TOLD, "url": "ftp://x"}, "not written by a tether up"),
        ({**TOLD, "url": 5}, "not written by a tether up"),
        ({**TOLD, "api_key": "tk_se cret"}, "not written by a tether up"),
        ({**TOLD, "pid": "1"}, "has no process id"),
        ({**TOLD, "pid": -1}, "has no process id"),
    ],
)
def test_a_file_that_no_tether_up_wrote_is_refused(find, tmp_path, value, words):
    path = write(tmp_path / "home/.tether", value)
    with pytest.raises(GatewayUnknown, match=words) as caught:
        find()
    assert str(path) in str(caught.value)
    assert "TETHER_URL" in str(caught.value)
    assert "se cret" not in str(caught.value)


def test_a_file_of_an_ended_tether_up_says_so(find, tmp_path):
    write(tmp_path / "home/.tether", {**TOLD, "pid": ended_process()})
    with pytest.raises(
        GatewayUnknown, match=r"tether up is no longer running.*start it again, or set TETHER_URL"
    ):
        find()


@pytest.mark.parametrize("rights", [0o620, 0o602])
def test_a_file_that_others_may_write_is_not_trusted(find, tmp_path, rights):
    write(tmp_path / "home/.tether", TOLD).chmod(rights)
    with pytest.raises(GatewayUnknown, match="writable by other users, and is not trusted"):
        find()


def test_a_file_of_somebody_else_is_not_trusted(find, tmp_path, monkeypatch):
    write(tmp_path / "home/.tether", TOLD)
    monkeypatch.setattr(endpoint.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(GatewayUnknown, match="not to you, and is not trusted"):
        find()


def test_a_pipe_does_not_hold_up_who_looks(find, tmp_path):
    (tmp_path / "home/.tether").mkdir(parents=True)
    os.mkfifo(tmp_path / "home/.tether/endpoint.json")
    with pytest.raises(GatewayUnknown, match="not a regular file"):
        find()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8470", "http://localhost:8470"),
        ("https://tether.example/", "https://tether.example"),
        ("https://tether.example/a/b/", "https://tether.example/a/b"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("http://tether_gateway", "http://tether_gateway"),
    ],
)
def test_an_address_keeps_its_path(url, expected):
    assert check_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8470",
        "ftp://x",
        "http://",
        "http://:80",
        "http://x:0",
        "http://x:99999",
        "http://x:port",
        "http://[::1",
        "http://x/?",
        "http://x?key=hidden",
        "http://x#hidden",
        "http://user:hidden@x",
        "http://user@x",
        "http://x y",
        "http://x\n",
        "http://x\\y",
        "http://a..b",
        5,
        None,
    ],
)
def test_what_is_no_address_is_refused_without_telling_secrets(url):
    with pytest.raises(ConfigError) as caught:
        check_url(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "tk a", "tk\n", "tk\u00e9", 5, None])
def test_what_cannot_be_sent_is_no_key(key):
    with pytest.raises(ConfigError):
        check_key(key)


def test_an_endpoint_does_not_show_its_key():
    assert "tk_here" not in repr(Endpoint(URL, "tk_here"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9", True),
        ("http://[::1]", True),
        ("http://localhost", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example", False),
    ],
)
def test_loopback_is_this_machine(url, expected):
    assert is_on_this_machine(url) is expected


def test_a_key_that_travels_unencrypted_is_warned_of(caplog):
    open_gateway("http://10.0.0.1", "tk_hidden").close()
    open_gateway("https://10.0.0.1", "tk_hidden").close()
    open_gateway("http://127.0.0.1", "tk_hidden").close()
    (record,) = caplog.records
    assert "unencrypted" in record.getMessage()
    assert "tk_hidden" not in record.getMessage()


def test_the_client_is_imported_without_what_it_does_not_use_at_once():
    code = "import sys, tether.client.api; sys.exit('asyncio' in sys.modules or 'socket' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
