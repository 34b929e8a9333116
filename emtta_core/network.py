"""The network settings of the environment: proxies, and the hosts that bypass them."""

import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from emtta_core.sanitize import without_passwords

LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
"""Hosts that are this machine, which a proxy cannot reach."""

SCHEMES = ("http", "https", "socks5", "socks5h")
"""The allowed schemes of a proxy; if a variable names another, httpx refuses every request, whatever the host."""

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def configure_proxies() -> list[str]:
    """Bypass proxies for this machine, and drop unusable proxies, for this process and its children.

    Returns:
        A message for the user about each variable that is ignored.
    """
    messages = []
    for name in [name for name in os.environ if name.lower() in _PROXIES]:
        fault = _fault(os.environ[name])
        if fault is not None:
            messages.append(
                f"{name}={without_passwords(os.environ[name])} is ignored: {fault}; "
                f"write it as {', '.join(f'{scheme}://HOST:PORT' for scheme in SCHEMES)}, or unset it"
            )
            del os.environ[name]
    direct = [
        host.strip()
        for name in ("no_proxy", "NO_PROXY")
        for host in os.environ.get(name, "").split(",")
        if host.strip()
    ]
    if "*" not in direct:
        # Both spellings get all hosts, as most clients read only one of the two.
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys([*direct, *LOCAL]))
    return messages


def proxy_of(url: str) -> str | None:
    """The proxy for a URL, without its password; None if the URL is requested directly."""
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    return None if found is None else without_passwords(found)


def _fault(proxy: str) -> str | None:
    if not proxy.strip():
        return None
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme not in SCHEMES:
        return f"the proxy scheme {parts.scheme!r} is not supported"
    try:
        port = parts.port
    except ValueError:
        return "its port is not a number from 0 to 65535"
    return None if parts.hostname and port != 0 else "it names no host"
