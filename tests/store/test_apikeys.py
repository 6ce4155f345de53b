"""Clients' keys at rest."""

from __future__ import annotations

import pytest
from msgspec import structs
from sqlalchemy.exc import IntegrityError

from tests.admission.test_apikeys import NOW, ONE, PEPPER, THREE, TWO, kept
from tokenhub_core.admission.apikeys import Kept, Notice, known, rotated, told
from tokenhub_core.store import apikeys, schema
from tokenhub_core.store.database import Database
from tokenhub_core.types import Scope

FULL = kept(
    ONE,
    "key_1",
    scopes=["chat", "passthrough"],
    models=["a", "b*"],
    providers=["p"],
    hosts=["h"],
    project="apollo",
    tags=["t", "'; DROP TABLE api_keys; --"],
    limits={"tokens_per_minute": 7},
    trust={"roles": [], "names": ["mode"], "signed": True, "max_budget_usd": 0.5},
    privacy={"capture": "redacted", "retention_days": 7},
    expires_in="10h",
    rotation_days=5,
)


def stored(database: Database, *several: Kept) -> int:
    with database.writing() as connection:
        return [apikeys.put(connection, one) for one in several][-1]


def test_a_key_is_loaded_as_it_was_stored(database: Database) -> None:
    """Everything that is kept of it, its older secrets and what was told of it too."""
    whole = told(rotated(FULL, known(TWO, PEPPER, now=NOW), now=NOW, overlap=60), list(Notice))
    bare = kept(THREE, "key_2", enabled=False, scopes=[], models=[])
    assert stored(database, FULL, whole, bare) == 3
    with database.reading() as connection:
        assert apikeys.changes(connection) == apikeys.Changes([whole, bare], frozenset({"key_1", "key_2"}), 3)
        assert apikeys.find(connection, "key_1") == whole
        assert apikeys.find(connection, "key_3") is None
        assert apikeys.count(connection) == 2
        assert len(connection.execute(schema.API_KEY_SECRETS.select()).all()) == 3


def test_every_field_of_a_key_has_a_column() -> None:
    """What the types gain later cannot be forgotten here."""
    columns = {column.name for column in schema.API_KEYS.columns}
    assert columns == {*FULL.key.__struct_fields__, *Kept.__struct_fields__, "change"} - {"key", "secrets"}


def test_the_newest_secret_comes_first_whatever_the_clock_said(database: Database) -> None:
    """Also of two that came in the same moment: the older one has an end."""
    same = rotated(FULL, known(TWO, PEPPER, now=NOW), now=NOW, overlap=60)
    later = rotated(kept(ONE, "key_2"), known(THREE, PEPPER, now=NOW + 1), now=NOW + 1, overlap=60)
    stored(database, structs.replace(same, secrets=same.secrets[::-1]))
    with database.reading() as connection:
        assert apikeys.find(connection, "key_1") == same
    with database.writing() as connection:
        apikeys.remove(connection, "key_1")
        apikeys.put(connection, structs.replace(later, secrets=later.secrets[::-1]))
        assert apikeys.changes(connection).kept == [later]


def test_changes_are_those_after_a_number(database: Database) -> None:
    """A removed key is in none of them and not among the ids; of a number that was never reached all are new."""
    one, two, three = FULL, kept(TWO, "key_2"), kept(THREE, "key_3")
    with database.writing() as connection:
        assert apikeys.changes(connection) == apikeys.Changes([], frozenset(), 0)
        for known in (one, two, three):
            apikeys.put(connection, known)
        assert apikeys.changes(connection, since=3).kept == []
        assert apikeys.changes(connection, since=2).kept == [three]
        apikeys.put(connection, one)
        assert apikeys.changes(connection, since=3).kept == [one]
        apikeys.remove(connection, "key_3")
        assert apikeys.changes(connection, since=3) == apikeys.Changes(
            [one], frozenset({"key_1", "key_2"}), 5
        )
        assert apikeys.changes(connection, since=5).kept == []
        assert apikeys.changes(connection, since=6).kept == [one, two]


def test_a_removed_key_takes_its_digests_along(database: Database) -> None:
    """And no other's."""
    stored(database, FULL, kept(TWO, "key_2"))
    with database.writing() as connection:
        assert apikeys.remove(connection, "key_1") == 3
    with database.reading() as connection:
        assert [one.key.id for one in apikeys.changes(connection).kept] == ["key_2"]
        left = connection.execute(schema.API_KEY_SECRETS.select()).all()
        assert [row.key_id for row in left] == ["key_2"]


def test_no_secret_is_in_the_database(database: Database) -> None:
    """Nor the pepper; the digest has no other than its column."""
    stored(database, FULL)
    with database.reading() as connection:
        dump = repr([connection.execute(table.select()).all() for table in schema.METADATA.tables.values()])
    assert repr(FULL.secrets[0].digest) in dump
    for secret in (ONE, ONE[9:], ONE[18:], PEPPER.key.hex(), repr(PEPPER.key)):
        assert secret not in dump


def test_that_a_key_was_used_touches_nothing_else(database: Database) -> None:
    """No column of a change in between is taken back, no earlier time replaces a later one, no change is counted."""
    stored(database, FULL, kept(TWO, "key_2"))
    with database.writing() as connection:
        apikeys.put(connection, structs.replace(FULL, key=structs.replace(FULL.key, enabled=False)))
        apikeys.note_used(connection, {"key_1": 50, "key_2": 40, "gone": 1})
        apikeys.note_used(connection, {"key_1": 49, "key_2": 41})
        found, number = apikeys.changes(connection).kept, apikeys.generation(connection)
    assert [one.last_used_at for one in found] == [50, 41]
    assert (found[0].key.enabled, number) == (False, 3)
    assert stored(database, FULL) == 4
    with database.reading() as connection:
        again = apikeys.find(connection, "key_1")
    assert again == structs.replace(FULL, last_used_at=50)


def test_pages_are_cut_from_the_newest_on(database: Database) -> None:
    """Keys of one moment by their ids, none twice and none left out, also where some go between two pages."""
    several = [kept(TWO, f"key_{n}") for n in range(6)]
    several = [
        structs.replace(
            one,
            key=structs.replace(one.key, created_at=NOW + n // 2),
            secrets=(known(one.key.id, PEPPER, now=NOW),),
        )
        for n, one in enumerate(several)
    ]
    stored(database, *several)
    with database.writing() as connection:
        first = apikeys.page(connection, limit=2, before=None)
        assert [one.key.id for one in first] == ["key_5", "key_4"]
        assert first[0] == several[5]
        apikeys.remove(connection, "key_4")
        second = apikeys.page(connection, limit=3, before=(NOW + 2, "key_4"))
        assert [one.key.id for one in second] == ["key_3", "key_2", "key_1"]
        third = apikeys.page(connection, limit=3, before=(NOW, "key_1"))
        assert [one.key.id for one in third] == ["key_0"]
        assert apikeys.page(connection, limit=3, before=(NOW, "key_0")) == []


def test_a_scope_of_a_newer_version_is_none(database: Database) -> None:
    """What this version does not know it does not allow."""
    stored(database, FULL)
    with database.writing() as connection:
        connection.exec_driver_sql("""UPDATE api_keys SET scopes = '["chat","telepathy"]'""")
        found = apikeys.find(connection, "key_1")
    assert found is not None
    assert found.key.scopes == {Scope.CHAT}


def test_a_digest_belongs_to_one_key(database: Database) -> None:
    """A second key with the same secret cannot be stored."""
    stored(database, FULL)
    with pytest.raises(IntegrityError):
        stored(database, kept(ONE, "key_2"))
