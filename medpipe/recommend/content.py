"""Treatments of the hospital's formulary that hardly anybody has had yet: scored by the classes they share with others.

M known treatments, F new ones, B patients, K asked about, L of like content.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from medpipe.recommend.catalogue import Catalogue
from medpipe.recommend.histories import Histories
from medpipe.recommend.parts import Model, Parts, Scored, nothing, rows_of
from medpipe.recommend.population import Population, Statistic
from medpipe.recommend.served import Served
from medpipe.recommend.solve import padded


@dataclass(frozen=True)
class Offer:
    """What lists may hold.

    Attributes:
        known: what models learn from.
        new: treatment, rising -> the classes, by name, that it shares with known ones.
        classes: class -> its treatments.
    """

    known: Catalogue
    new: dict[str, list[str]]
    classes: dict[str, tuple[str, ...]]

    @property
    def all(self) -> Catalogue:
        """The known treatments, and the new ones behind them."""
        return Catalogue([*self.known.treatments, *self.new], self.known.features)


def offer(names: Catalogue, rare: Collection[str], classes: dict[str, tuple[str, ...]]) -> Offer:
    """A rare treatment is new if it shares a class with one of the catalogue that is not rare; others stay as they are.

    Args:
        rare: as `rare_of` gives them; in the catalogue or not.
    """
    common, found = set(names.treatments).difference(rare), {name: [] for name in sorted(rare)}
    for name, members in sorted(classes.items()):
        if common.intersection(members):
            for treatment in found.keys() & members:
                found[treatment].append(name)
    new = {treatment: shared for treatment, shared in found.items() if shared}
    return Offer(Catalogue([name for name in names.treatments if name not in new], names.features), new, classes)


def rare_of(ratings: DataFrame, formulary: Collection[str], min_patients: int) -> set[str]:
    """Treatments of the formulary that fewer than min_patients patients have had.

    Args:
        ratings: as gold.rating; reads treatment, one row per patient and treatment.
    """
    if not formulary:
        return set()
    asked = ratings.sparkSession.createDataFrame(pa.table({"treatment": pa.array(sorted(formulary), pa.string())}))
    counted = ratings.join(F.broadcast(asked), on="treatment", how="inner").groupBy("treatment").count()
    return set(formulary) - {row.treatment for row in counted.where(F.col("count") >= min_patients).collect()}


def alike(offer: Offer, num_patients: np.ndarray) -> sparse.csr_matrix:
    """float64 (F, M): how much of each known treatment's score a new one takes; each row adds up to 1.

    Its classes speak alike, and within a class a treatment by the root of its patients: in a plain mean those hardly
    given silence the class, and weighed by patients the best known one hands its place to every newcomer.

    Args:
        num_patients: (M,), who had each known treatment.
    """
    column = {name: place for place, name in enumerate(offer.known.treatments)}
    rows = sparse.lil_matrix((len(offer.new), len(column)))
    for place, shared in enumerate(offer.new.values()):
        for name in shared:
            members = [column[member] for member in offer.classes[name] if member in column]
            weights = np.sqrt(np.maximum(num_patients[members], 1))
            rows[place, members] += weights / weights.sum() / len(shared)
    return rows.tocsr()


@dataclass(frozen=True)
class WithNew:
    """A model of M treatments, and F more behind them: a new one has the mean score of those alike.

    What a patient has had of the new ones says nothing.

    Attributes:
        model: of the known treatments.
        alike: float64 (F, M).
    """

    model: Model
    alike: sparse.csr_matrix

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 (B, M + F)."""
        return self._all(self.model.scores(of_known(histories, self.alike.shape[1])))

    def parts(self, histories: Histories, items: np.ndarray) -> Parts:
        """A new treatment has the parts of those alike, weighed as their scores are.

        Cost: for each place of a list, of the patients who have a new treatment there, L times a known one's.
        """
        known = of_known(histories, self.alike.shape[1])
        return self._parts(histories, known, partial(self.model.parts, known), items)

    def scored(self, histories: Histories) -> Scored:
        """Both."""
        known = of_known(histories, self.alike.shape[1])
        of_model = self.model.scored(known)
        return Scored(self._all(of_model.scores), partial(self._parts, histories, known, of_model.parts))

    def _all(self, scores: np.ndarray) -> np.ndarray:
        return np.hstack([scores, scores @ self.alike.T])

    def _parts(
        self, histories: Histories, known: Histories, parts_of: Callable[[np.ndarray], Parts], items: np.ndarray
    ) -> Parts:
        num_known = self.alike.shape[1]
        is_new, is_known = items >= num_known, histories.had.indices < num_known
        found, own = nothing(histories, items.shape[1]), parts_of(np.where(is_new, 0, items))
        found.base[:], found.of_treatments[is_known], found.of_features[:] = (
            own.base,
            own.of_treatments,
            own.of_features,
        )
        for place in np.flatnonzero(is_new.any(axis=0)):
            rows = np.flatnonzero(is_new[:, place])
            entries, is_inside = padded(self.alike, items[rows, place] - num_known)  # (b, L)
            columns = np.where(is_inside, self.alike.indices[entries], 0)
            weights = np.where(is_inside, self.alike.data[entries], 0)
            of_rows = Histories(known.patient_ids.take(pa.array(rows)), known.had[rows], known.features[rows])
            parts = self.model.parts(of_rows, columns)
            of_treatments, of_features = (
                (values * weights[rows_of(matrix)]).sum(axis=1)
                for values, matrix in ((parts.of_treatments, of_rows.had), (parts.of_features, of_rows.features))
            )
            found.base[rows, place] = (parts.base * weights).sum(axis=1)
            found.of_treatments[is_known & np.isin(rows_of(histories.had), rows), place] = of_treatments
            found.of_features[np.isin(rows_of(histories.features), rows), place] = of_features
        return found


def with_new(served: Served, offer: Offer) -> tuple[Model, np.ndarray]:
    """(the model, `together`) of all that is offered, from those of the known treatments; nobody has a new one."""
    if not offer.new:
        return served.model, served.together
    num_known, num_new = len(offer.known.treatments), len(offer.new)
    together = np.insert(served.together, [num_known] * num_new, 0, axis=0)
    model = WithNew(served.model, alike(offer, served.counted.treatments.diagonal()))
    return model, np.pad(together, ((0, 0), (0, num_new)))


@dataclass(frozen=True)
class OfKnown:
    """The same patients, and of their treatments the first M alone: whom a model of the known ones learns from."""

    population: Population
    num_treatments: int

    @property
    def num_features(self) -> int:
        return self.population.num_features

    def summed(self, statistic: Statistic) -> np.ndarray:
        """float64."""
        return self.population.summed(_OfKnown(statistic, self.num_treatments))


@dataclass(frozen=True)
class _OfKnown:
    statistic: Statistic
    num_treatments: int

    def __call__(self, histories: Histories) -> np.ndarray:
        return self.statistic(of_known(histories, self.num_treatments))


def of_known(histories: Histories, num_treatments: int) -> Histories:
    """The first treatments alone."""
    return Histories(histories.patient_ids, histories.had[:, :num_treatments], histories.features)


def marked(listed: DataFrame, offer: Offer) -> DataFrame:
    """Says which rows of a list stand there by their content.

    Args:
        listed: treatment, path and more.
    Returns:
        the columns of listed, path content for a new treatment, and classes (array<string>, null for all others).
    """
    columns = [pa.array(list(offer.new), pa.string()), pa.array(list(offer.new.values()), pa.list_(pa.string()))]
    new = listed.sparkSession.createDataFrame(pa.Table.from_arrays(columns, ["treatment", "classes"]))
    path = F.when(F.col("classes").isNull(), F.col("path")).otherwise("content")
    return listed.join(F.broadcast(new), on="treatment", how="left").withColumn("path", path)
