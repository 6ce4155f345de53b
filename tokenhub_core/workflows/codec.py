"""How values travel through Temporal: as MessagePack, compressed, and sealed by a key of the vault.

Temporal's store and its user interface hold nothing that can be read. Whoever has no open vault can neither start a
workflow nor go on with one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, override

import msgspec
import zstandard
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
    PayloadCodec,
)

from tokenhub_core.vault import sealing
from tokenhub_core.vault.sealing import Sealer, TamperedError

_PACKED: Final = b"binary/msgpack"
_SEALED: Final = b"binary/tokenhub-sealed"
_LARGEST: Final = 64 << 20
"""Bytes of one value, unpacked."""


class LockedError(Exception):
    """The vault is not open, or was given another root since."""


class _Structs(EncodingPayloadConverter):
    """Values of ours."""

    @property
    @override
    def encoding(self) -> str:
        return _PACKED.decode()

    @override
    def to_payload(self, value: Any) -> Payload | None:
        if not isinstance(value, msgspec.Struct):
            return None
        return Payload(metadata={"encoding": _PACKED}, data=msgspec.msgpack.encode(value))

    @override
    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        return msgspec.msgpack.decode(payload.data, type=Any if type_hint is None else type_hint)


class _Converter(CompositePayloadConverter):
    """Ours first, then what Temporal itself says."""

    def __init__(self) -> None:
        super().__init__(_Structs(), *DefaultPayloadConverter.default_encoding_payload_converters)


class Codec(PayloadCodec):
    """Seals every payload with a key of its own."""

    def __init__(self, sealer: Callable[[], Sealer | None], entropy: Callable[[int], bytes]) -> None:
        self._sealer = sealer
        self._entropy = entropy

    @override
    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        sealer = self._open()
        return [self._seal(sealer, one) for one in payloads]

    @override
    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._unseal(one) for one in payloads]

    def _seal(self, sealer: Sealer, payload: Payload) -> Payload:
        name = self._entropy(16).hex()
        packed = zstandard.compress(payload.SerializeToString())
        sealed = sealer.seal(name, packed, self._entropy(sealing.NONCE_BYTES))
        told = {"encoding": _SEALED, "key": sealer.key_id.encode(), "name": name.encode()}
        return Payload(metadata=told, data=sealed)

    def _unseal(self, payload: Payload) -> Payload:
        told = payload.metadata
        if told.get("encoding") != _SEALED:
            # Anybody who can write to Temporal could have put it there.
            raise TamperedError("a payload is not sealed")
        sealer = self._open()
        if told["key"].decode() != sealer.key_id:
            raise LockedError("a payload was sealed under another root of the vault")
        packed = sealer.unseal(told["name"].decode(), payload.data)
        found = Payload()
        found.ParseFromString(zstandard.decompress(packed, max_output_size=_LARGEST))
        return found

    def _open(self) -> Sealer:
        sealer = self._sealer()
        if sealer is None:
            raise LockedError("the vault is not open")
        return sealer


def converter(codec: PayloadCodec | None) -> DataConverter:
    """Return how our values travel; without a codec in the clear, which only tests do."""
    return DataConverter(
        payload_converter_class=_Converter,
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
        payload_codec=codec,
    )
