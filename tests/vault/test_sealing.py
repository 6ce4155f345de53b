"""What is sealed opens with its key under its name, and in no other way."""

from __future__ import annotations

import base64
import hmac
import json
from dataclasses import replace
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.vault import sealing
from tokenhub_core.vault.sealing import Header, Identity, Params, Place, TamperedError, WrongPasswordError

PASSWORD = b"correct horse battery staple"
SALT = bytes(range(16))
ROOT = bytes(range(32, 64))
NONCE = bytes(range(100, 112))
CHEAP = Params(memory_kib=8, passes=1)
NOW = 1_700_000_000.0
ID = bytes(range(16, 32))
WHO = Identity(ID, 3, NOW)

keys = st.binary(min_size=32, max_size=32)
nonces = st.binary(min_size=12, max_size=12)
names = st.text(max_size=40).filter(lambda name: name.isprintable())
quick = settings(max_examples=100, deadline=None)


def header(params: Params = CHEAP) -> Header:
    return sealing.make_header(PASSWORD, WHO, salt=SALT, root=ROOT, nonce=NONCE, params=params, now=NOW + 1)


def derived(params: Params) -> bytes:
    """Return the key-encryption key, from another Argon2id."""
    return Argon2id(
        salt=SALT, length=32, iterations=params.passes, lanes=params.lanes, memory_cost=params.memory_kib
    ).derive(PASSWORD)


def place(name: str, version: int = 1) -> Place:
    return Place(ID, name, version)


# --- known answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [Params(), Params(memory_kib=256, passes=2)])
def test_a_header_is_made_as_it_always_was(params: Params) -> None:
    """Another Argon2id and plain AES-GCM make the same, bound to the format, the vault and its generation."""
    bound = b"2|root|" + ID.hex().encode() + b"|3|"

    assert header(params).wrapped == NONCE + AESGCM(derived(params)).encrypt(NONCE, ROOT, bound)


def test_a_header_of_the_first_format_still_opens() -> None:
    """Its bytes are fixed."""
    wrapped = bytes.fromhex(
        "6465666768696a6b6c6d6e6fb735c0e905a768af5d584d0cd4d02195b2769ac7ae9520049a60eadffaac677f4e570268538778bc04"
        "9446e345664d31"
    )
    old = Header(SALT, wrapped, NOW, Params(memory_kib=256, passes=2), version=1)

    assert sealing.open_root(old, PASSWORD) == ROOT
    with pytest.raises(WrongPasswordError):
        sealing.open_root(replace(old, version=2, vault_id=ID), PASSWORD)
    with pytest.raises(TamperedError):
        sealing.open_root(replace(old, version=2), PASSWORD)


@pytest.mark.parametrize("label", ["entries", "manifest", "audit", "kept", "durable"])
def test_a_subkey_is_hkdf_of_the_root(label: str) -> None:
    """RFC 5869 with SHA-256, no salt and the label as info, written out with HMAC."""
    extracted = hmac.digest(bytes(32), ROOT, sha256)
    expanded = hmac.digest(extracted, f"tokenhub|2|{label}\x01".encode(), sha256)

    assert sealing.subkey(ROOT, label) == expanded
    assert sealing.subkey(bytearray(ROOT), label, version=1) != expanded


def test_the_labels_are_apart() -> None:
    """No key has two uses."""
    labels = {sealing.ENTRIES, sealing.MANIFEST, sealing.AUDIT, sealing.AUDIT_ID, sealing.KEPT}

    assert labels == {"entries", "manifest", "audit", "audit id", "kept"}


def test_an_entry_is_sealed_as_it_always_was() -> None:
    """Nonce, ciphertext and tag, bound to `2|entry|<vault>|<version>|<name>`; in the first format `1|entry|<name>`."""
    nonce = bytes(range(200, 212))
    key = sealing.subkey(ROOT, sealing.ENTRIES)
    sealed = sealing.seal(key, place("provider:openai:api_key", 7), b"sk-test", nonce)
    bound = b"2|entry|" + ID.hex().encode() + b"|7|provider:openai:api_key"

    assert sealed == nonce + AESGCM(key).encrypt(nonce, b"sk-test", bound)
    old = bytes.fromhex("c8c9cacbcccdcecfd0d1d2d3165a4bae605f49d36bb39760656e391f29ec326f33f724")
    first = sealing.subkey(ROOT, sealing.ENTRIES, version=1)
    assert sealing.unseal(first, Place(b"", "provider:openai:api_key", 0), old) == b"sk-test"


def test_the_mac_of_the_manifest_is_hmac_over_all_of_it() -> None:
    """Format, vault, counter, uses, and every entry in the order of names."""
    mac = sealing.manifest_mac(ROOT, ID, counter=5, seals=9, manifest={"b": 2, "a": 1})
    told = json.dumps([2, ID.hex(), 5, 9, [["a", 1], ["b", 2]]], separators=(",", ":")).encode()

    assert mac == hmac.digest(ROOT, told, sha256)


def test_the_default_costs_are_those_decided() -> None:
    """64 MiB, three passes, one lane; a key is used 2^32 times at most (NIST SP 800-38D, section 8.3)."""
    assert Params() == Params(memory_kib=65536, passes=3, lanes=1)
    assert sealing.MAX_SEALS == 4_294_967_296


# --- entries -----------------------------------------------------------------------------------------------


@quick
@given(key=keys, name=names, plaintext=st.binary(max_size=300), nonce=nonces)
def test_what_was_sealed_comes_back(key: bytes, name: str, plaintext: bytes, nonce: bytes) -> None:
    """Any bytes under any name."""
    sealed = sealing.seal(key, place(name), plaintext, nonce)

    assert sealing.unseal(key, place(name), sealed) == plaintext
    assert sealing.unseal(bytearray(key), place(name), sealed) == plaintext


@quick
@given(key=keys, name=names, plaintext=st.binary(max_size=100), nonce=nonces, where=st.integers(0, 10_000))
def test_no_bit_can_be_changed(key: bytes, name: str, plaintext: bytes, nonce: bytes, where: int) -> None:
    """Nonce, ciphertext and tag alike."""
    sealed = bytearray(sealing.seal(key, place(name), plaintext, nonce))
    where %= len(sealed) * 8
    sealed[where // 8] ^= 1 << where % 8

    with pytest.raises(TamperedError):
        sealing.unseal(key, place(name), bytes(sealed))


@quick
@given(key=keys, name=names, plaintext=st.binary(max_size=100), nonce=nonces, cut=st.integers(0, 10_000))
def test_nothing_can_be_cut_off_or_added(
    key: bytes, name: str, plaintext: bytes, nonce: bytes, cut: int
) -> None:
    """Any prefix, the empty one too, and any longer text."""
    sealed = sealing.seal(key, place(name), plaintext, nonce)

    for other in (sealed[: cut % len(sealed)], sealed + b"\0"):
        with pytest.raises(TamperedError):
            sealing.unseal(key, place(name), other)


@quick
@given(key=keys, one=names, other=names, nonce=nonces)
def test_an_entry_opens_under_its_own_name_only(key: bytes, one: str, other: str, nonce: bytes) -> None:
    """A ciphertext that was moved to another row is refused there."""
    sealed = sealing.seal(key, place(one), b"sk-secret", nonce)

    if one == other:
        assert sealing.unseal(key, place(other), sealed) == b"sk-secret"
    else:
        with pytest.raises(TamperedError) as caught:
            sealing.unseal(key, place(other), sealed)
        assert "sk-secret" not in str(caught.value)


@quick
@given(key=keys, other=keys, nonce=nonces)
def test_an_entry_opens_with_its_own_key_only(key: bytes, other: bytes, nonce: bytes) -> None:
    """Not with the key of another vault or another use."""
    sealed = sealing.seal(key, place("name"), b"sk-secret", nonce)

    if key != other:
        with pytest.raises(TamperedError):
            sealing.unseal(other, place("name"), sealed)


@quick
@given(key=keys, name=names, nonce=nonces, version=st.integers(1, 1 << 60), other=st.integers(0, 1 << 60))
def test_an_entry_opens_in_its_own_version_only(
    key: bytes, name: str, nonce: bytes, version: int, other: int
) -> None:
    """An older self of it is refused, and one of another vault too."""
    sealed = sealing.seal(key, place(name, version), b"sk-secret", nonce)

    assert sealing.unseal(key, place(name, version), sealed) == b"sk-secret"
    elsewhere = [Place(bytes(16), name, version), *([place(name, other)] if other != version else [])]
    for where in elsewhere:
        with pytest.raises(TamperedError):
            sealing.unseal(key, where, sealed)


def test_a_root_is_no_entry() -> None:
    """What was sealed for one purpose does not open for another, even with the same key and an empty name."""
    with pytest.raises(TamperedError):
        sealing.unseal(derived(CHEAP), Place(ID, "", 3), header().wrapped)


# --- audit keys of the past --------------------------------------------------------------------------------


def test_a_kept_key_comes_back_under_its_name() -> None:
    """Bound to the vault, the generation and its id; anything else in its place is refused."""
    sealed = sealing.keep(ROOT, header(), "k1", b"k" * 32, NONCE)
    keeping = replace(header(), kept={"k1": sealed})

    assert sealing.kept(ROOT, keeping) == {"k1": b"k" * 32}
    assert sealing.kept(ROOT, header()) == {}
    changed = [
        replace(keeping, kept={"k2": sealed}),
        replace(keeping, generation=4),
        replace(keeping, vault_id=bytes(16)),
        replace(keeping, kept={"k1": sealed[:-1] + b"\0"}),
        replace(keeping, kept={"k1": sealed[:-1]}),
        replace(keeping, kept={"k1": b""}),
    ]
    for one in changed:
        with pytest.raises(
            TamperedError, match=r"^the vault's header cannot be used: a key in it was changed$"
        ):
            sealing.kept(ROOT, one)


# --- the header --------------------------------------------------------------------------------------------


def test_the_password_opens_the_root() -> None:
    """What `make_header` wrapped, `open_root` returns, with the costs that the header names."""
    for params in (CHEAP, Params(memory_kib=64, passes=2, lanes=4)):
        assert sealing.open_root(header(params), PASSWORD) == ROOT


@pytest.mark.parametrize("wrong", [b"", PASSWORD[:-1], PASSWORD + b" ", PASSWORD.upper(), PASSWORD + b"\0"])
def test_another_password_does_not(wrong: bytes) -> None:
    """Not even one that differs in its last byte only."""
    with pytest.raises(WrongPasswordError):
        sealing.open_root(header(), wrong)


@pytest.mark.parametrize(
    "changed",
    [
        replace(header(), salt=bytes(16)),
        replace(header(), params=replace(CHEAP, passes=2)),
        replace(header(), params=replace(CHEAP, memory_kib=16)),
        replace(header(), generation=4),
        replace(header(), vault_id=bytes(16)),
        replace(header(), wrapped=bytes(60)),
        replace(header(), wrapped=header().wrapped[:-1] + bytes([header().wrapped[-1] ^ 1])),
    ],
    ids=["salt", "passes", "memory", "generation", "vault", "root", "tag"],
)
def test_an_edited_header_opens_with_no_password(changed: Header) -> None:
    """Salt, costs and the wrapped root belong together."""
    with pytest.raises(WrongPasswordError):
        sealing.open_root(changed, PASSWORD)


@pytest.mark.parametrize(
    "changed",
    [
        replace(header(), params=Params(memory_kib=1024 * 1024 + 1)),
        replace(header(), params=Params(memory_kib=7)),
        replace(header(), params=Params(memory_kib=-1)),
        replace(header(), params=replace(CHEAP, passes=17)),
        replace(header(), params=replace(CHEAP, passes=0)),
        replace(header(), params=Params(memory_kib=8 * 17, lanes=17)),
        replace(header(), params=replace(CHEAP, lanes=2)),
        replace(header(), params=replace(CHEAP, lanes=0)),
        replace(header(), salt=b"short"),
        replace(header(), salt=bytes(1 << 16)),
        replace(header(), wrapped=b""),
        replace(header(), wrapped=header().wrapped + b"\0"),
        replace(header(), vault_id=b""),
        replace(header(), vault_id=ID + b"\0"),
        replace(header(), version=1),
    ],
)
def test_impossible_parameters_are_refused_before_any_work(
    changed: Header, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever edits the header cannot make us take gigabytes: the key derivation is not even called."""
    monkeypatch.setattr(sealing, "hash_secret_raw", lambda *_, **__: pytest.fail("worked"))

    with pytest.raises(
        TamperedError, match=r"^the vault's header cannot be used: its parameters are outside their bounds$"
    ):
        sealing.open_root(changed, PASSWORD)


def test_a_header_survives_being_stored() -> None:
    """JSON with everything needed to open it: format, function, costs, salt, wrapped root, age."""
    stored = json.loads(header().to_json())

    assert Header.from_json(header().to_json()) == header()
    assert stored == {
        "version": 2,
        "vault_id": base64.b64encode(ID).decode(),
        "generation": 3,
        "password_at": NOW + 1,
        "kept": {},
        "kdf": "argon2id",
        "params": {"memory_kib": 8, "passes": 1, "lanes": 1},
        "salt": base64.b64encode(SALT).decode(),
        "wrapped": base64.b64encode(header().wrapped).decode(),
        "created_at": NOW,
    }


@pytest.mark.parametrize(
    "edit",
    [
        {"version": 3},
        {"kept": []},
        {"kdf": "scrypt"},
        {"salt": "not base64!"},
        {"salt": None},
        {"params": {"memory_kib": "64"}},
        {"params": []},
        {"wrapped": 1},
    ],
)
def test_a_header_of_another_kind_is_refused(edit: dict[str, object]) -> None:
    """A newer format or a broken field is told as such, never guessed at."""
    with pytest.raises(TamperedError, match="header cannot be used"):
        Header.from_json(json.dumps({**json.loads(header().to_json()), **edit}))


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "{", '"\ud800"', "\0"])
def test_a_header_that_is_no_header_is_refused(text: str) -> None:
    """Whatever stands in the row."""
    with pytest.raises(TamperedError, match="header cannot be used"):
        Header.from_json(text)


@quick
@given(text=st.text(max_size=60))
def test_no_text_breaks_the_reading_of_a_header(text: str) -> None:
    """Only ever a `TamperedError`."""
    with pytest.raises(TamperedError):
        Header.from_json(text)


def test_a_header_shows_no_sealed_bytes() -> None:
    """Its repr leaves the wrapped root out."""
    assert "wrapped" not in repr(header())
