"""Who is told of events over HTTP."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tokenhub_core.http import shapes
from tokenhub_core.http.openapi import Area, Operation, items, many, shown
from tokenhub_core.http.operations.fleet import Done
from tokenhub_core.http.webhooks import PATH, WebhookBody, WebhookPatch
from tokenhub_core.types import Json
from tokenhub_core.webhooks.values import Delivery, Webhook

WebhookShown = shown("WebhookShown", Webhook, kinds=list[str])
WebhookMade = shown("WebhookMade", Webhook, kinds=list[str], secret=str)
DeliveryShown = shown("DeliveryShown", Delivery, body=Json)


class WebhookSecret(msgspec.Struct):
    """What signs everything from now on; it is not shown again."""

    secret: Annotated[str, Meta(description="As Standard Webhooks has it: whsec_ and base64.")]


class Tested(msgspec.Struct):
    """What came of one event that was sent at once."""

    told: bool
    status: int
    cause: str


class _Deliveries(msgspec.Struct):
    """One page, newest first; `next` goes into `before` for the page after this one, null at the end."""

    next: int | None


Deliveries = shown("Deliveries", _Deliveries, items=many(DeliveryShown))


class Retried(msgspec.Struct):
    """How many events are tried anew."""

    retried: int


class DeliveryQuery(msgspec.Struct):
    """Which of them."""

    state: Literal["waiting", "dead"] = "waiting"
    before: shapes.Seq = 0


AREA: Final = Area(
    "webhooks",
    "Who is told of events over HTTP.",
    (
        Operation(
            method="GET", path=PATH, summary="List who is told of what", answers={200: items(WebhookShown)}
        ),
        Operation(
            method="POST",
            path=PATH,
            summary="Tell somebody of events; the secret is shown this once",
            body=WebhookBody,
            answers={201: WebhookMade},
            refuses=(503,),
        ),
        Operation(
            method="PATCH",
            path=f"{PATH}/{{id}}",
            summary="Change who is told of what",
            body=WebhookPatch,
            answers={200: WebhookShown},
            refuses=(404,),
        ),
        Operation(
            method="DELETE",
            path=f"{PATH}/{{id}}",
            summary="Tell somebody no more; what waits is not told",
            answers={200: Done},
            refuses=(404,),
        ),
        Operation(
            method="POST",
            path=f"{PATH}/{{id}}/secret",
            summary="Sign with another secret from now on",
            answers={200: WebhookSecret},
            refuses=(404, 503),
        ),
        Operation(
            method="POST",
            path=f"{PATH}/{{id}}/test",
            summary="Send an event of the kind `test` now",
            answers={200: Tested},
            refuses=(404, 503),
        ),
        Operation(
            method="GET",
            path=f"{PATH}/{{id}}/deliveries",
            summary="List what waits, or was given up",
            query=DeliveryQuery,
            answers={200: Deliveries},
            refuses=(404,),
        ),
        Operation(
            method="POST",
            path=f"{PATH}/{{id}}/retry",
            summary="Try anew what was given up",
            answers={200: Retried},
            refuses=(404,),
        ),
    ),
)
