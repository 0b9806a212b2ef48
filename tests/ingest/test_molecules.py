import gzip
from datetime import UTC, datetime

import pytest

from medpipe.errors import ContractError, DataError, UsageError, raised_by_worker
from medpipe.ingest.manifest import read_delivery
from medpipe.ingest.molecules import MAX_LINE, molecule_files, records
from medpipe.molecules.mapping import parse

END = datetime(2026, 1, 31, tzinfo=UTC)


def delivered(folder, **files):
    """The delivery of files named like a_csv_gz for a.csv.gz; content is text or bytes."""
    folder.mkdir()
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("_", ".")).write_bytes(gzip.compress(data) if name.endswith("_gz") else data)
    return read_delivery(folder, END, "UTC", False, "molecules")


def received(spark, delivery, mapping=""):
    rows = records(spark, delivery, molecule_files(delivery, parse(mapping))).collect()
    return sorted(
        (r.source_table, r.record_hash, r.occurrence, tuple(sorted(r.fields.items())), r.corrupt) for r in rows
    )


def test_rows_are_the_same_from_csv_tsv_gzip_other_order_and_with_a_mark(spark, tmp_path):
    plain = received(spark, delivered(tmp_path / "a", a_csv="SMILES,id\nCCO,1\n,2\nCCO,1\n"))
    assert sorted(row[2:4] for row in plain) == [
        (1, (("id", "1"), ("smiles", "CCO"))),
        (1, (("id", "2"),)),
        (2, (("id", "1"), ("smiles", "CCO"))),
    ]
    others = [
        delivered(tmp_path / "b", a_tsv_gz="smiles\tid\r\nCCO\t1\r\n\t2\r\nCCO\t1\r\n"),
        delivered(tmp_path / "c", a_csv=b"\xef\xbb\xbf" + b'id,Smiles\n"1",CCO\n2,\n1,"CCO"'),
    ]
    for other in others:
        assert received(spark, other) == plain


def test_every_line_is_a_row_and_one_that_cannot_be_split_stays_as_it_came(spark, tmp_path):
    text = 'smiles,id\nC,1\n\nCC\n"CCC,1\nCC,3,4\n"C,C",5\n'
    rows = received(spark, delivered(tmp_path / "a", a_csv=text, b_csv="mol\nC\n\nCC"))
    of_a = [row for row in rows if row[0] == "a"]
    assert sorted(row[4] for row in of_a if row[4] is not None) == ["", '"CCC,1', "CC", "CC,3,4"]
    assert len(of_a) == 6 and {dict(row[3]).get("smiles") for row in of_a} >= {"C", "C,C"}
    # In a file of one column an empty line is a row that says nothing.
    assert sorted(row[3:] for row in rows if row[0] == "b") == [
        ((), None),
        ((("mol", "C"),), None),
        ((("mol", "CC"),), None),
    ]


def test_files_without_molecules_are_not_read(tmp_path):
    delivery = delivered(tmp_path / "a", a_csv="smiles\nC\n", b_csv="name,n\nx,1\n", README_md="smiles\n")
    assert [file.source_table for file in molecule_files(delivery, ())] == ["a"]


def test_a_mapping_names_the_column_and_what_was_measured(tmp_path):
    delivery = delivered(tmp_path / "a", a_csv="structure,IC50,smiles\nC,1,x\n")
    (file,) = molecule_files(delivery, parse('["a.csv"]\nsmiles = "Structure"\nmeasured.IC50 = { assay = "A" }'))
    assert file.mapping.smiles == "structure" and file.mapping.measured[0].column == "ic50"


@pytest.mark.parametrize(
    ("files", "mapping", "error", "told"),
    [
        ({"a_csv": "name\nC\n"}, "", DataError, "NOTHING_TO_READ: no .csv"),
        ({"a_csv": "smiles,x,X\nC,1,2\n"}, "", ContractError, "DUPLICATE_COLUMN: a.csv: x stands more than once"),
        ({"a_csv": "smiles\nC\n", "a_tsv": "smiles\nC\n"}, "", ContractError, "DUPLICATE_TABLE: a is delivered in two"),
        ({"a_csv": "smiles\nC\n"}, '["a.csv"]\nid = "n"', ContractError, "MISSING_COLUMN: a.csv: no column n in"),
        ({"a_csv": "CCO\nC\n"}, '["a.csv"]', ContractError, "MISSING_COLUMN: a.csv: no column smiles or canonical"),
        ({"a_csv": "smiles\nC\n"}, '["b.csv"]', UsageError, "BAD_MAPPING: no file of .* is named like b.csv"),
        ({"a_csv": "smiles\nC\n", "b_txt": "x"}, '["b*"]', UsageError, "BAD_MAPPING: b.txt is mapped, but its name"),
        ({"a_csv": b"sm\xefles\nC\n"}, "", DataError, "BAD_HEADER: a.csv: the first line is not UTF-8"),
    ],
)
def test_a_delivery_that_cannot_be_read_says_why(tmp_path, files, mapping, error, told):
    with pytest.raises(error, match=told):
        molecule_files(delivered(tmp_path / "a", **files), parse(mapping))


def cut(folder):
    delivery = delivered(folder, a_csv_gz="smiles\n" + "".join(f"{'C' * n}\n" for n in range(1, 2000)))
    path = folder / "a.csv.gz"
    path.write_bytes(path.read_bytes()[:-200])
    return delivery


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (cut, "TRUNCATED_FILE: a.csv.gz: gzip ends after line"),
        (lambda folder: delivered(folder, a_csv=b"smiles\nC\n" + b"C\n" * 9000 + b"C\xe9\n"), "BAD_ENCODING: a.csv"),
        (lambda folder: delivered(folder, a_csv="smiles\nC\n" + "C" * (MAX_LINE + 1)), "LINE_TOO_LONG: a.csv: line 3"),
    ],
    ids=["truncated", "not UTF-8", "too long"],
)
def test_a_file_that_breaks_off_fails_whole(spark, tmp_path, make, told):
    with pytest.raises(Exception) as failure:
        received(spark, make(tmp_path / "a"))
    assert str(raised_by_worker(failure.value)).startswith(told)
