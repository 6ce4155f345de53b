"""`tokenhub verify`: the proof that answers arrived as their providers sent them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import click
import msgspec

from tokenhub_core.audit import chain
from tokenhub_core.cli.admin import running_client
from tokenhub_core.cli.options import as_json, data_option, plain, shown, tell
from tokenhub_core.cli.place import alone, database_path, variable
from tokenhub_core.errors import ConfigError
from tokenhub_core.http.audit import report_json
from tokenhub_core.http.proofs import MAX_TRANSCRIPT, PATH, compared, told, verified
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.proof.checking import Bytes
from tokenhub_core.proof.verdicts import Verdict
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.proofs import ProofLog
from tokenhub_core.types import Json

_WRONG: Final = 1
"""The exit code where something is not what it was."""

_MEANT: Final = {
    Verdict.SAME: "what the provider sent",
    Verdict.QUIRK: "what the provider sent, repaired as its model's quirks say",
    Verdict.LOST: "left out: the caller's dialect has no tool calls",
    Verdict.PARTIAL: "cut short: what there is of it is how it begins",
    Verdict.UNPROVED: "the answer of an earlier call, of which nothing is proved",
    Verdict.CHANGED: "NOT what the provider sent",
}
_BYTES: Final = {
    Bytes.SAME: "the transcript is byte for byte what was delivered",
    Bytes.OTHER: "the transcript is NOT byte for byte what was delivered",
    Bytes.UNKNOWN: "what was delivered is not known: the server ended before that was written",
}


@click.command()
@click.option("--request", "request", metavar="ID", help="Show what is proved of this call.")
@click.option(
    "--transcript",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The body of the answer as the client kept it: is it the one that was given? Needs --request.",
)
@click.option("--head", "known", metavar="SEQ:HASH", help="A place of the chain that was noted elsewhere.")
@as_json
@data_option
def verify(
    *, request: str | None, transcript: Path | None, known: str | None, json: bool, data: Path | None
) -> None:
    """Check the chain of proofs, and what is proved of one call. Exit code 1: something is not what it was.

    A running server whose vault is open checks the signatures too.
    """
    if transcript is not None and request is None:
        raise ConfigError("--transcript needs --request: the id in the answer's x-request-id")
    kept = _read(transcript)
    if known is not None:
        try:
            chain.head_of(known)
        except ValueError:
            raise ConfigError("--head must be SEQ:HASH, as this command prints it") from None
    found = _asked(data, request, kept, known)
    if not shown(found, json=json):
        _tell(found)
    if not _good(found):
        sys.exit(_WRONG)


def _read(transcript: Path | None) -> bytes | None:
    if transcript is None:
        return None
    try:
        data = transcript.read_bytes()
    except OSError as error:
        raise ConfigError(f"{transcript}: {error.strerror}") from None
    if len(data) > MAX_TRANSCRIPT:
        raise ConfigError(f"{transcript} is longer than {MAX_TRANSCRIPT >> 20} MiB")
    return data


def _asked(data: Path | None, request: str | None, kept: bytes | None, known: str | None) -> Json:
    client = running_client(data)
    if client is None:
        return _offline(data, request, kept, known)
    found = {"chain": client.get(f"{PATH}/verify" + (f"?{urlencode({'head': known})}" if known else ""))}
    if request is not None:
        place = f"{PATH}/{quote(request, safe='')}"
        found["call"] = client.get(place)
        if kept is not None:
            found["transcript"] = client.upload(f"{place}/check", kept)
    return found


def _offline(data: Path | None, request: str | None, kept: bytes | None, known: str | None) -> Json:
    if not variable("DB_DSN") and not Path(database_path(data)).exists():
        raise ConfigError(f"there is no database {database_path(data)}")
    heads = [chain.head_of(known)] if known else []
    secret = (data or data_dir(os.environ)) / "salt"

    async def run(audit: Any) -> Json:
        log = ProofLog(audit.database)
        found: Json = {"chain": report_json(verified(log, {}, heads))}
        if request is not None:
            found["call"] = msgspec.to_builtins(told(log, request))
            if kept is not None:
                requests = RequestLog(audit.database)
                checked = compared(log, requests, request, kept, _secret(secret))
                found["transcript"] = msgspec.to_builtins(checked)
        return found

    return alone(data, run)


def _secret(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; the hashes are keyed by it") from None


def _good(found: Json) -> bool:
    """Tell whether nothing is wrong, of all that was looked at."""
    call, transcript = found.get("call"), found.get("transcript")
    return (
        bool(found["chain"]["ok"])
        and (call is None or call["verdict"] != Verdict.CHANGED)
        and (transcript is None or transcript["verdict"] != Verdict.CHANGED)
        and (transcript is None or transcript["bytes"] != Bytes.OTHER)
    )


def _tell(found: Json) -> None:
    report = found["chain"]
    if report["findings"]:
        first = report["findings"][0]
        tell(plain(f"first break at entry {first['seq']}: {first['text']}"))
        for finding in report["findings"][1:]:
            tell(plain(finding["text"]))
    locked = (
        f", {report['unchecked']} signed and not checked: the vault is locked" if report["unchecked"] else ""
    )
    tell(f"{report['entries']} entries, {report['signed']} signed{locked}")
    tell(plain(f"head {report['head']}"))
    tell("the chain is whole" if report["ok"] else "THE CHAIN IS BROKEN")
    if (call := found.get("call")) is not None:
        _tell_call(call)
    if (transcript := found.get("transcript")) is not None:
        tell(plain(_BYTES[Bytes(transcript["bytes"])]))
        _tell_calls(transcript, "in the transcript")


def _tell_call(call: Json) -> None:
    received, delivered = call["received"], call["delivered"]
    who = f"{received['model']} at {received['provider']}" if received else "no provider"
    tell(plain(f"{call['request_id']}: answered by {who}"))
    if delivered is None:
        tell("what was delivered is not known: the server ended before that was written")
        return
    if delivered["answers"] != call["request_id"]:
        tell(plain(f"it was given the answer of {delivered['answers']}"))
    if delivered["identical"]:
        tell("delivered byte for byte as the provider sent it")
    elif not delivered["whole"]:
        tell("delivered in part: the answer was cut short")
    _tell_calls(delivered, "delivered")


def _tell_calls(said: Json, where: str) -> None:
    for one in said["calls"]:
        name = f" {one['name']}" if one["name"] else ""
        tell(plain(f"tool call {one['index']}{name}, {where}: {_MEANT[Verdict(one['verdict'])]}"))
    if (text := said["text"]) is not None:
        tell(f"words, {where}: {_MEANT[Verdict(text['verdict'])]}")
