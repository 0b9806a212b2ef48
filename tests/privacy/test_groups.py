from medpipe.privacy.groups import groups, hidden

PATIENTS = """
    patient_id string | sex string | birth_year int | age string | state string | zip3 string
    a                 | female     | 1950           | 76         | MA           | 021
    b                 | female     | 1950           | 76         | MA           | 021
    c                 | female     | 1950           | 76         | MA           | 000
    d                 | male       |                | 90+        | MA           |
    e                 | male       |                | 90+        | MA           |
    f                 | male       |                | 90+        | MA           |
"""


def test_patients_are_counted_by_the_size_of_the_group_they_are_alike_in(table):
    found = groups(table(PATIENTS))
    assert (found.num_groups, found.smallest, list(found.num_patients.values())) == (3, 1, [1, 5, 0, 0])
    none = groups(table(PATIENTS).limit(0))
    assert (none.num_groups, none.smallest, set(none.num_patients.values())) == (0, 0, {0})


def test_what_others_may_know_of_a_patient_is_hidden_in_a_group_that_is_too_small(table):
    rows = {row.patient_id: row for row in hidden(table(PATIENTS), 3).collect()}
    assert {name for name, row in rows.items() if row.is_hidden} == {"a", "b", "c"}
    assert {tuple(rows[name])[1:6] for name in "abc"} == {("unknown", None, None, None, None)}
    assert tuple(rows["d"])[1:6] == ("male", None, "90+", "MA", None)
    assert not any(row.is_hidden for row in hidden(table(PATIENTS), 1).collect())
