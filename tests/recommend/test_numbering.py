from medpipe.recommend.numbering import numbered


def test_keys_are_numbered_in_sorted_order_without_gaps_whatever_their_partitions(spark):
    keys = ["b", "a1", "a10", "a2", "", "ff", "f", "fé", "fe", "b0c", "b0b"]
    frame = spark.createDataFrame([(key,) for key in keys], "key string")
    for partitioned in (frame.repartition(1), frame.repartition(4)):
        found = {row.key: row.number for row in numbered(partitioned, "key", "number").collect()}
        assert found == {key: number for number, key in enumerate(sorted(keys))}
