import gzip
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from medpipe.errors import ContractError, DataError, UsageError
from medpipe.ingest import records
from medpipe.ingest.manifest import DeliveredFile, damaged, read_delivery
from medpipe.mappings import mapping
from tests.deliveries import PERSON, deliver

END = datetime(2026, 1, 31, tzinfo=UTC)
OMOP = mapping.load("omop")
ROWS = ["1,8532,1950,3,14,MRN-1", "2,8507,1960,,,MRN-2"]


def delivered(folder):
    return read_delivery(folder, END, "UTC", False)


def received(spark, folder):
    """What bronze says of a delivery, without where it came from."""
    rows = records.records(spark, delivered(folder), OMOP).collect()
    return sorted(
        (r.source_table, r.record_hash, r.occurrence, tuple(sorted(r.fields.items())), r.corrupt) for r in rows
    )


def folder_of(path, name, content):
    path.mkdir()
    (path / name).write_bytes(content)
    return path


@pytest.fixture
def plain(spark, tmp_path):
    return received(spark, deliver(tmp_path / "plain", "2026-01-30T22:00:00", person=ROWS))


def test_rows_are_the_same_from_csv_gzip_parquet_other_order_and_either_case(spark, tmp_path, plain):
    text = "\n".join([PERSON, *ROWS]) + "\n"
    table = pa.csv.read_csv(
        pa.BufferReader(text.encode()), convert_options=pa.csv.ConvertOptions(strings_can_be_null=True)
    )
    pq.write_table(table, tmp_path / "PERSON.parquet")
    columns = PERSON.upper().split(",")[::-1]
    turned = "\r\n".join([",".join(columns), *[",".join(row.split(",")[::-1]) for row in ROWS]]) + "\r\n"
    folders = [
        folder_of(tmp_path / "gzip", "PERSON.csv.gz", gzip.compress(text.encode())),
        folder_of(tmp_path / "parquet", "person.parquet", (tmp_path / "PERSON.parquet").read_bytes()),
        folder_of(tmp_path / "turned", "Person.csv", b"\xef\xbb\xbf" + turned.encode()),
    ]
    assert len(plain) == 2
    for folder in folders:
        assert received(spark, folder) == plain, folder.name


def test_parts_of_a_table_may_lie_in_its_folder_with_different_columns(spark, tmp_path):
    (tmp_path / "d" / "person").mkdir(parents=True)
    (tmp_path / "d" / "person" / "part-0.csv").write_text(f"{PERSON}\n{ROWS[0]}\n")
    (tmp_path / "d" / "person" / "part-1.csv").write_text("year_of_birth,person_id,gender_concept_id\n1960,2,8507\n")
    found = [(r.file, r.fields["person_id"]) for r in records.records(spark, delivered(tmp_path / "d"), OMOP).collect()]
    assert sorted(found) == [("person/part-0.csv", "1"), ("person/part-1.csv", "2")]


def test_a_folder_of_deletions_holds_the_ids_of_its_tables_and_none_of_concepts(spark, tmp_path):
    folder = deliver(tmp_path / "d", "2026-01-30T22:00:00", person=ROWS)
    (folder / "Deleted" / "person").mkdir(parents=True)
    (folder / "Deleted" / "person" / "part-0.csv").write_text("PERSON_ID\n1\n")
    (folder / "Deleted" / "concept.csv").write_text("concept_id\n1\n")
    found = [(r[0], dict(r[3])) for r in received(spark, folder) if r[0] != "person"]
    assert found == [("deleted/person", {"person_id": "1"})]
    assert [records.is_read(file, OMOP) for file in delivered(folder).files] == [False, True, True]


def test_a_row_that_does_not_fit_the_header_is_kept_whole(spark, tmp_path):
    folder = deliver(tmp_path / "d", "2026-01-30T22:00:00", person=[ROWS[0], "2,8507,1960", "3,8507,1960,1,1,M,x"])
    found = received(spark, folder)
    assert [r[4] for r in found if r[4]] and {r[4] for r in found} == {None, "2,8507,1960", "3,8507,1960,1,1,M,x"}


def test_copies_of_a_row_are_numbered_over_all_files_of_the_table(spark, tmp_path):
    folder = deliver(tmp_path / "d", "2026-01-30T22:00:00", person=[ROWS[0], ROWS[0]])
    (folder / "person").mkdir()
    (folder / "person" / "more.csv").write_text(f"{PERSON}\n{ROWS[0]}\n")
    assert sorted(r[2] for r in received(spark, folder)) == [1, 2, 3]


def test_quoted_commas_and_quotes_are_read(spark, tmp_path):
    folder = deliver(tmp_path / "d", "2026-01-30T22:00:00", person=['1,8532,1950,3,14,"a ""b"", c"'])
    assert dict(received(spark, folder)[0][3])["person_source_value"] == 'a "b", c'


def test_a_quote_that_is_not_closed_and_one_around_a_line_break_spoil_their_own_lines_only(spark, tmp_path):
    lines = [ROWS[0], '2,"8507,1960,,,MRN-2', "3,8507,1960,,,MRN-3", '4,8507,1960,,"MRN', '4",MRN-4', ROWS[1]]
    found = received(spark, deliver(tmp_path / "d", "2026-01-30T22:00:00", person=lines))
    whole = {dict(row[3])["person_id"] for row in found if not row[4]}
    assert len(found) == len(lines) and whole == {"1", "2", "3"}
    assert {row[4] for row in found if row[4]} == {lines[1], lines[3], lines[4]}


def test_bytes_that_are_not_utf8_are_seen_in_the_row_they_stand_in(spark, tmp_path):
    folder = folder_of(
        tmp_path / "d", "person.csv", f"{PERSON}\n{ROWS[0]}\n2,8507,1960,,,M\xfcller\n".encode("latin-1")
    )
    found = {dict(row[3])["person_id"]: dict(row[3])["person_source_value"] for row in received(spark, folder)}
    assert found == {"1": "MRN-1", "2": "M\ufffdller"}


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        (
            "person_id,gender_concept_id",
            ContractError,
            "MISSING_COLUMN: person.csv: 1 of 3 columns needed are not in its first line, year_of_birth",
        ),
        (f"{PERSON},PERSON_ID", ContractError, "DUPLICATE_COLUMN: person.csv: person_id"),
    ],
)
def test_a_header_that_cannot_be_right_stops_the_delivery(spark, tmp_path, header, error, message):
    folder = folder_of(tmp_path / "d", "person.csv", f"{header}\n1,2,3\n".encode())
    with pytest.raises(error, match=message):
        records.records(spark, delivered(folder), OMOP)


def test_a_file_without_a_header_does_not_give_its_first_patient_away(spark, tmp_path):
    folder = folder_of(tmp_path / "d", "person.csv", b"4711,8507,1957,Mueller Anna\n")
    with pytest.raises(ContractError) as refused:
        records.records(spark, delivered(folder), OMOP)
    assert "Mueller" not in str(refused.value) and "4711" not in str(refused.value)


def test_a_folder_with_signs_that_spark_takes_for_patterns_is_read(spark, tmp_path):
    folder = tmp_path / "a b=ü(1)+[2]"
    deliver(folder, "2026-01-30T22:00:00", person=ROWS)
    assert {r.file for r in records.records(spark, delivered(folder), OMOP).collect()} == {"person.csv"}


def test_whole_numbers_that_parquet_holds_as_floats_stay_whole(spark, tmp_path, plain):
    table = pa.table({"person_id": [12345678.0], "gender_concept_id": [8507.0], "year_of_birth": [1960.5]})
    pq.write_table(table, tmp_path / "one.parquet")
    folder = folder_of(tmp_path / "d", "person.parquet", (tmp_path / "one.parquet").read_bytes())
    assert dict(received(spark, folder)[0][3]) == {
        "person_id": "12345678",
        "gender_concept_id": "8507",
        "year_of_birth": "1960.5",
    }


def test_what_spark_leaves_beside_its_files_is_not_data(tmp_path):
    folder = deliver(tmp_path / "d", "2026-01-30T22:00:00", person=ROWS)
    before = delivered(folder)
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / ".person.csv.crc").write_bytes(b"x")
    assert delivered(folder) == before


def test_text_that_is_not_utf8_is_refused_by_name(spark, tmp_path):
    folder = folder_of(tmp_path / "d", "person.csv", f"{PERSON}\n".encode("utf-16"))
    with pytest.raises(DataError, match="BAD_HEADER: person.csv"):
        records.records(spark, delivered(folder), OMOP)


def test_a_delivery_of_nothing_or_of_nothing_known_is_refused(spark, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="EMPTY_DELIVERY"):
        delivered(tmp_path / "empty")
    with pytest.raises(DataError, match="EMPTY_FILE: person.csv"):
        delivered(folder_of(tmp_path / "zero", "person.csv", b""))
    with pytest.raises(DataError, match="NOTHING_TO_READ"):
        records.records(spark, delivered(folder_of(tmp_path / "other", "notes.txt", b"x")), OMOP)
    with pytest.raises(UsageError, match="NO_DELIVERY"):
        delivered(tmp_path / "absent")


def test_the_same_content_is_the_same_delivery_and_other_content_another(tmp_path):
    one = delivered(deliver(tmp_path / "a" / "d", "2026-01-30T22:00:00", person=ROWS))
    same = delivered(deliver(tmp_path / "b" / "d", "2026-01-30T22:00:00", person=ROWS))
    other = delivered(deliver(tmp_path / "c" / "d", "2026-01-30T22:00:00", person=ROWS[:1]))
    assert one.delivery_id == same.delivery_id != other.delivery_id
    assert one.known_at == datetime(2026, 1, 30, 22, tzinfo=UTC)


def test_a_manifest_with_an_unknown_key_is_refused(tmp_path):
    folder = deliver(tmp_path / "d", "2026-01-30T22:00:00", person=ROWS)
    (folder / "delivery.toml").write_text("deliverd_at = 2026-01-30T22:00:00\n")
    with pytest.raises(UsageError, match="BAD_MANIFEST: .*unknown deliverd_at"):
        delivered(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('is_snapshot = "yes"', "is_snapshot must be true or false"),
        ('source = "images"\nis_snapshot = true', "is_snapshot is for patients' records, not images"),
    ],
)
def test_a_snapshot_is_told_by_true_and_is_of_records(tmp_path, line, message):
    folder = deliver(tmp_path / "d", "2026-01-30T22:00:00", person=ROWS)
    assert not delivered(folder).is_snapshot
    (folder / "delivery.toml").write_text("is_snapshot = true\n")
    assert delivered(folder).is_snapshot
    (folder / "delivery.toml").write_text(f"{line}\n")
    with pytest.raises(UsageError, match=f"BAD_MANIFEST: .*{message}"):
        delivered(folder)


def listed(folder, *entries):
    with (folder / "delivery.toml").open("a") as file:
        file.write("".join(f"[[files]]\n{entry}\n" for entry in entries))
    return folder


def test_a_delivery_with_a_list_of_its_files_is_held_against_it(tmp_path):
    folder = deliver(tmp_path / "d", "2026-01-30T22:00:00", person=ROWS)
    content = (folder / "person.csv").read_bytes()
    digest, size = hashlib.sha256(content).hexdigest(), len(content)
    listed(folder, f'name = "person.csv"\nbytes = {size}\nsha256 = "{digest.upper()}"\nrows = 2')
    (file,) = delivered(folder).files
    assert (file.num_bytes, file.sha256, file.num_rows) == (size, digest, 2)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (['name = "person.csv"', 'name = "death.csv"'], "death.csv is listed and not there"),
        (['name = "death.csv"'], "person.csv is there and not listed"),
        (['name = "person.csv"\nbytes = 7'], "person.csv has .* bytes, listed are 7"),
        (['name = "person.csv"\nsha256 = "ab"'], "person.csv has another sha256 than is listed"),
    ],
)
def test_a_delivery_that_is_not_what_it_lists_is_refused(tmp_path, entries, message):
    folder = listed(deliver(tmp_path / "d", "2026-01-30T22:00:00", person=ROWS), *entries)
    with pytest.raises(DataError, match=f"MANIFEST_MISMATCH: .*{message}"):
        delivered(folder)


def test_an_entry_of_the_list_without_a_name_is_refused(tmp_path):
    folder = listed(deliver(tmp_path / "d", "2026-01-30T22:00:00", person=ROWS), "bytes = 7")
    with pytest.raises(UsageError, match=r"BAD_MANIFEST: .*a file has \['bytes'\], expected name"):
        delivered(folder)


def test_a_source_given_twice_must_agree(tmp_path):
    folder = deliver(tmp_path / "d", "2026-01-30T22:00:00", person=ROWS)
    assert read_delivery(folder, END, "UTC", False, "omop").source == "omop"
    with pytest.raises(UsageError, match="OTHER_SOURCE: .* says source 'omop', expected 'fhir'"):
        read_delivery(folder, END, "UTC", False, "fhir")


def test_a_gzip_file_that_is_not_whole_is_found(tmp_path):
    content = gzip.compress(b"x" * 100_000)
    folder = folder_of(tmp_path / "d", "person.csv.gz", content)
    assert damaged(delivered(folder).files) is None
    for spoilt in (content[:-20], content[:-8] + b"12345678"):
        (folder / "person.csv.gz").write_bytes(spoilt)
        assert damaged(delivered(folder).files) == "person.csv.gz"


def test_a_delivery_is_stored_in_parts_whose_number_grows_with_it_not_their_size():
    def num_partitions(name, mib):
        return records.num_partitions([DeliveredFile(name, Path(name), mib << 20, "")])

    assert [num_partitions("measurement.csv", mib) for mib in (0, 80, 640)] == [2, 12, 82]
    assert num_partitions("measurement.csv.gz", 10) == num_partitions("measurement.parquet", 10) == 12
