"""Origins, and which addresses a connection may reach (spec/runtime.md 2.2, spec/reliability.md 6)."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_METADATA = frozenset((ip_address("169.254.169.254"), ip_address("fd00:ec2::254")))
_PROTOCOL_ASSIGNMENTS = IPv4Network("192.0.0.0/24")  # older Pythons take parts of it for global; clouds use it inside
# An IPv4 address in the last 32 bits: translated by the whole net, by one's own, or without state.
_TRANSLATED = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96")))


@lru_cache(maxsize=1024)
def origin_of(url: str) -> str:
    """`scheme://host:port` in lower case, the port always written.

    Raises:
        ValueError: no absolute http(s) URL, no host, or user information in it.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        raise ValueError("not an http or https URL")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ValueError("a URL must not hold user information")
    host = parts.hostname
    if not host or "\\" in parts.netloc or any(c <= " " or c == "\x7f" for c in parts.netloc):
        raise ValueError("the URL names no host")
    port = parts.port if parts.port is not None else _DEFAULT_PORTS[scheme]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def host_of(origin: str) -> str:
    """The host of an origin, without brackets."""
    return origin.split("://", 1)[1].rsplit(":", 1)[0].strip("[]")


def is_loopback_host(host: str) -> bool:
    """Whether the host's own spelling says that it is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def refusal(address: str, *, trusted: bool) -> str | None:
    """Why no connection may go to this IP address; None when it may.

    A trusted origin is the mission's `base` or stands in a literal of the mission: loopback and private addresses are
    open to it. Link-local, metadata, unspecified and multicast addresses are open to nobody.
    """
    try:
        ip = _plain(ip_address(address.partition("%")[0]))
    except ValueError:
        return "not an IP address"
    if ip in _METADATA:
        return "a cloud metadata address"
    if ip.is_link_local:
        return "a link-local address"
    if ip.is_unspecified:
        return "an unspecified address"
    if ip.is_multicast or (isinstance(ip, IPv4Address) and ip == IPv4Address("255.255.255.255")):
        return "a multicast address"
    if trusted:
        return None
    if ip.is_loopback:
        return "a loopback address"
    inside = ip in _PROTOCOL_ASSIGNMENTS if isinstance(ip, IPv4Address) else ip.is_site_local
    if inside or not ip.is_global:
        return "a private address"
    return None


def _plain(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip.sixtofour is not None:
            return ip.sixtofour
        if any(ip in net for net in _TRANSLATED) or (int(ip) >> 32 == 0 and int(ip) > 1):
            return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip
