"""Proxies are bypassed for this machine and never fatal, and no message shows an address's password."""

import logging
import os

import httpx
import pytest

from emtta_core.errors import EmttaError
from emtta_core.network import configure_proxies, proxy_of
from emtta_core.pipeline.job import describe
from emtta_core.sanitize import SanitizingFormatter, escaped, without_passwords

SECRET = "p/w#1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without proxies; restored afterwards."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        for spelling in (name, name.upper()):
            monkeypatch.setenv(spelling, "")
            monkeypatch.delenv(spelling)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "socks5h://proxy:1080", "proxy:3128"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0"])
def test_localhost_bypasses_proxy(name: str, proxy: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, proxy)
    assert configure_proxies() == []
    assert proxy_of("http://elsewhere.example/api") == proxy
    with httpx.Client(verify=False) as client:  # reading the certificates would take most of the time
        transport = client._transport_for_url(httpx.URL(f"http://{host}:4200/api"))
        assert transport is client._transport  # the transport for direct connections


def test_existing_bypasses_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "corp.example")
    monkeypatch.setenv("no_proxy", "10.0.0.1, intern")
    configure_proxies()
    exempt = os.environ["no_proxy"].split(",")
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"]
    assert {"corp.example", "10.0.0.1", "intern", "localhost", "127.0.0.1", "::1"} <= set(exempt)


def test_bypass_of_all_hosts_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    configure_proxies()
    assert os.environ["no_proxy"] == "*"


@pytest.mark.parametrize(
    ("proxy", "fault"),
    [
        ("socks4://127.0.0.1:1080", "the proxy scheme 'socks4' is not supported"),
        ("ftp://proxy:21", "the proxy scheme 'ftp' is not supported"),
        ("http://proxy:port", "its port is not a number from 0 to 65535"),
        ("http://", "it names no host"),
    ],
)
def test_unusable_proxy_is_dropped(proxy: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    (sentence,) = configure_proxies()
    assert sentence.startswith(f"ALL_PROXY={proxy} is ignored: {fault}; write it as http://HOST:PORT")
    assert "ALL_PROXY" not in os.environ
    httpx.Client().close()


@pytest.mark.parametrize("name", ["PREFECT_API_URL", "AWS_ENDPOINT_URL", "HF_ENDPOINT", "https_proxy"])
def test_address_password_is_never_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"https://me:{SECRET}@host:1/path"
    monkeypatch.setenv(name, address)
    message = f"{address} does not answer; nor does me:{SECRET}@host"
    shown = "https://***@host:1/path does not answer; nor does ***@host"
    assert without_passwords(message) == shown
    assert str(EmttaError(message)) == shown
    assert escaped(message) == shown
    assert describe(OSError(message)) == f"OSError: {shown}"
    try:
        raise OSError(message)
    except OSError as error:
        record = logging.LogRecord("name", logging.ERROR, "file", 1, message, (), (OSError, error, error.__traceback__))
    logged = SanitizingFormatter("%(message)s").format(record)
    assert logged.count("***@host:1") == 2
    assert SECRET not in logged


def test_nonaddress_is_left_unchanged() -> None:
    for text in ("mail me@example.org", "a://b c@d", "100 % @ home"):
        assert without_passwords(text) == text
