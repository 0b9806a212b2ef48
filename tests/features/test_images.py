import pytest

from medpipe.features.images import ImageSettings, image_rows, usable


@pytest.fixture
def images(table):
    return table("""
        image_id string | modality string | num_frames int | label int
        plain           | DX              | 1              | 1
        unlabelled      | DX              | 1              |
        many classes    | DX              | 1              | 4
        volume          | CT              | 90             | 1
        nobody says     |                 | 1              | 0
    """)


def reasons(images, role, **settings):
    return {row.image_id: row.reason for row in usable(images, role, ImageSettings(**settings)).collect()}


def test_a_model_learns_from_flat_images_with_a_label_of_two(images):
    assert reasons(images, "fit") == {
        "plain": None,
        "unlabelled": "NO_LABEL",
        "many classes": "OTHER_LABEL",
        "volume": "VOLUME",
        "nobody says": None,
    }


def test_every_flat_image_is_scored_whatever_its_label(images):
    assert {name for name, reason in reasons(images, "apply").items() if reason} == {"volume"}


def test_images_of_other_modalities_are_left_out_where_the_settings_name_some(images):
    found = reasons(images, "apply", modalities=("DX", "CR"))
    assert found["nobody says"] == found["volume"] == "OTHER_MODALITY" and found["plain"] is None


def test_images_belong_to_their_patient_else_their_series_else_themselves(table):
    images = table("""
        image_id string | source string | delivery_id string | patient_id string | series_id string | label int
        a               | images        | d                  | ann               | s                | 1
        b               | images        | d                  |                   | s                | 4
        c               | images        | d                  |                   |                  |
    """)
    shape = {"dtype": "'uint8'", "height": "1", "width": "2", "channels": "1", "modality": "'DX'"}
    more = [f"{value} as {name}" for name, value in shape.items()]
    none = ["cast(null as double) as window_center", "cast(null as double) as window_width"]
    images = images.selectExpr("*", *more, *none, "cast(null as string) as reason")
    pixels = images.selectExpr("image_id", "source", "delivery_id", "to_binary('07ff', 'hex') as pixels")
    rows = {row.image_id: row for row in image_rows(images, pixels, ImageSettings()).collect()}
    assert {name: (row.belongs_to, row.label) for name, row in rows.items()} == {
        "a": ("ann", 1),
        "b": ("s", -1),
        "c": ("c", -1),
    }
    assert {(bytes(row.pixels), row.height, row.width) for row in rows.values()} == {(b"\x07\xff", 1, 2)}
