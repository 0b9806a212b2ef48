import os
from datetime import UTC, datetime

import pytest

from medpipe.errors import ContractError, DataError
from medpipe.imaging.formats import Limits
from medpipe.ingest.images import inside, received
from medpipe.ingest.manifest import IMAGES, read_delivery
from tests.images import RAMP, npz, picture

END = datetime(2026, 1, 31, tzinfo=UTC)


def rows_of(spark, folder):
    delivery = read_delivery(folder, END, "UTC", False, IMAGES)
    return received(spark, delivery, Limits()).collect()


@pytest.mark.parametrize(
    "path, found",
    [
        ("a/b.png", "a/b.png"),
        ("./a//b/../c.png", "a/c.png"),
        ("..png", "..png"),
        ("../a.png", None),
        ("a/../../b.png", None),
        ("/a.png", None),
        ("file:///a.png", None),
        ("a\0.png", None),
        ("", None),
        (None, None),
    ],
)
def test_a_path_is_taken_only_if_it_stays_inside(path, found):
    assert inside(path) == found


def test_without_a_manifest_every_file_is_an_image_whatever_its_name(spark, tmp_path):
    (tmp_path / ".hidden" / "deep").mkdir(parents=True)
    for name in ("a [1].png", "_b.png", ".c.png", ".hidden/deep/d.png"):
        (tmp_path / name).write_bytes(picture(RAMP))
    (tmp_path / "stack.npz").write_bytes(npz(images=RAMP[None].repeat(5, axis=0)))
    (tmp_path / "empty.png").touch()
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    with open(os.fsencode(tmp_path) + b"/latin-\xe9.png", "wb") as file:
        file.write(picture(RAMP))
    (tmp_path / "delivery.toml").write_text("delivered_at = 2026-01-30T22:00:00\n")
    rows = {row.file: row for row in rows_of(spark, tmp_path)}
    named = {"a [1].png", "_b.png", ".c.png", ".hidden/deep/d.png", "stack.npz", "empty.png", "broken.png"}
    assert rows.keys() == named | {"latin-\\xe9.png"}
    assert {name: row.num_images for name, row in rows.items() if row.num_images != 1} == {"stack.npz": 5}
    assert all(row.is_listed and row.fields == {"path": name} for name, row in rows.items())


def test_another_file_makes_another_delivery_also_a_hidden_one(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(RAMP))
    first = read_delivery(tmp_path, END, "UTC", False, IMAGES)
    (tmp_path / "_b.png").write_bytes(picture(RAMP))
    assert read_delivery(tmp_path, END, "UTC", False, IMAGES).delivery_id != first.delivery_id
    assert read_delivery(tmp_path, END, "UTC", False).source == "omop"


@pytest.mark.parametrize(
    "content, error",
    [
        (b"file,label\na.png,1\n", ContractError("MISSING_COLUMN", "")),
        (b"", ContractError("MISSING_COLUMN", "")),
        (b"path,label,Label\na.png,1,1\n", ContractError("DUPLICATE_COLUMN", "")),
        ("path,label\nä.png,1\n".encode("utf-16"), DataError("BAD_HEADER", "")),
    ],
)
def test_a_manifest_whose_header_cannot_be_read_stops_the_delivery(spark, tmp_path, content, error):
    (tmp_path / "a.png").write_bytes(picture(RAMP))
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(type(error), match=error.code):
        rows_of(spark, tmp_path)


def test_a_manifest_may_have_a_byte_order_mark_quotes_and_columns_of_its_own(spark, tmp_path):
    (tmp_path / "a, b.png").write_bytes(picture(RAMP))
    text = 'Label,note,PATH\r\n1,"said ""yes""","a, b.png"\r\n'
    (tmp_path / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (row,) = rows_of(spark, tmp_path)
    assert row.file == "a, b.png" and row.fields == {"label": "1", "note": 'said "yes"', "path": "a, b.png"}
