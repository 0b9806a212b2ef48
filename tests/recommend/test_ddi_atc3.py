"""A table of interactions between classes, as the field publishes them, made a hospital's: read in place."""

import csv
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from medpipe.errors import DataError
from medpipe.recommend.catalogue import Catalogue
from medpipe.recommend.gram import gram
from medpipe.recommend.histories import Histories, to_batch
from medpipe.recommend.linear import EaseSettings, ease
from medpipe.recommend.lists import Lister
from medpipe.recommend.population import InMemory
from medpipe.recommend.rules import pairs_of, rules_of
from medpipe.recommend.safety import read, require_known
from medpipe.recommend.settings import RecommendSettings

NUM_PATIENTS = 400
# Every fifth class has no treatment in this hospital.
MEMBERS_OF = (2, 3, 2, 1, 0)


@pytest.fixture(scope="module")
def hospital(shared_data, tmp_path_factory):
    """(tables as the hospital writes them, class of each treatment, interacting pairs of classes)."""
    path = shared_data / "ddi_atc3" / "ddi_pairs.csv"
    if not path.is_file():
        pytest.skip(f"no table of interactions at {path}; set MEDPIPE_TEST_DATA")
    with path.open() as file:
        pairs = [(f"ATC:{row['atc_a']}", f"ATC:{row['atc_b']}") for row in csv.DictReader(file)]
    codes = sorted({code for pair in pairs for code in pair})
    sizes = {code: MEMBERS_OF[place % len(MEMBERS_OF)] for place, code in enumerate(codes)}
    class_of = {f"RX:{code[4:]}{n}": code for code, size in sizes.items() for n in range(size)}
    folder = tmp_path_factory.mktemp("safety")
    # Severity and source are the hospital's to give.
    lines = [f"{a},{b},moderate,atlas of the house" for a, b in pairs]
    (folder / "interactions.csv").write_text("\n".join(["a,b,severity,source", *lines]))
    lines = [f"{treatment},{code}" for treatment, code in class_of.items()]
    (folder / "classes.csv").write_text("\n".join(["treatment,class", *lines]))
    return read(str(folder)), class_of, {frozenset(pair) for pair in pairs}


def population(num_treatments):
    """Patients with four to nine treatments each, some far more common than others."""
    draw = np.random.default_rng(11)
    share = draw.dirichlet(np.full(num_treatments, 0.3))
    had = np.zeros((NUM_PATIENTS, num_treatments), np.float32)
    for row, size in enumerate(draw.integers(4, 10, NUM_PATIENTS)):
        had[row, draw.choice(num_treatments, size, p=0.9 * share + 0.1 / num_treatments)] = 1
    names = pa.array([f"p{number:03}" for number in range(NUM_PATIENTS)])
    return Histories(names, sparse.csr_matrix(had), sparse.csr_matrix((NUM_PATIENTS, 0), dtype=np.float32))


def lists_of(known, names, rules):
    """(treatments had, treatments listed) of each patient, what they have being their current medication."""
    number = {cause: place for place, (_, cause) in enumerate(rules.causes)}
    had = [[names[column] for column in row.indices] for row in known.had]
    causes = [sorted(number[name] for name in own if name in number) for own in had]
    rows = to_batch(known)
    rows = pa.RecordBatch.from_arrays(
        [*rows.columns, pa.array(causes, pa.list_(pa.int32()))], names=[*rows.schema.names, "causes"]
    )
    model = ease(gram(InMemory(known)), EaseSettings(20.0, 0.0))
    lister = Lister(model, rules, Catalogue(names, []), np.zeros((len(names),) * 2, np.int32), RecommendSettings())
    told = pa.Table.from_batches(list(lister(iter([rows])))).column("listed").to_pylist()
    return [(own, [place["treatment"] for place in places]) for own, places in zip(had, told, strict=True)]


def num_forbidden(lists, class_of, interacts):
    """Pairs within lists, and of what is listed with what is had, whose classes interact."""
    pairs = [pair for own, listed in lists for pair in combinations(listed, 2)]
    pairs += [(treatment, other) for own, listed in lists for treatment in own for other in listed]
    return sum(frozenset(class_of[name] for name in pair) in interacts for pair in pairs)


def test_no_list_of_a_population_holds_a_pair_whose_classes_interact(hospital):
    tables, class_of, interacts = hospital
    names = sorted(class_of)
    known, rules = population(len(names)), rules_of(pairs_of(tables, names), names)
    lists = lists_of(known, names, rules)
    assert num_forbidden(lists, class_of, interacts) == 0
    assert all(listed for _, listed in lists)
    # The same model, told of no interaction, lists many.
    assert num_forbidden(lists_of(known, names, rules_of({}, names)), class_of, interacts) > NUM_PATIENTS


def test_a_pair_of_classes_blocks_every_pair_of_their_members(hospital):
    tables, class_of, interacts = hospital
    found = pairs_of(tables, sorted(class_of))
    wanted = [pair for pair in combinations(class_of, 2) if frozenset(class_of[name] for name in pair) in interacts]
    # A class without members stands for itself, should it ever be in a record.
    assert len([cause for _, cause, _ in found if cause in class_of]) == 2 * len(wanted)
    assert all(found["interaction", *pair] == ("moderate", "atlas of the house") for pair in wanted)


def test_classes_without_a_treatment_of_the_hospital_are_counted_and_refused_above_the_threshold(hospital):
    tables, class_of, _ = hospital
    assert [row[2:] for row in require_known(tables, class_of, 0.5)] == [(467, 95, 19)]
    with pytest.raises(DataError, match="UNKNOWN_SAFETY_CODES: interactions.csv: 19 of 95 names"):
        require_known(tables, class_of, 0.19)
