"""Users' passwords as they are stored: Argon2id in PHC strings. Pure: salts come from outside.

64 MiB, three passes, one lane: the second recommendation of RFC 9106 (section 4) in one lane, as for the vault.
"""

from __future__ import annotations

from typing import Final

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_MEMORY: Final = 64 * 1024
"""KiB."""
_PASSES: Final = 3
_LANES: Final = 1

NOBODY: Final = f"$argon2id$v=19$m={_MEMORY},t={_PASSES},p={_LANES}${'A' * 22}${'A' * 43}"
"""What the password of a user who does not exist is held against: it takes as long, and nothing is known to match.

Its salt and its hash are zeros, 16 and 32 bytes in base64 without padding.
"""


def hashed(password: bytes, salt: bytes) -> str:
    """Return the PHC string of a password. Takes 64 MiB and a good part of a second."""
    return _hasher().hash(password, salt=salt)


def matches(stored: str, password: bytes) -> bool:
    """Tell whether this is the password; False for a string that is none of ours. Takes as long as `hashed`."""
    try:
        return _hasher().verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


def _hasher() -> PasswordHasher:
    return PasswordHasher(
        time_cost=_PASSES,
        memory_cost=_MEMORY,
        parallelism=_LANES,
        hash_len=_HASH_BYTES,
        salt_len=SALT_BYTES,
        type=Type.ID,
    )
