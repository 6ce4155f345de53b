"""Whether a text is one well-formed XML document, by a parser that can be fed anything.

No document type is read, so there are no entities but XML's own five: none that expand, and none that name a file.
"""

from __future__ import annotations

from typing import Final
from xml.parsers import expat

MAX_DEPTH: Final = 64
MAX_CHARS: Final = 4 << 20


class _RefusedError(Exception):
    pass


def fault(text: str) -> str:
    """Return what is wrong with a document, empty where nothing is."""
    if len(text) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    parser = expat.ParserCreate()
    depth = 0

    def begun(name: str, attributes: object) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise _RefusedError(f"more than {MAX_DEPTH} elements inside each other")

    def ended(name: str) -> None:
        nonlocal depth
        depth -= 1

    def declared(*_: object) -> None:
        raise _RefusedError("a document type is not read")

    parser.StartElementHandler, parser.EndElementHandler = begun, ended
    parser.StartDoctypeDeclHandler = declared
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except _RefusedError as refused:
        return str(refused)
    except (expat.ExpatError, LookupError, ValueError) as error:
        code = getattr(error, "code", 0)
        words = expat.ErrorString(code) if code else "an encoding that is not read"
        return f"{words}, line {parser.ErrorLineNumber}, column {parser.ErrorColumnNumber + 1}"
    return ""
