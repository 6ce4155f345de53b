"""A flow's call and answer as a conversation, and changes to a call by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, override

import orjson
from mitmproxy import http
from mitmproxy.contentviews import Contentview, Metadata

from tokenhub_core.errors import TokenHubError
from tokenhub_core.recognise import CHAT, Recognised
from tokenhub_core.transcript import answered, asked, plain
from tokenhub_core.types import Dialect, Origin

_PRIORITY: Final = 5
"""Above those of mitmproxy's own views, of JSON among them."""
_MODEL: Final = re.compile(r"(/models/)[^/:?]+")


class ConversationView(Contentview):
    """Shows who said what, which tools were called, what was thought, what it used and cost, and who decided."""

    name = "Conversation"
    syntax_highlight = "none"

    def __init__(self, target: Callable[[http.HTTPFlow], tuple[Recognised, Origin] | None]) -> None:
        self._target = target

    @override
    def prettify(self, data: bytes, metadata: Metadata) -> str:
        """Return the conversation; raises ValueError where it is none."""
        flow, dialect = metadata.flow, self._dialect(metadata)
        if dialect is None or not isinstance(flow, http.HTTPFlow):
            raise ValueError("no call that TokenHub knows")
        if isinstance(metadata.http_message, http.Response):
            kind = metadata.http_message.headers.get("content-type", "")
            return "\n".join([answered(dialect, kind, data), *decision(flow)])
        try:
            return asked(dialect, data, flow.request.path)
        except TokenHubError as error:
            raise ValueError(error.fault.message) from None

    @override
    def render_priority(self, data: bytes, metadata: Metadata) -> float:
        """Come first for calls and for what answers them; an error is shown as it is."""
        message = metadata.http_message
        if not data or (isinstance(message, http.Response) and message.status_code != 200):
            return -1
        return -1 if self._dialect(metadata) is None else _PRIORITY

    def _dialect(self, metadata: Metadata) -> Dialect | None:
        flow = metadata.flow
        if not isinstance(flow, http.HTTPFlow) or metadata.http_message is None:
            return None
        found = self._target(flow)
        return found[0].dialect if found is not None and found[0].operation == CHAT else None


def decision(flow: http.HTTPFlow) -> Iterable[str]:
    """Yield what was decided for a flow and what it cost, as far as it has been told."""
    facts = flow.metadata.get("tokenhub")
    if not facts:
        return
    if facts["model"]:
        yield plain(f"served by {facts['model']} @ {facts['provider']}: {facts['reason']}")
    tries = facts["attempts"]
    more = [f"{tries} attempt{'' if tries == 1 else 's'}"] if tries else []
    if "cost_usd" in facts:
        more += [f"{facts['input_tokens']} + {facts['output_tokens']} tokens", f"${facts['cost_usd']:.6f}"]
    more += [facts["outcome"]] if facts.get("outcome", "ok") != "ok" else []
    more += [facts["fault"]] if facts["fault"] else []
    yield plain(", ".join([*more, facts["request_id"]]))


def changed(dialect: Dialect, path: str, body: bytes, changes: Iterable[str]) -> tuple[str, bytes]:
    """Return path and body of a call with `name=value` in place of what stood there.

    A value is JSON where it can be read as such, else text; an empty one takes the field out. Gemini's clients name
    the model in the path. Raises ValueError with what is wrong.
    """
    wanted = dict[str, str]()
    for change in changes:
        name, mark, value = change.partition("=")
        if not mark or not name:
            raise ValueError(f"{change}: expected name=value, like model=gpt-4o-mini")
        wanted[name] = value
    if not wanted:
        return path, body
    if dialect is Dialect.GEMINI and "model" in wanted:
        model = wanted.pop("model").replace("\\", "")
        path = _MODEL.sub(lambda found: found[1] + model, path, count=1)
    data = orjson.loads(body or b"{}")
    if not isinstance(data, dict):
        raise ValueError("the call's body is no JSON object")
    for name, value in wanted.items():
        if value:
            data[name] = value if name == "model" else _value(value)
        else:
            data.pop(name, None)
    return path, orjson.dumps(data)


def _value(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
