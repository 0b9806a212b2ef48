from pyspark.sql import functions as F

from medpipe.standardise import places


def test_states_are_codes_and_zip_codes_have_five_digits_in_a_state(table):
    rows = table("""
        n int | state string | postcode string
        1     | MA           | 02139
        2     | massachusetts| 021391830
        3     | Kansas       | 67216-1830
        4     | ks           | 672
        5     | Bayern       | 80331
        6     |              | 80331
        7     | Anna         | 12 Elm Street
        8     | District of Columbia | SW1A 1AA
    """)
    kept = places.state(F.col("state")), places.postcode(F.col("postcode"), F.col("state"))
    assert [tuple(row) for row in rows.orderBy("n").select(*kept).collect()] == [
        ("MA", "02139"),
        ("MA", "02139"),
        ("KS", "67216"),
        ("KS", None),
        (None, None),
        (None, None),
        (None, None),
        ("DC", None),
    ]
