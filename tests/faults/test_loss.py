"""A table's file that is gone, cut or changed stops the job that reads it; nothing is said to be done."""

from pathlib import Path

import pytest

from medpipe.errors import DataError
from medpipe.jobs import score_population
from medpipe.stream.reader import local_path


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
def test_damage_to_an_active_file_stops_the_scoring(after_second_night, spark, tmp_path, damage, has_checksum_file):
    """Hadoop's local file system keeps a .crc beside each file; an object store has none."""
    found = after_second_night.copy_to(tmp_path)
    work = found.workplace(spark, found.as_ofs[1])
    # Forgotten, so that the scores are to be made again.
    work.ledger.entries.clear()
    rows = work.lake.for_run("").read("gold.sequence", found.as_ofs[1], {"role": "apply"})
    (file,) = (Path(local_path(url)) for url in rows.inputFiles())
    if not has_checksum_file:
        (file.parent / f".{file.name}.crc").unlink()
    damage(file)
    version = work.lake.for_run("").version("gold.score")
    with pytest.raises(DataError):
        work.run(score_population.main, recipe="risk_gru")
    assert work.lake.for_run("").version("gold.score") == version
    assert work.ledger.open(work.lake.for_run("")).entries[-1].status == "failed"
