import pytest
from hypothesis import given
from hypothesis import strategies as st

from medpipe.errors import UsageError
from medpipe.stream.shards import Shard, ShardFile, plan

FILES = st.lists(st.lists(st.integers(0, 50), max_size=8).map(tuple), max_size=8).map(
    lambda files: [ShardFile(f"file:///t/part-{i}.parquet", 100 + i, rows) for i, rows in enumerate(files)]
)


@given(FILES, st.integers(1, 120))
def test_every_row_group_is_in_exactly_one_shard_and_no_shard_is_too_large(files, max_rows):
    shards = plan(files, max_rows)
    planned = sorted((shard.url, group) for shard in shards for group in shard.row_groups)
    assert planned == sorted((file.url, group) for file in files for group in range(len(file.row_group_rows)))
    rows = {file.url: file.row_group_rows for file in files}
    for shard in shards:
        assert shard.num_rows == sum(rows[shard.url][group] for group in shard.row_groups)
        assert shard.num_rows <= max(max_rows, max(rows[shard.url]))
    for first, second in zip(shards, shards[1:], strict=False):
        assert first.url != second.url or first.num_rows + second.num_rows > max_rows
    assert [shard.shard_id for shard in shards] == list(range(len(shards)))


@given(FILES, st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_the_order_of_the_files(files, random):
    shuffled = random.sample(files, len(files))
    assert plan(shuffled, 60) == plan(files, 60)


def test_neighbouring_row_groups_share_a_shard_while_they_fit():
    file = ShardFile("file:///t/a.parquet", 1, (40, 60, 1, 500, 10))
    assert plan([file], 100) == [
        Shard(0, file.url, (0, 1), 100),
        Shard(1, file.url, (2,), 1),
        Shard(2, file.url, (3,), 500),
        Shard(3, file.url, (4,), 10),
    ]


def test_files_are_ordered_by_content_before_their_random_names():
    small, large = ShardFile("file:///t/z.parquet", 9, (1,)), ShardFile("file:///t/a.parquet", 10, (2,))
    assert [shard.url for shard in plan([large, small], 5)] == [small.url, large.url]


def test_a_plan_without_rows_per_task_is_refused():
    with pytest.raises(UsageError, match="BAD_MAX_ROWS: max_rows is 0, expected at least 1"):
        plan([], 0)
