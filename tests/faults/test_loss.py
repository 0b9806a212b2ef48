"""A table's file that is gone, cut or changed stops the job that reads it; nothing is said to be done."""

from pathlib import Path

import pytest

from medpipe.errors import DataError
from medpipe.jobs import build_cohort, build_sequences, nightly, score_population
from medpipe.stream.reader import local_path
from tests import nights


@pytest.fixture(scope="module")
def before_scoring(after_first_night, spark, tmp_path_factory):
    """A second night up to its sequences."""
    found = after_first_night.copy_to(tmp_path_factory.mktemp("before-scoring"))
    work = found.workplace(spark, found.as_ofs[1])
    nightly.load(work, found.deliveries[1:2])
    for step in (build_cohort.main, build_sequences.main):
        work.run(step, role="apply")
    return found


def deleted(file):
    file.unlink()


def truncated(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file):
    """One bit, in the middle of the first column chunk's data."""
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0x10
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("has_checksum_file", [True, False], ids=["crc", "no-crc"])
@pytest.mark.parametrize("damage", [deleted, truncated, flipped])
def test_damage_to_an_active_file_stops_the_scoring(before_scoring, spark, tmp_path, damage, has_checksum_file):
    """Hadoop's local file system keeps a .crc beside each file; an object store has none."""
    found: nights.Nights = before_scoring.copy_to(tmp_path)
    work = found.workplace(spark, found.as_ofs[1])
    rows = work.lake.for_run("").read("gold.sequence", found.as_ofs[1], {"role": "apply"})
    (file,) = (Path(local_path(url)) for url in rows.inputFiles())
    if not has_checksum_file:
        (file.parent / f".{file.name}.crc").unlink()
    damage(file)
    version = work.lake.for_run("").version("gold.score")
    with pytest.raises(DataError):
        work.run(score_population.main, recipe="risk_gru")
    assert work.lake.for_run("").version("gold.score") == version
    entries = work.ledger.open(work.lake.for_run("")).entries
    told = {e.status for e in entries if (e.job, e.as_of) == ("score_population", found.as_ofs[1])}
    assert "failed" in told and "done" not in told
