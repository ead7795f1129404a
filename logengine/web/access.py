"""Who may ask: a token in the URL, then in a cookie, and only under a name of this machine. No I/O.

The `Host` of a request is checked because of DNS rebinding: a page of anyone may have a name that
suddenly means 127.0.0.1, and is then of the same origin as this server.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from logengine.errors import InvalidOption

_LOCAL_HOSTS = frozenset(("localhost", "127.0.0.1", "[::1]"))
# A browser says where a request comes from; other clients do not.
_OWN_SITES = frozenset(("", "same-origin", "none"))


# As browsers send it: they write a name that is not ASCII with `xn--`.
_NAME = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


def check_host(name: str) -> None:
    """Raises `InvalidOption` if no browser ever sends such a name, without its port."""
    if not _NAME.fullmatch(name):
        raise InvalidOption(
            f"{name!r} is not the name of a host; expected one such as logs.example.org or [::1], "
            "without https:// and without a port: every port of it is let in"
        )


@dataclass(frozen=True)
class Access:
    """Lets requests in that have `token`, if there is one, under one of the `hosts`.

    `cookie` is the name of the cookie: one for each server, as cookies do not know about ports.
    """

    token: str | None
    cookie: str
    hosts: frozenset[str] = frozenset()

    def allows_host(self, host: str) -> bool:
        """Returns whether this is a name of this machine, with any port: it may be forwarded."""
        name = host.lower()
        if not name.endswith("]"):
            before, colon, port = name.rpartition(":")
            name = before if colon and port.isdecimal() else name
        return name in _LOCAL_HOSTS or name in self.hosts

    def allows_site(self, headers: Mapping[str, str]) -> bool:
        """Returns whether the request is not one that another page makes."""
        if headers.get("Sec-Fetch-Site", "") not in _OWN_SITES:
            return False
        # Older browsers only say this, and not with each request.
        origin = headers.get("Origin")
        return origin is None or origin.partition("://")[2] == headers.get("Host")

    def is_token(self, given: str | None) -> bool:
        """Returns whether this is the token; takes the same time for every wrong one."""
        if self.token is None:
            return True
        return given is not None and hmac.compare_digest(
            given.encode("utf-8", "surrogateescape"), self.token.encode()
        )

    def allows(self, cookies: Mapping[str, str], headers: Mapping[str, str]) -> bool:
        """Returns whether a request has the token: in its cookie, or as `Bearer` for programs."""
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given):
            return True
        return self.is_token(cookies.get(self.cookie))
