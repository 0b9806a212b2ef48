import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medpipe.errors import DataError
from medpipe.molecules.smiles import END, learn
from medpipe.stream.shards import Shard
from medpipe.train.molecules import padded, read_molecules


def shards(folder, *parts):
    """Files of gold.molecule, one row group each."""
    found = []
    for i, rows in enumerate(parts):
        ids, smiles, splits = zip(*rows, strict=True)
        path = folder / f"{i}.parquet"
        pq.write_table(pa.table({"molecule_id": ids, "smiles": smiles, "split": splits}), path)
        found.append(Shard(i, str(path), (0,), len(rows)))
    return found


ROWS = [(f"m{i}", "C" * (i + 1), "train" if i % 3 else "test") for i in range(12)]


def test_molecules_to_learn_from_are_those_of_split_train_in_an_order_no_file_decides(tmp_path):
    (one, two) = (tmp_path / "one", tmp_path / "two")
    one.mkdir(), two.mkdir()
    found = read_molecules(shards(one, ROWS), 100)
    assert sorted(found, key=len) == [smiles for _, smiles, split in ROWS if split == "train"]
    assert read_molecules(shards(two, ROWS[7:], ROWS[:7]), 100) == found
    assert read_molecules(shards(two, ROWS[7:], ROWS[:7]), 3) == found[:3]


def test_without_a_molecule_there_is_nothing_to_learn_from(tmp_path):
    with pytest.raises(DataError, match="NO_EXAMPLES: gold.molecule has no molecule of split train"):
        read_molecules(shards(tmp_path, [("m0", "C", "test")]), 10)


def test_rows_are_as_wide_as_the_longest_molecule():
    smiles = ["CO", "C", "CON"]
    rows = padded(learn(smiles, 0), smiles)
    assert rows.shape == (3, 4)
    assert [(row == END).nonzero().item() for row in rows] == [2, 1, 3]
    assert rows[1, 2:].tolist() == [0, 0]
