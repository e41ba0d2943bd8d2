"""Which proxy serves which origin, by the usual variables (spec/runtime.md 1)."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from reqon.errors import ConfigurationError
from reqon.http.addresses import host_of, is_loopback_host
from reqon.secrets import SECRETS


def proxy_for(origin: str, environment: Mapping[str, str]) -> str | None:
    """The proxy that the usual variables name for this origin; None for this machine and for `no_proxy` hosts.

    Raises:
        ConfigurationError: what they name is no http(s) URL; the value is not shown, for it may hold a password.
    """
    scheme, host = origin.partition("://")[0], host_of(origin)

    def variable(name: str) -> str:
        return environment.get(name) or environment.get(name.upper()) or ""

    name = f"{scheme}_proxy"
    proxy = variable(name)
    if not proxy:
        name = "all_proxy"
        proxy = variable(name)
    if not proxy or is_loopback_host(host):
        return None
    if any(_bypasses(entry.strip().lower(), host) for entry in variable("no_proxy").split(",")):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    return _checked(proxy, name)


def _checked(proxy: str, name: str) -> str:
    try:
        parts = urlsplit(proxy)
        SECRETS.add(parts.password)
        port = parts.port  # raises where it is none
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
        usable = usable and not any(c.isspace() for c in proxy)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            f"the variable {name} names no proxy that can be used", hint="it is an address such as http://proxy:3128"
        )
    return proxy


def _bypasses(entry: str, host: str) -> bool:
    """Whether an entry of `no_proxy` covers the host: `*`, a host, a domain with or without a leading dot."""
    entry = entry.removeprefix("*.").removeprefix(".").partition(":")[0] if entry != "*" else entry
    return entry == "*" or (entry != "" and (host == entry or host.endswith(f".{entry}")))
