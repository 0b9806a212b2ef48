import re

import pytest
from delta.tables import DeltaTable
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, StringType, StructField, StructType

from medpipe import contracts
from medpipe.errors import ContractError

TABLES = [name for name in contracts.names() if contracts.load(name).view is None]
VIEWS = [name for name in contracts.names() if contracts.load(name).view is not None]

PATIENT = """
    as_of date | patient_id string | rank int | other_patient_id string | similarity double | run_id string
    2026-01-31 | ann               | 1        | bob                     | 0.5               | r1
"""


def nulls(spark, name):
    """One row of the table in which every column is null."""
    columns = [F.lit(None).cast(field.dataType).alias(field.name) for field in contracts.load(name).struct]
    return spark.range(1).select(columns)


def test_every_file_of_schemas_is_a_contract():
    zones = {"phi", "bronze", "silver", "gold", "ops", "safe_harbor", "limited"}
    assert {name.split(".")[0] for name in contracts.names()} == zones
    assert all(contracts.load(name).name == name for name in contracts.names())


def test_an_unknown_table_is_refused_with_the_known_ones():
    with pytest.raises(ContractError, match="UNKNOWN_TABLE: no contract 'gold.scores'; expected one of .*gold.score,"):
        contracts.load("gold.scores")


@pytest.mark.parametrize("name", TABLES)
def test_types_are_sparks_and_every_column_is_explained(name):
    struct = contracts.load(name).struct
    assert StructType.fromJson(struct.jsonValue()) == struct
    assert len(set(struct.names)) == len(struct.names) > 0
    docs = [contracts.load(name).doc, *[field.metadata["comment"] for field in struct]]
    assert all(doc.strip() == doc != "" for doc in docs)


@pytest.mark.parametrize("name", TABLES)
def test_keys_and_partitions_are_columns_that_are_never_null(name):
    contract = contracts.load(name)
    required = {field.name for field in contract.struct if not field.nullable}
    assert contract.key
    assert set(contract.key) | set(contract.partition_by) <= required


@pytest.mark.parametrize("name", TABLES)
def test_bitemporal_tables_say_when_a_record_was_known(name):
    contract = contracts.load(name)
    assert not contract.is_bitemporal or {"known_at", "delivery_id", "is_deleted"} <= set(contract.struct.names)


@pytest.mark.parametrize("name", TABLES)
def test_only_the_ledger_has_no_stamp_of_the_run_added(name):
    assert contracts.load(name).struct.names.count("run_id") == 1


@pytest.mark.parametrize("name", TABLES)
def test_every_check_is_a_condition_on_the_tables_own_columns(spark, name):
    checks = contracts.load(name).checks
    asked = nulls(spark, name).select([F.expr(check.sql).alias(str(i)) for i, check in enumerate(checks)])
    assert {type(field.dataType) for field in asked.schema} == {BooleanType}


@pytest.mark.parametrize("name", TABLES)
def test_a_row_of_nulls_breaks_exactly_the_not_null_checks(spark, name):
    required = {check.code for check in contracts.load(name).checks if check.sql.endswith(" is not null")}
    broken = nulls(spark, name).select(contracts.violations(name)).first()[0]
    assert broken == sorted(required - {"MISSING_RUN_ID"})  # the write stamps it later


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_a_query_on_tables_that_have_contracts(spark, name):
    query = contracts.load(name).view
    sources = [table for table in TABLES if re.search(rf"\b{re.escape(table)}\b", query)]
    assert sources
    for table in sources:
        nulls(spark, table).createOrReplaceTempView(table.replace(".", "_"))
        query = re.sub(rf"\b{re.escape(table)}\b", table.replace(".", "_"), query)
    assert spark.sql(query).columns


def test_violations_name_every_broken_check_once_in_order(table):
    rows = table("""
        as_of date | patient_id string | rank int | other_patient_id string | similarity double
        2026-01-31 | ann               | 1        | bob                     | 1
        2026-01-31 | ann               | 0        | ann                     | 2
        2026-01-31 |                   | 3        | bob                     | 0
    """)
    found = rows.select(contracts.violations("gold.patient_similarity").alias("broken")).collect()
    assert [row.broken for row in found] == [
        [],
        ["BAD_OTHER_PATIENT_ID", "BAD_RANK", "BAD_SIMILARITY"],
        ["BAD_SIMILARITY", "MISSING_PATIENT_ID"],
    ]


def test_conform_orders_columns_and_adds_their_meaning(table):
    shuffled = table(PATIENT).select("run_id", "similarity", "other_patient_id", "rank", "patient_id", "as_of")
    conformed = contracts.conform(shuffled, "gold.patient_similarity")
    wanted = contracts.load("gold.patient_similarity").struct
    assert [(f.name, f.dataType, f.metadata) for f in conformed.schema] == [
        (f.name, f.dataType, f.metadata) for f in wanted
    ]


def test_conform_names_all_that_is_wrong_in_one_error(table):
    wrong = table(PATIENT).withColumnRenamed("rank", "place").withColumn("similarity", F.lit("near")).drop("as_of")
    with pytest.raises(ContractError) as refused:
        contracts.conform(wrong, "gold.patient_similarity")
    assert str(refused.value) == (
        "SCHEMA_MISMATCH: gold.patient_similarity: missing as_of; missing rank; unknown place; "
        "similarity is string, expected double; change the transform or schemas/"
    )
    assert (refused.value.code, refused.value.exit_code) == ("SCHEMA_MISMATCH", 4)


def test_what_a_table_of_an_older_contract_lacks_is_told_in_order_and_refused_where_it_cannot_be_added():
    now = contracts.load("silver.patient").struct
    old = StructType([field for field in now if field.name not in ("postcode", "state")])
    assert [field.name for field in contracts.gained("silver.patient", old)] == ["state", "postcode"]
    assert contracts.gained("silver.patient", now) == []
    other = StructType(
        [StructField("birth_date", StringType()), *[f for f in old if f.name not in ("birth_date", "sex")]]
    )
    with pytest.raises(
        ContractError, match="OLD_TABLE: silver.patient .*lacks sex, .*birth_date is string, expected date"
    ):
        contracts.gained("silver.patient", other)


def test_comments_and_not_null_survive_a_round_trip_through_delta(spark, table, tmp_path):
    wanted = contracts.load("gold.patient_similarity").struct
    path = str(tmp_path / "similarity")
    builder = DeltaTable.createIfNotExists(spark).location(path)
    for field in wanted:
        builder = builder.addColumn(
            field.name, field.dataType, nullable=field.nullable, comment=field.metadata["comment"]
        )
    builder.execute()
    contracts.conform(table(PATIENT), "gold.patient_similarity").write.format("delta").mode("append").save(path)
    stored = DeltaTable.forPath(spark, path).toDF()
    assert [(f.name, f.metadata["comment"]) for f in stored.schema] == [(f.name, f.metadata["comment"]) for f in wanted]
    described = {row.col_name: row.comment for row in spark.sql(f"describe delta.`{path}`").collect()}
    assert described["similarity"] == wanted["similarity"].metadata["comment"]
    with pytest.raises(Exception, match="DELTA_NOT_NULL_CONSTRAINT_VIOLATED"):
        absent = contracts.conform(
            table(PATIENT).withColumn("patient_id", F.lit(None).cast("string")), "gold.patient_similarity"
        )
        absent.write.format("delta").mode("append").save(path)
