"""Where a device is: `ssh://[user@]host[:port][/device]`.

User and host become arguments of `ssh`, so whatever could be read as an option there, or by a shell, is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgetok.errors import UsageError

SCHEME = "ssh://"
FORM = "ssh://[user@]host[:port][/device]"
_PARTS = re.compile(
    r"ssh://(?:(?P<user>[^@/]*)@)?(?P<host>\[[^]/]*\]|[^:/\[\]]*)(?::(?P<port>[^/]*))?(?:/(?P<device>.+)?)?"
)
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?")


@dataclass(frozen=True)
class Address:
    """A device behind ssh.

    Attributes:
        host: a name that ssh knows (an alias of the user's ssh_config too), or an address; of IPv6 without brackets.
        user: None leaves it to ssh_config.
        port: None leaves it to ssh_config.
        device: the profile of devices/ to run under there; "auto" is the one that is recognised there.
    """

    host: str
    user: str | None = None
    port: int | None = None
    device: str = "auto"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            UsageError: a part of it is missing, or could be taken for something else.
        """
        found = _PARTS.fullmatch(text)
        if found is None:
            raise UsageError(f"address {text!r}: write {FORM}")
        user, host, port, device = found.group("user", "host", "port", "device")
        bare = host.removeprefix("[").removesuffix("]")
        if not (_IPV6.fullmatch(bare) and ":" in bare if host.startswith("[") else _WORD.fullmatch(host)):
            raise UsageError(f"address {text!r}: {host!r} is no host: a name, or an address, of IPv6 in brackets")
        for what, part in (("user", user), ("device", device)):
            if part is not None and not _WORD.fullmatch(part):
                raise UsageError(f"address {text!r}: {part!r} is no {what}: letters, digits, '.', '_', '-'; {FORM}")
        if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
            raise UsageError(f"address {text!r}: {port!r} is no port: a number from 1 to 65535")
        return cls(bare, user, None if port is None else int(port), device or "auto")

    @property
    def arguments(self) -> list[str]:
        """How `ssh` is told of it; the host is last, behind what ends its options."""
        user = [] if self.user is None else ["-l", self.user]
        port = [] if self.port is None else ["-p", str(self.port)]
        return [*user, *port, "--", self.host]

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{SCHEME}{user}{host}{port}"
