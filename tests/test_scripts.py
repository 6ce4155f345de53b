"""The house's scripts, run with a stand-in for Python: what they find, what they install, and when they do not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.patience import PROGRAM_PATIENCE

ROOT = Path(__file__).parents[1]
SCRIPTS = ("run", "test", "check", "gen")
SHARED = f"<-n><{min(8, 2 * (os.cpu_count() or 2))}><-p><tests.workers>"
"""What shares the tests out: twice as many workers as cores, eight at most."""

# Answers what the scripts ask of a Python: what it is, `-m venv`, `import pip`, and `-m pip install`, which is
# logged. It is itself the interpreter of the venv that it makes.
_STAND_IN = """#!/bin/sh
case $* in
"-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo venv >>"$LOG" ;;
"-m pip install "*)
    echo "begin $$" >>"$LOG"; sleep "${PAUSE:-0}"; echo "end $$ $*" >>"$LOG"
    [ -z "${PIP_FAILS-}" ] || exit 1
    case $* in *" -e "*)
        printf '#!/bin/sh\\necho "tokenhub $*"\\n' >"${0%/*}/tokenhub"; chmod +x "${0%/*}/tokenhub" ;;
    esac ;;
"-c import pip") ;;
"-c "*) echo "$0" ;;
"-m pytest "* | "-m tests.fuzz "* | "-m tests.faults "*) shift; printf '<%s>' "$@" ;;
*) exit 9 ;;
esac
"""


class House:
    """A checkout with our scripts, two tiny locks, and a PATH on which we decide what is found."""

    def __init__(self, place: Path) -> None:
        self.root, self.bin, self.log = place / "a house", place / "bin", place / "log"
        self.environ = {"PATH": f"{self.bin}:/usr/bin:/bin", "LOG": str(self.log), "HOME": str(place)}
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        self.bin.mkdir()
        for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
            (self.root / name).write_text(f"{name}==1\n")

    def python(self, name: str = "python3.13", text: str = _STAND_IN) -> Path:
        """Put a stand-in on PATH, or at an absolute place."""
        path = self.bin / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def start(self, script: str, *args: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "scripts" / script, *args],
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *args: str, **environ: str) -> tuple[int, str, str]:
        with self.start(script, *args, **environ) as process:
            try:
                out, err = process.communicate(timeout=PROGRAM_PATIENCE)
            finally:
                process.kill()
        return process.returncode, out, err

    def sh(self, text: str, environ: Mapping[str, str]) -> tuple[int, str, str]:
        """Run commands of the sourced file."""
        result = subprocess.run(
            ["sh", "-euc", f'here=$1; . "$here/_venv.sh"; {text}', "sh", self.root / "scripts"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=PROGRAM_PATIENCE,
            check=False,
        )
        return result.returncode, result.stdout, result.stderr

    @property
    def installs(self) -> list[str]:
        """The lock files that were installed, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [
            line.rpartition("/")[2] for line in lines if line.startswith("end") and "--require-hashes" in line
        ]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize("name", [*SCRIPTS, "_venv.sh"])
def test_a_script_is_plain_sh_and_can_be_executed(name: str) -> None:
    """Every script parses in the strictest shell at hand; those that are started have the bit."""
    shell = shutil.which("dash") or "sh"
    subprocess.run([shell, "-n", ROOT / "scripts" / name], check=True)

    assert os.access(ROOT / "scripts" / name, os.X_OK) == (name in SCRIPTS)


def test_ci_runs_what_we_run() -> None:
    """CI runs the same scripts; before them it only installs what some tests drive, and after them tries few again."""
    path = ROOT / ".ci" / "run"
    subprocess.run(["bash", "-n", path], check=True)
    commands = [
        line for line in path.read_text().splitlines() if line and not line.startswith(("#", "set", "cd"))
    ]

    own = [line for line in commands if "scripts/" in line]
    again = "scripts/test unit -n 0 --last-failed --last-failed-no-failures none"
    assert own == ["scripts/check", "scripts/test unit && exit 0", again]
    assert commands[-1] == again
    assert os.access(path, os.X_OK)


def test_run_installs_and_starts(house: House) -> None:
    """From nothing: a venv, the runtime lock with hashes, the project, and then the server with our options."""
    house.python()

    code, out, err = house.run("run", "--port", "1 2")

    assert (code, out) == (0, "tokenhub serve --simulate-if-empty --port 1 2\n")
    assert house.installs == ["requirements.lock"]
    assert "installing 1 packages of requirements.lock" in err


def test_the_second_start_installs_nothing_and_says_nothing(house: House) -> None:
    """What is in step is left alone, whatever became of the Python that made it."""
    house.python()
    house.run("run")
    (house.bin / "python3.13").unlink()

    assert house.run("run") == (0, "tokenhub serve --simulate-if-empty\n", "")
    assert house.installs == ["requirements.lock"]


@pytest.mark.load
def test_an_installed_start_costs_next_to_nothing(house: House) -> None:
    """Less than 50 ms stand between the script and the program."""
    house.python()
    house.run("run")

    def seconds() -> float:
        began = time.perf_counter()
        house.run("run")
        return time.perf_counter() - began

    assert min(seconds() for _ in range(5)) < 0.05


def test_run_is_content_with_what_the_tests_need(house: House) -> None:
    """The development lock holds everything: no installation goes back and forth."""
    house.python()
    house.run("test")
    house.run("run")
    house.run("test")

    assert house.installs == ["requirements-dev.lock"]


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_is_installed(house: House, name: str) -> None:
    """Whatever decides what is installed is part of the stamp."""
    house.python()
    house.run("run")
    (house.root / name).write_text("changed==2\n")
    house.run("run")

    assert house.installs == ["requirements.lock"] * 2
    assert house.log.read_text().count("venv\n") == 1


def test_a_failed_installation_is_tried_again(house: House) -> None:
    """pip's exit code comes through, nothing counts as installed, and no lock stays."""
    house.python()
    code, out, err = house.run("run", PIP_FAILS="1")

    assert (code, out) == (1, "")
    assert "did not succeed" in err
    assert not (house.root / ".venv" / ".lock").is_symlink()
    assert house.run("run")[0] == 0


@pytest.mark.parametrize("damage", ["python gone", "moved"])
def test_a_venv_that_cannot_be_mended_is_made_again(house: House, damage: str) -> None:
    """A Python that was removed, and a checkout that was moved, both mean a new venv."""
    house.python()
    house.run("run")
    if damage == "python gone":
        (house.root / ".venv" / "bin" / "python").unlink()
    else:
        house.root = house.root.rename(house.root.with_name("elsewhere"))

    assert house.run("run")[0] == 0
    assert house.log.read_text().count("venv\n") == 2


def test_two_that_start_at_once_install_once(house: House) -> None:
    """The second waits, finds the work done, and both start."""
    house.python()
    with house.start("run", PAUSE="0.3") as one, house.start("run", PAUSE="0.3") as two:
        outs = [one.communicate(timeout=PROGRAM_PATIENCE)[0], two.communicate(timeout=PROGRAM_PATIENCE)[0]]

    assert [one.returncode, two.returncode] == [0, 0]
    assert outs == ["tokenhub serve --simulate-if-empty\n"] * 2
    assert house.installs == ["requirements.lock"]


def test_the_lock_of_a_killed_installation_is_taken_over(house: House) -> None:
    """A process that is gone holds nothing."""
    house.python()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (house.root / ".venv").mkdir()
    (house.root / ".venv" / ".lock").symlink_to(str(dead.pid))

    assert house.run("run")[0] == 0
    assert not (house.root / ".venv" / ".lock").is_symlink()


def test_a_shim_that_fails_is_passed_over(house: House) -> None:
    """pyenv puts shims on PATH for versions that are not chosen; only a Python that answers counts."""
    for name in ("python3.13", "python3.12", "python3"):
        house.python(name, "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n")
    real = house.python("pyenv/versions/3.12.9/bin/python")

    code, out, _ = house.sh(
        'find_python; echo "$python"', house.environ | {"PYENV_ROOT": str(house.bin / "pyenv")}
    )

    assert (code, out) == (0, f"{real}\n")


def test_pyenv_itself_says_where_its_versions_are(house: House) -> None:
    """With an empty HOME and no PYENV_ROOT, the command on PATH is asked."""
    for name in ("python3.13", "python3.12", "python3"):
        house.python(name, "#!/bin/sh\nexit 127\n")
    real = house.python("hidden/versions/3.13.1/bin/python")
    house.python("pyenv", f"#!/bin/sh\n[ $1 = root ] && echo '{house.bin}/hidden'\n")

    code, out, _ = house.sh('find_python; echo "$python"', house.environ | {"HOME": ""})

    assert (code, out) == (0, f"{real}\n")


def test_an_old_python_first_on_path_does_not_hide_a_new_one(house: House) -> None:
    """`python3` may be 3.11; the one that is new enough is looked for by name."""
    house.python("python3", "#!/bin/sh\nexit 3\n")
    real = house.python("python3.12")
    house.python("python3.13", "#!/bin/sh\nexit 127\n")

    assert house.sh('find_python; echo "$python"', house.environ)[1] == f"{real}\n"


def test_a_named_python_is_the_one_or_an_error(house: House) -> None:
    """TOKENHUB_PYTHON is never replaced in silence."""
    house.python()
    named = house.python("mine/python")

    good = house.sh('find_python; echo "$python"', house.environ | {"TOKENHUB_PYTHON": str(named)})
    bad = house.sh("find_python", house.environ | {"TOKENHUB_PYTHON": "/nowhere/python"})

    assert good[1] == f"{named}\n"
    assert bad[0] == 2
    assert "TOKENHUB_PYTHON is /nowhere/python" in bad[2]


def test_without_any_python_it_says_what_is_missing(house: House) -> None:
    """One paragraph, exit code 2; a Python without its venv module is told apart."""
    tools = {name: shutil.which(name) for name in ("id", "sh")}
    for name, found in tools.items():
        assert found is not None
        (house.bin / name).symlink_to(found)
    alone = house.environ | {"PATH": str(house.bin)}
    # The last resorts are absolute places that this machine may have.
    text = (
        (house.root / "scripts" / "_venv.sh").read_text().replace("_try_all /usr/local", "false /usr/local")
    )
    (house.root / "scripts" / "_venv.sh").write_text(text)

    nothing = house.sh("find_python", alone)
    house.python("python3", "#!/bin/sh\nexit 4\n")
    bare = house.sh("find_python", alone)

    assert (nothing[0], nothing[2].count("\n")) == (2, 1)
    assert "needs Python 3.12 or newer, and none was found" in nothing[2]
    assert (bare[0], bare[2].count("\n")) == (2, 1)
    assert "comes without its venv module" in bare[2]


@pytest.mark.parametrize(
    ("args", "select", "rest"),
    [
        ((), f"{SHARED}<-m><not long and not load and not agents>", ""),
        (("quick", "-x"), f"{SHARED}<-m><not long and not load and not agents>", "<-x>"),
        (("tests/x.py", "-x"), f"{SHARED}<-m><not load and not agents>", "<tests/x.py><-x>"),
        (("unit", "-n", "0"), f"{SHARED}<-m><not load and not agents>", "<-n><0>"),
        (("search",), f"{SHARED}<-m><hypothesis><--hypothesis-profile><search>", ""),
        (("load",), "<-m><load>", ""),
        (("crash", "-x"), "<-m><load><-k><crash>", "<-x>"),
        (("agents",), "<-m><agents>", ""),
        (
            ("all",),
            f"{SHARED}<-m><not load and not agents><--hypothesis-profile><search><pytest><-m><load or agents>",
            "",
        ),
    ],
)
def test_a_lane_chooses_what_is_run(house: House, args: tuple[str, ...], select: str, rest: str) -> None:
    """Without anything the quick one, without a lane that of CI; what follows goes to pytest, with the last word."""
    house.python()
    _, out, err = house.run("test", *args)

    assert out == f"<pytest>{select}{rest}"
    assert "quick unit search load soak crash agents all faults fuzz" in err


@pytest.mark.parametrize(
    ("lane", "codes", "code"),
    [
        ("unit", "1", 1),
        ("unit", "5", 5),
        ("all", "0 0", 0),
        ("all", "1 0", 1),
        ("all", "0 2", 2),
        ("all", "5 0", 0),
    ],
)
def test_a_lane_fails_where_a_run_of_it_does(house: House, lane: str, codes: str, code: int) -> None:
    """All of them run to the end; that a selection holds no test of one of several is no failure."""
    text = _STAND_IN.replace("printf '<%s>' \"$@\"", 'echo "$1"; set -- $(cat "$LOG.codes"); code=$1; shift; '
                             'echo "$@" >"$LOG.codes"; exit "$code"')  # fmt: skip
    house.python(text=text)
    house.log.with_suffix(".codes").write_text(codes)

    ended, out, _ = house.run("test", lane)

    assert (ended, out.count("pytest")) == (code, len(codes.split()))


def test_the_lab_of_faults_is_a_program_of_its_own(house: House) -> None:
    """What follows goes to it, and pytest has no part in it."""
    house.python()
    _, out, _ = house.run("test", "faults", "--only", "F07")
    assert out == "<tests.faults><--only><F07>"


def test_the_fuzz_lane_has_a_program_of_its_own(house: House) -> None:
    """It is not pytest that makes a million inputs; its options are passed on."""
    house.python()

    _, out, _ = house.run("test", "fuzz", "--runs", "9")

    assert out == "<tests.fuzz><--runs><9>"
