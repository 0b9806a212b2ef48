"""The architecture as a test: which room may import which, and who alone may touch Spark's inside and Petastorm."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {"errors", "contracts"}
PLAIN = {"imaging", "mappings", "molecules"}
PURE = {
    "ingest",
    "standardise",
    "privacy",
    "quality",
    "cohort",
    "features",
    "recommend",
    "explain",
    "evaluate",
    "monitor",
}
EDGES = {
    "bundle",
    "catalog",
    "checkpoints",
    "command",
    "job",
    "keys",
    "ledger",
    "log",
    "recipes",
    "session",
    "settings",
    "snapshots",
    "staging",
    "statements",
    "tables",
}
MAY_IMPORT = {
    "errors": set(),
    "contracts": {"errors"},
    "child": {"errors"},
    **{room: {"errors", "child"} for room in PLAIN},
    **{room: BASE | PLAIN | {"child"} for room in PURE},
    "evaluate": BASE | PLAIN | {"child", "recommend"},
    "simulate": {"errors"},
    "models": {"errors"} | PLAIN,
    "stream": BASE,
    "train": BASE | PLAIN | {"stream", "models", "recipes"},
    "score": BASE | {"child", "stream", "models", "recipes"},
    "bundle": set(),
    "log": set(),
    "keys": {"errors"},
    "session": {"errors"},
    "snapshots": BASE | {"stream"},
    "staging": BASE | {"log", "snapshots"},
    "statements": {"contracts"},
    "tables": BASE | {"snapshots", "staging", "statements"},
    "catalog": BASE | {"tables"},
    "ledger": BASE | {"tables"},
    "checkpoints": BASE | {"models", "recipes", "stream", "tables"},
    "recipes": BASE | PLAIN | {"models", "stream"},
    "settings": {"errors", "score", "train"} | PURE,
    "command": {"errors", "log", "settings"},
    "job": BASE | EDGES | {"ingest"},
    "show": BASE | {"catalog", "command", "job"},
    "cli": {"errors", "show"},
    "jobs": BASE | PLAIN | PURE | EDGES | {"show", "simulate", "stream", "models", "train", "score", "jobs"},
}
SPARK_INSIDE = {"sparkContext", "_jvm", "_jsc", "_jdf", "_sc"}
FILES = sorted(file for folder in ("medpipe", "jobs") for file in (ROOT / folder).rglob("*.py"))


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def room_of(file: Path) -> str:
    folder, *inner = file.relative_to(ROOT).with_suffix("").parts
    return "jobs" if folder == "jobs" else inner[0]


def imported(file: Path) -> set[str]:
    """Dotted names the file imports anywhere in it; `from a import b` counts as a.b."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {"." * node.level + f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(file: Path) -> set[str]:
    own = {name.split(".")[1] for name in imported(file) if name.startswith("medpipe.")}
    return own - {"__version__", room_of(file)}


@pytest.mark.parametrize("file", [file for file in FILES if room_of(file) != "__init__"], ids=name_of)
def test_a_room_imports_only_the_rooms_below_it(file):
    assert rooms_imported(file) <= MAY_IMPORT[room_of(file)]
    assert not [name for name in imported(file) if name.startswith(".")], "imports name medpipe in full"


@pytest.mark.parametrize("package", ["pyspark", "delta", "petastorm"])
def test_models_are_torch_only(package):
    assert [
        name_of(f) for f in FILES if room_of(f) == "models" and any(n.split(".")[0] == package for n in imported(f))
    ] == []


def test_petastorm_is_named_in_one_file():
    naming = {name_of(file) for file in FILES if any(name.split(".")[0] == "petastorm" for name in imported(file))}
    assert naming <= {"medpipe/stream/reader.py"}


def test_only_the_edges_touch_the_inside_of_spark():
    touching = {
        room_of(file)
        for file in FILES
        if any(isinstance(n, ast.Attribute) and n.attr in SPARK_INSIDE for n in ast.walk(ast.parse(file.read_text())))
    }
    assert touching <= {"session", "job", "tables", "snapshots"}


def test_the_walk_sees_imports_in_every_form(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("import medpipe.tables\ndef f():\n    from medpipe import job\n    from . import x\n")
    assert imported(file) == {"medpipe.tables", "medpipe.job", ".None.x"}
