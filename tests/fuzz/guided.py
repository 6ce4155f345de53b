"""One parser, with inputs that atheris finds by coverage: `python -m tests.fuzz.guided TARGET RUNS SECONDS FOLDER`.

atheris is no dependency of ours; `pip install atheris` puts it beside. Our modules are instrumented as they are
imported, so nothing that imports them may stand at the head of this file.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any


def main(name: str, runs: str, seconds: str, folder: str) -> None:
    """Fuzz one parser until a finding, so many runs or so many seconds; does not return."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["tokenhub_core"]):
        parsers = importlib.import_module("tests.fuzz.parsers")
    target = next(one for one in parsers.targets() if one.name == name)
    with tempfile.TemporaryDirectory() as seeds:
        for number, seed in enumerate(target.seeds):
            Path(seeds, str(number)).write_bytes(seed)
        options = (f"-runs={runs}", f"-max_total_time={seconds}", f"-artifact_prefix={folder}/{name}-")
        limits = ("-timeout=5", "-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=0")
        atheris.Setup([name, *options, *limits, seeds], target.run)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
