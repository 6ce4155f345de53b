"""A program that knows nothing of TokenHub: it calls the official SDKs, and says in JSON what came of it.

It reads one order a line, `{"do": name, "with": {…}}`, runs the method of that name, and prints one line. The clients
are made with the SDK's own defaults: base URL, key from the environment, retries, transport.
Times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState

type Said = dict[str, Any]


class Agent:
    """The two SDKs, as any program would set them up."""

    def __init__(self, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic) -> None:
        self.openai = openai_client
        self.anthropic = anthropic_client

    # --- openai

    def chat(self, **asked: Any) -> Said:
        raw = self.openai.chat.completions.with_raw_response.create(**asked)
        answer = raw.parse()
        return {"headers": dict(raw.headers), "type": type(answer).__name__, "answer": answer.model_dump()}

    def chat_stream(self, **asked: Any) -> Said:
        """Read a stream to its end, by the SDK's own accumulator."""
        said: Said = {"at": [], "chunks": []}
        try:
            raw = self.openai.chat.completions.with_raw_response.create(stream=True, **asked)
            said["headers"] = dict(raw.headers)
            state: Any = ChatCompletionStreamState()
            for chunk in raw.parse():
                state.handle_chunk(chunk)
                said["chunks"].append(chunk.model_dump(exclude_unset=True))
                if chunk.choices and (chunk.choices[0].delta.content or chunk.choices[0].delta.tool_calls):
                    said["at"].append(time.monotonic())
            said["ended"] = time.monotonic()
            said["answer"] = state.get_final_completion().model_dump()
        except openai.APIError as error:
            said["error"] = told(error)
        return said

    def chat_leave(self, *, after: int, **asked: Any) -> Said:
        """Read some chunks of a stream and hang up."""
        stream = self.openai.chat.completions.create(stream=True, **asked)
        for _ in range(after):
            next(stream)
        stream.close()
        return {"left": time.monotonic(), "headers": dict(stream.response.headers)}

    def chat_at_once(self, *, texts: list[str], **asked: Any) -> Said:
        """Read a stream for each text, all at the same time."""

        def read(text: str) -> str:
            stream = self.openai.chat.completions.create(
                stream=True, messages=[{"role": "user", "content": text}], **asked
            )
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)

        with ThreadPoolExecutor(len(texts)) as pool:
            return {"texts": list(pool.map(read, texts))}

    def models(self) -> Said:
        return {"ids": [model.id for model in self.openai.models.list()]}

    # --- anthropic

    def message(self, **asked: Any) -> Said:
        raw = self.anthropic.messages.with_raw_response.create(**asked)
        answer = raw.parse()
        return {"headers": dict(raw.headers), "type": type(answer).__name__, "answer": answer.model_dump()}

    def message_stream(self, **asked: Any) -> Said:
        """Read a stream to its end, by the SDK's own accumulator."""
        said: Said = {"at": [], "events": []}
        try:
            with self.anthropic.messages.stream(**asked) as stream:
                said["headers"] = dict(stream.response.headers)
                for event in stream:
                    said["events"].append(event.type)
                    if event.type in {"text", "input_json"}:
                        said["at"].append(time.monotonic())
                said["ended"] = time.monotonic()
                said["answer"] = stream.get_final_message().model_dump()
        except anthropic.APIError as error:
            said["error"] = told(error)
        return said

    def message_leave(self, *, after: int, **asked: Any) -> Said:
        """Read some events of a stream and hang up."""
        stream = self.anthropic.messages.create(stream=True, **asked)
        for _ in range(after):
            next(stream)
        stream.close()
        return {"left": time.monotonic(), "headers": dict(stream.response.headers)}


def told(error: openai.APIError | anthropic.APIError) -> Said:
    """What a program can know of an error, by the SDK's own fields."""
    said: Said = {
        "type": type(error).__name__,
        "is": [kind.__name__ for kind in type(error).__mro__],
        "module": type(error).__module__.partition(".")[0],
        "message": error.message,
        "body": error.body,
    }
    if isinstance(error, openai.APIStatusError | anthropic.APIStatusError):
        said |= {
            "status": error.status_code,
            "headers": dict(error.response.headers),
            "request_id": error.request_id,
        }
    if isinstance(error, openai.APIError):
        said |= {"code": error.code, "param": error.param, "kind": error.type}
    return said


def tell(said: Said) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def main(orders: Iterable[str]) -> None:
    by_default = Agent(openai.OpenAI(), anthropic.Anthropic())
    # The same clients, told to try once only: the one setting that some scenes need.
    once = Agent(
        by_default.openai.with_options(max_retries=0), by_default.anthropic.with_options(max_retries=0)
    )
    agents = {2: by_default, 0: once}
    tell({"ready": time.monotonic()})
    for line in orders:
        order = json.loads(line)
        began = time.monotonic()
        try:
            said = getattr(agents[order["with"].pop("retries", 2)], order["do"])(**order["with"])
        except (openai.APIError, anthropic.APIError) as error:
            said = {"error": told(error)}
        tell({"began": began, **said})


if __name__ == "__main__":
    main(sys.stdin)
