from medpipe.recommend.popularity import popularity, recommend_popular

RATINGS = """
    patient_id string | treatment string
    ann               | a
    ann               | b
    bob               | a
    bob               | c
    cat               | a
    cat               | b
    cat               | c
    cat               | d
"""


def test_the_share_counts_treated_patients_and_ties_fall_by_treatment(table):
    assert popularity(table(RATINGS)) == [("a", 1.0), ("b", 2 / 3), ("c", 2 / 3), ("d", 1 / 3)]


def test_a_list_leaves_out_what_the_patient_has_and_grows_no_longer_than_asked(table):
    patients = table("""
        patient_id string
        ann
        cat
        new
    """)
    rows = recommend_popular(table(RATINGS), patients, 2).orderBy("patient_id", "rank").collect()
    assert [(r.patient_id, r.rank, r.treatment, r.path) for r in rows] == [
        ("ann", 1, "c", "popularity"),
        ("ann", 2, "d", "popularity"),
        ("new", 1, "a", "popularity"),
        ("new", 2, "b", "popularity"),
    ]
