import numpy as np
import pyarrow as pa
import pytest

from medpipe.recipes import MOLECULE_GAN
from medpipe.stream.noise import Draws, draw, noise_file, uniforms
from medpipe.stream.shards import plan


def blocks(shard):
    return pa.Table.from_batches(draw(shard.url, shard.row_groups, MOLECULE_GAN.columns, 100))


@pytest.mark.parametrize("num_rows", [1, 99, 100, 101, 1000])
@pytest.mark.parametrize("shard_rows", [1, 250, 10_000])
def test_every_molecule_is_in_one_shard(num_rows, shard_rows):
    shards = plan([noise_file(7, num_rows, 100)], shard_rows)
    parts = [blocks(shard) for shard in shards]
    assert [shard.num_rows for shard in shards] == [len(part) for part in parts]
    found = pa.concat_tables(parts)
    assert found["place"].to_pylist() == list(range(num_rows))
    assert set(found["seed"].to_pylist()) == {7}
    assert found["molecule_id"][0].as_py() == "7-000000000"


def draws(seeds, places):
    ids = np.array([f"{seed}-{place}" for seed, place in zip(seeds, places, strict=True)], object)
    return Draws(ids, np.array(seeds), np.array(places))


def test_noise_belongs_to_seed_and_place_alone():
    found = draws([1, 1, 2, 1], [0, 5, 5, 2**40])
    noise = uniforms(found, np.arange(4), 6)
    assert noise.shape == (4, 6) and noise.dtype == np.float32
    np.testing.assert_array_equal(uniforms(found, np.array([2, 1]), 6), noise[[2, 1]])
    np.testing.assert_array_equal(uniforms(found.take(np.array([3])), np.array([0]), 4)[0], noise[3, :4])
    assert len({row.tobytes() for row in noise}) == 4


def test_noise_is_even():
    noise = uniforms(draws([3] * 5000, range(5000)), np.arange(5000), 8)
    assert 0 <= noise.min() and noise.max() < 1
    counts = np.histogram(noise, bins=20, range=(0, 1))[0]
    assert np.abs(counts - 2000).max() < 5 * 2000**0.5
    assert abs(np.corrcoef(noise.T)[0, 1:]).max() < 0.06


def test_parts_are_put_together():
    a, b = draws([1, 1], [3, 4]), draws([2], [9])
    both = Draws.concatenate([a, b])
    assert both.ids.tolist() == ["1-3", "1-4", "2-9"] and both.places.tolist() == [3, 4, 9]
    assert both.lengths.tolist() == [1, 1, 1]
