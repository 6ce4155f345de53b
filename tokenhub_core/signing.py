"""Signed directives: `@@tokenhub[KEY:NONCE:EXPIRY:MAC] mode=cheap`. Pure; time is an argument.

    KEY      the id of the client's key that the call is made with
    NONCE    16 to 64 characters of A-Z a-z 0-9 - _, never used before for another text
    EXPIRY   seconds since the epoch, at most an hour ahead
    MAC      HMAC-SHA-256, base64url without padding, of these five lines, joined by line feeds:
             `tokenhub directive 1`, KEY, NONCE, EXPIRY, and the directive's text behind the bracket (of a block:
             up to its `@@end`) without spaces, tabs and line ends around it

The secret is the key's own: HMAC-SHA-256 of the key's id under a subkey of the vault's root.

A program sends the same message again, with every step of an agent and after every failure. So a nonce that comes
again is good for the very text that it first stood in, and for no other: whoever copies a signed directive into a
text of their own has a replay.
"""

from __future__ import annotations

import heapq
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import msgspec

from tokenhub_core.types import ApiKey

MAX_SECONDS: Final = 3600
"""How far ahead an expiry may lie; so long a nonce is remembered at most."""
SECRET_BYTES: Final = 32
MAX_NONCES: Final = 10_000
"""How many nonces of one key are remembered. Beyond it nothing of that key is honoured until some expire."""

_TAG: Final = re.compile(
    r"([A-Za-z0-9_.-]{1,64}):([A-Za-z0-9_-]{16,64}):([0-9]{1,12}):([A-Za-z0-9_-]{43})", re.ASCII
)
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_MARK: Final = b"@@tokenhub["
_SIGNED: Final = re.compile(
    rb"@@tokenhub\[([A-Za-z0-9_.-]{1,64}):([A-Za-z0-9_-]{16,64}):([0-9]{1,12}):", re.ASCII
)
_FEW: Final = 8
_AROUND: Final = " \t\r\n"


class Signature(msgspec.Struct, frozen=True):
    """Who signed a directive, and what the signature is for."""

    key_id: str
    nonce: str
    expires: int
    mac: str
    text: str


def is_key_id(text: str) -> bool:
    """Tell whether a key's id can stand in a signature."""
    return _KEY_ID.fullmatch(text) is not None


def signature(tag: str, text: str) -> Signature:
    """Return what stands in a directive's bracket; raises ValueError where that is no signature."""
    match = _TAG.fullmatch(tag)
    if match is None:
        raise ValueError("a signature is [key:nonce:expiry:mac]")
    key_id, nonce, expires, mac = match.groups()
    return Signature(key_id, nonce, int(expires), mac, text.strip(_AROUND))


def sign(secret: bytes, text: str, *, key_id: str, nonce: str, expires: int) -> str:
    """Return the tag of a directive with this text; raises ValueError where it could not be read again."""
    mac = _mac(secret, Signature(key_id, nonce, expires, "", text.strip(_AROUND)))
    tag = f"{key_id}:{nonce}:{expires}:{mac}"
    signature(tag, text)
    return tag


def secret_of(root: bytes, key_id: str) -> bytes:
    """Return the signing secret of one key under a root."""
    return hmac.digest(root, key_id.encode(), "sha256")


def _mac(secret: bytes, one: Signature) -> str:
    lines = "\n".join(("tokenhub directive 1", one.key_id, one.nonce, str(one.expires), one.text))
    digest = hmac.digest(secret, lines.encode("utf-8", "surrogatepass"), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def signed(body: bytes, key_id: str) -> list[tuple[str, int]]:
    """Return nonce and expiry of what may be signatures of a key in a call's body, as it came; the first few."""
    if _MARK not in body:
        return []
    found = (match.groups() for match in _SIGNED.finditer(body))
    mine = [(nonce.decode(), int(end)) for key, nonce, end in found if key == key_id.encode()]
    return list(dict.fromkeys(mine))[:_FEW]


type Told = Callable[[str, str, bytes, int], None]
"""Hears of a nonce that was met for the first time: key, nonce, the digest of its text, expiry."""


class Signatures:
    """Checks signatures, and remembers their nonces until they expire. In memory: each process has its own.

    Where several processes tell each other (`share`), a nonce is only good here that was `vetted` or `learned` before.
    """

    def __init__(self, secret: Callable[[str], bytes | None] = lambda key_id: None) -> None:
        """`secret` tells a key's signing secret, None while the vault is locked."""
        self._secret = secret
        self._seen: dict[str, dict[str, bytes]] = {}
        self._ends: dict[str, list[tuple[int, str]]] = {}
        self._told: Told | None = None
        self._vetted: dict[tuple[str, str], float] = {}

    def share(self, told: Told) -> None:
        """Let `told` hear of nonces, and honour none from now on that nobody has vetted."""
        self._told = told

    def knows(self, key_id: str, nonce: str) -> bool:
        """Tell whether a nonce was met here, or elsewhere as far as is known."""
        return nonce in self._seen.get(key_id, ())

    def vetted(self, key_id: str, nonce: str, until: float) -> None:
        """Let a nonce be good here that nobody else has met."""
        while len(self._vetted) >= MAX_NONCES:
            del self._vetted[next(iter(self._vetted))]
        self._vetted[key_id, nonce] = until

    def learn(self, key_id: str, nonce: str, text: bytes, expires: int, now: float) -> None:
        """Hold a nonce to the digest of the text that it stood in elsewhere."""
        if not self.knows(key_id, nonce) and now < expires <= now + MAX_SECONDS:
            self._keep(key_id, nonce, text, expires)

    def met(self, now: float) -> list[tuple[str, str, bytes, int]]:
        """Return every nonce that is remembered and good, as `told` hears of it."""
        return [
            (key_id, nonce, self._seen[key_id][nonce], expires)
            for key_id, ends in self._ends.items()
            for expires, nonce in ends
            if expires > now
        ]

    def refusal(self, one: Signature, key: ApiKey | None, within: str, now: float) -> str:
        """Return why a directive that stands in the text `within` is not its key's, empty where it is.

        `now` is in seconds since the epoch. What is returned is one of a closed list of words.
        """
        if key is None or one.key_id != key.id:
            return "signature-key"
        secret = self._secret(key.id)
        if secret is None:
            return "signature-locked"
        if not hmac.compare_digest(_mac(secret, one), one.mac):
            return "signature-bad"
        if one.expires <= now:
            return "signature-expired"
        if one.expires > now + MAX_SECONDS:
            return "signature-too-long"
        return self._met(one, sha256(within.encode("utf-8", "surrogatepass")).digest(), now)

    def _met(self, one: Signature, text: bytes, now: float) -> str:
        seen, ends = self._seen.setdefault(one.key_id, {}), self._ends.setdefault(one.key_id, [])
        while ends and ends[0][0] <= now:
            del seen[heapq.heappop(ends)[1]]
        known = seen.get(one.nonce)
        if known is not None:
            return "" if known == text else "signature-replayed"
        if len(seen) >= MAX_NONCES:
            return "signature-full"
        if self._told is not None:
            if self._vetted.pop((one.key_id, one.nonce), 0.0) <= now:
                return "signature-unsure"
            self._told(one.key_id, one.nonce, text, one.expires)
        self._keep(one.key_id, one.nonce, text, one.expires)
        return ""

    def _keep(self, key_id: str, nonce: str, text: bytes, expires: int) -> None:
        self._seen.setdefault(key_id, {})[nonce] = text
        heapq.heappush(self._ends.setdefault(key_id, []), (expires, nonce))
