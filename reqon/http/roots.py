"""Certificate authorities beside those of the system (spec/runtime.md 1)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reqon.errors import ConfigurationError

if TYPE_CHECKING:  # at run time only where it is needed: it costs a start 10 ms
    import ssl

_VARIABLES = ("SSL_CERT_FILE", "REQON_CA_BUNDLE")


def add_roots(context: "ssl.SSLContext", environment: Mapping[str, str]) -> None:
    """Trust also whom the files vouch for that the variables name.

    Raises:
        ConfigurationError: such a file cannot be read, or holds no certificates.
    """
    for name in _VARIABLES:
        if path := environment.get(name):
            try:
                context.load_verify_locations(cafile=path)
            except OSError as error:
                # One of ssl, which is an OSError too, has read the file.
                read = type(error).__module__ == "ssl"
                reason = "it holds no certificates" if read else (error.strerror or str(error)).lower()
                raise ConfigurationError(
                    f"{name} names {path}, which cannot be used: {reason}",
                    hint="it is a file of certificates in PEM form; unset the variable to trust the system's alone",
                ) from error


def check_roots(environment: Mapping[str, str]) -> None:
    """See `add_roots`; costs nothing where no variable is set."""
    if any(environment.get(name) for name in _VARIABLES):
        import ssl  # noqa: PLC0415  # see above

        add_roots(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), environment)
