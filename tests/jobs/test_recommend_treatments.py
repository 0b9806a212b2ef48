import random
from collections import defaultdict
from datetime import UTC, date, datetime

import pytest
from pyspark.sql import Row
from pyspark.sql import functions as F

from medpipe import cli
from medpipe.errors import DataError
from medpipe.jobs import recommend_treatments, show_recommendations
from medpipe.recommend.catalogue import catalogue
from medpipe.recommend.content import offer
from tests.jobs.conftest import open_at

AS_OF = "2026-01-31"
DAY = date.fromisoformat(AS_OF)
THEN = datetime(2026, 1, 10, tzinfo=UTC)
DRUGS = [f"RX:{number:02}" for number in range(12)]
# Nobody has had them; RX:92 has no class.
NEW = ["RX:90", "RX:91"]
SAFETY = {
    "interactions.csv": "a,b,severity,source\nRX:00,odd,major,atlas\nodd,odd,minor,atlas\nRX:02,RX:04,moderate,atlas\n",
    "classes.csv": "treatment,class\nRX:01,odd\nRX:03,odd\nRX:05,odd\nRX:91,odd\n"
    "RX:08,even\nRX:09,even\nRX:10,even\nRX:90,even\n",
    "formulary.csv": "treatment\nRX:08\nRX:90\nRX:91\nRX:92\n",
    "contraindications.csv": "condition,treatment,severity,source\nC:1,RX:06,contraindicated,label\n",
    "allergies.csv": "allergy,treatment,severity,source\nA:1,odd,major,label\nA:1,RX:07,major,label\n",
}
OUTPUTS = ("gold.recommendation", "gold.recommendation_blocked", "ops.recommended", "ops.safety", "gold.model_metric")


def record():
    """60 patients: (patient, treatments), (patient, kind, concept); the last three have no treatment, one nothing."""
    draw = random.Random(4)
    had, events = {}, []
    for number in range(60):
        patient = f"p{number:02}"
        kind = number % 3
        weights = [5 if place % 3 == kind else 1 for place in range(len(DRUGS))]
        had[patient] = set(draw.choices(DRUGS, weights, k=4)) if number < 57 else set()
        events += [(patient, "drug", drug) for drug in sorted(had[patient])]
        events += [(patient, "condition", "C:1")] * (number % 2) + [(patient, "observation", "A:1")] * (number % 5 == 0)
    return had, events


def fill(work):
    had, events = record()
    lake, spark = work.lake.for_run("given"), work.lake.spark
    origin = ("text", "t", "d1", False)
    columns = "source string, source_table string, delivery_id string, is_deleted boolean"
    known = "recorded_at timestamp, known_at timestamp"
    people = [(patient, date(1950, 5, 1), "female", None, None, THEN, THEN, *origin) for patient in had]
    shape = f"patient_id string, birth_date date, sex string, state string, postcode string, {known}, {columns}"
    frame = spark.createDataFrame(people, shape)
    lake.append(frame, "silver.patient")
    rows = [
        (str(n), patient, None, kind, concept, THEN, None, None, None, None, None, THEN, THEN, *origin)
        for n, (patient, kind, concept) in enumerate(events)
    ]
    shape = "event_id string, patient_id string, encounter_id string, kind string, concept string, event_at timestamp"
    shape += (
        f", ended_at timestamp, value double, unit string, answer string, source_concept string, {known}, {columns}"
    )
    lake.append(spark.createDataFrame(rows, shape), "silver.event")
    concepts = [(drug, f"drug {drug}", None, None, None, THEN, THEN, *origin) for drug in [*DRUGS, "A:1"]]
    shape = f"concept string, name string, domain string, vocabulary string, code string, {known}, {columns}"
    lake.append(spark.createDataFrame(concepts, shape), "silver.concept")
    rated = [(DAY, patient, drug, 1.0, "orders", THEN, None) for patient in had for drug in sorted(had[patient])]
    shape = "as_of date, patient_id string, treatment string, rating double, basis string, rated_at timestamp"
    shape += ", outcome double"
    lake.append(spark.createDataFrame(rated, shape), "gold.rating")


def open_here(spark, folder, **more):
    given = {"als": {"rank": 3, "iterations": 2}, "recommend": {"top_k": 4, "min_patients": 3}}
    return open_at(spark, folder, AS_OF, safety={"folder": str(folder / "safety")}, **(given | more))


@pytest.fixture(scope="module")
def made(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recommended")
    (folder / "safety").mkdir()
    for name, text in SAFETY.items():
        (folder / "safety" / name).write_text(text)
    work = open_here(spark, folder)
    fill(work)
    (outcome,) = work.run(recommend_treatments.main)
    return folder, outcome


@pytest.fixture
def lake(made, spark):
    return open_here(spark, made[0]).lake.for_run("")


def rows_of(lake):
    """Every row of what the job writes, all its digits."""
    return {name: sorted(map(str, lake.read(name).collect())) for name in OUTPUTS}


def interacting():
    odd = ["RX:01", "RX:03", "RX:05", "RX:91"]
    pairs = [("RX:02", "RX:04"), *(("RX:00", other) for other in odd), *((a, b) for a in odd for b in odd if a < b)]
    return {frozenset(pair) for pair in pairs}


def test_no_list_holds_what_is_had_or_forbidden_and_blocked_rows_say_why(lake):
    had, events = record()
    lists, forbidden = defaultdict(list), defaultdict(set)
    for row in lake.read("gold.recommendation", DAY).orderBy("patient_id", "rank").collect():
        lists[row.patient_id].append(row.treatment)
    for patient, _, concept in events:
        if concept == "C:1":
            forbidden[patient] |= {"RX:06"}
        elif concept == "A:1":
            forbidden[patient] |= {"RX:01", "RX:03", "RX:05", "RX:07", "RX:91"}
        else:
            forbidden[patient] |= {other for other in [*DRUGS, *NEW] if frozenset((concept, other)) in interacting()}
    for patient, own in lists.items():
        assert not set(own) & (had[patient] | forbidden[patient])
        assert not [pair for pair in interacting() if pair <= set(own)]
    rows = lake.read("gold.recommendation_blocked", DAY).collect()
    assert {row.reason for row in rows} == {"allergy", "contraindication", "interaction", "interaction_in_list"}
    for row in rows:
        assert row.treatment not in lists[row.patient_id] and row.place <= 4
        if row.reason == "interaction_in_list":
            assert row.cause in lists[row.patient_id] and row.treatment not in forbidden[row.patient_id]
        else:
            assert row.treatment in forbidden[row.patient_id]
            assert row.reason != "interaction" or row.cause in had[row.patient_id]
    allergy = next(row for row in rows if row.reason == "allergy")
    assert (allergy.cause, allergy.severity, allergy.source) == ("A:1", "major", "label")


def test_everybody_is_counted_and_the_tables_in_force_are_told(lake):
    told = {row.path: row for row in lake.read("ops.recommended", DAY).collect()}
    assert {path: row.num_patients for path, row in told.items()} == {"history": 57, "features": 3}
    assert sum(row.num_listed for row in told.values()) == lake.read("gold.recommendation", DAY).count()
    assert sum(row.num_blocked for row in told.values()) == lake.read("gold.recommendation_blocked", DAY).count()
    names = {row.file: (row.num_lines, row.num_names, row.num_unknown) for row in lake.read("ops.safety").collect()}
    assert names == {
        "allergies.csv": (2, 3, 0),
        "contraindications.csv": (1, 2, 0),
        "formulary.csv": (4, 4, 1),
        "interactions.csv": (3, 4, 0),
    }


def test_treatments_nobody_has_had_stand_in_lists_by_their_classes(lake):
    rows = lake.read("gold.recommendation", DAY).where("path = 'content'").collect()
    assert {row.treatment: row.classes for row in rows} == {"RX:90": ["even"]}
    # What holds for the class holds for its newcomer.
    stopped = lake.read("gold.recommendation_blocked", DAY).where("treatment = 'RX:91'").collect()
    assert {row.reason for row in stopped} >= {"allergy", "interaction"}
    # Nobody has both it and what speaks for it, and its reasons are the patient's own.
    had, _ = record()
    for row in rows:
        assert all(reason.num_patients is None for reason in row.reasons)
        assert {reason.concept for reason in row.reasons if reason.kind == "treatment"} <= had[row.patient_id]


def test_another_partitioning_and_a_rerun_give_the_same_rows_to_the_bit(made, lake, spark, monkeypatch):
    before = rows_of(lake)
    version = lake.version("gold.recommendation")
    work = open_here(spark, made[0])
    assert [outcome.status for outcome in work.run(recommend_treatments.main)] == ["skipped"]
    partitions, rows = "spark.sql.shuffle.partitions", "spark.sql.execution.arrow.maxRecordsPerBatch"
    kept = {name: spark.conf.get(name) for name in (partitions, rows)}
    spark.conf.set(partitions, "5")
    spark.conf.set(rows, "7")
    try:
        work.ledger.entries = []
        monkeypatch.setattr("medpipe.tables.Lake._holds", lambda *_: False)
        assert [outcome.status for outcome in work.run(recommend_treatments.main)] == ["done"]
    finally:
        for name, value in kept.items():
            spark.conf.set(name, value)
    assert work.lake.for_run("").version("gold.recommendation") == version + 1
    assert rows_of(work.lake.for_run("")) == before


def test_a_changed_table_is_asked_anew_and_one_of_unknown_codes_stops_the_night(made, spark, tmp_path):
    folder = made[0]
    path = folder / "safety" / "contraindications.csv"
    path.write_text("condition,treatment,severity,source\nC:8,X:1,minor,label\n")
    try:
        with pytest.raises(DataError, match="UNKNOWN_SAFETY_CODES: contraindications.csv: 2 of 2 names"):
            open_here(spark, folder).run(recommend_treatments.main)
    finally:
        path.write_text(SAFETY["contraindications.csv"])


def test_a_patients_list_is_shown_with_reasons_and_what_was_blocked(made, lake, capsys):
    row = lake.read("gold.recommendation_blocked", DAY).where("reason = 'allergy'").orderBy("patient_id").first()
    words = ["recommend", "show", "--lake", lake.root, "--phi", lake.phi_root, "--patient"]
    assert cli.main([*words, row.patient_id]) == 0
    shown = capsys.readouterr().out
    assert "as of 2026-01-31" in shown and "all else" in shown and f"drug {row.treatment} ({row.treatment})" in shown
    assert "allergy: drug A:1 (A:1)" in shown and "label" in shown
    assert cli.main([*words, "nobody"]) == 2
    assert "UNKNOWN_PATIENT" in (said := capsys.readouterr().err) and "nobody" not in said
    assert cli.main([*words, row.patient_id, "--as-of", "2026-01-30"]) == 2
    assert "NO_LISTS: no lists as of 2026-01-30" in capsys.readouterr().err


def test_a_line_of_a_new_treatment_names_the_classes_it_is_scored_by():
    row = Row(rank=2, treatment="RX:90", score=0.5, reasons=[], rest=0.5, classes=["even", "small"])
    assert show_recommendations.listed_line(row, {"RX:90": "drug"}) == [
        "2",
        "drug",
        "0.500",
        "+0.500 all else\nnew here, scored like others of even, small",
    ]


def test_lost_patients_are_a_fault():
    recommend_treatments.require_all(3, 3)
    with pytest.raises(DataError, match="PATIENTS_LOST: 3 patients have a record, 2 an answer"):
        recommend_treatments.require_all(3, 2)


def test_of_many_treatments_the_most_common_are_the_catalogue_and_the_others_are_counted(table, capsys):
    rated = table("""
        patient_id string | treatment string
        ann               | statin
        bob               | statin
        ann               | insulin
        ann               | aspirin
    """)
    names = catalogue(rated, rated.select("patient_id", F.col("treatment").alias("feature")), 2, 1)
    assert (names.treatments, names.features) == (["aspirin", "statin"], ["statin"])
    recommend_treatments.tell_left_out(rated, offer(names, set(), {}), ["statin", "glargine", "detemir"])
    told = capsys.readouterr().out
    assert "1 rare treatments are in no list: recommend.max_treatments is 2" in told
    assert "2 treatments of formulary.csv are in no list: they share no class with known ones" in told
