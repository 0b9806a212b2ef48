"""Train a candidate of a recipe's model on the fit rows of --as-of, measure it on the test split, register it."""

import json
import shutil
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame
from scipy.sparse import csr_matrix

from medpipe import checkpoints, job, recipes
from medpipe.errors import UsageError
from medpipe.evaluate.baselines import count_inputs, logistic, pixel_inputs
from medpipe.evaluate.classification import Bootstrap, Metric, differences, evaluate
from medpipe.features.sequences import BIRTH
from medpipe.features.vocabulary import vocabulary
from medpipe.recipes import Trained
from medpipe.score import forms
from medpipe.stream.batches import Encoded
from medpipe.stream.shards import plan
from medpipe.stream.tokens import Vocabulary, vocabulary_of
from medpipe.train.examples import Examples, read_examples
from medpipe.train.loop import fit
from medpipe.train.settings import TrainSettings

SHARD_ROWS = 65_536
# Rows on which the forms of a model are timed.
SAMPLE = 512


def features(options: dict) -> dict:
    """The table of the recipe, and what its vocabulary is learned from.

    Raises:
        UsageError: OTHER_JOB for a recipe without labelled rows.
    """
    table = recipes.named(options["recipe"]).table
    if table is None:
        raise UsageError("OTHER_JOB", f"{options['recipe']} learns without labels; run train_generator")
    return {table: {"role": "fit"}} | ({"silver.event": {}} if table == "gold.sequence" else {})


@job.step(
    reads=features,
    writes=("gold.vocabulary", "ops.model", "gold.model_metric"),
    settings=("train",),
    options=(job.RECIPE,),
)
def main(run: job.Run) -> None:
    lake, recipe, settings = run.lake, recipes.named(run.options["recipe"]), run.settings.train
    has_concepts = recipe.table == "gold.sequence"
    known = learn_vocabulary(run, recipe.name, settings.max_tokens) if has_concepts else None
    where = {"as_of": run.as_of, "role": "fit"}
    snapshot = lake.shards(recipe.table, where, [*recipe.columns, "label", "split"])
    examples = read_examples(plan(snapshot.files, SHARD_ROWS), recipe, known, settings.max_patients)
    config, folder = recipe.config(known, examples.encoded), training_folder(lake.root, run.run_id)
    fitted = fit(recipe, config, examples, settings, folder)
    trained = Trained(recipe.name, config, fitted.weights, known, recipe.form)
    rows, num_patients = measured(recipe, trained, examples, settings)
    sample = examples.encoded.take(np.arange(min(SAMPLE, len(examples.labels))))
    trained = replace(trained, form=forms.choose(recipe, trained, sample))
    data = {recipe.table: snapshot.version}
    data |= {"gold.vocabulary": lake.version("gold.vocabulary")} if has_concepts else {}
    saved = checkpoints.save(f"{lake.root}/models", trained, asdict(settings), fitted.metrics, data)
    lake.append(model_rows(run, saved), "ops.model")
    lake.replace(metric_rows(run, rows, "test", num_patients), "gold.model_metric", where=run.partition)
    shutil.rmtree(folder)


def learn_vocabulary(run: job.Run, recipe: str, max_tokens: int) -> Vocabulary:
    """Writes gold.vocabulary of the train split and gives it as arrays."""
    lake = run.lake
    sequences = lake.read("gold.sequence", run.as_of, where={"role": "fit"})
    births = lake.spark.createDataFrame([(f"{BIRTH}{sex}",) for sex in ("female", "male", "unknown")], "concept string")
    concepts = lake.history("silver.event", run.as_of).select("concept").union(births)
    lake.replace(vocabulary(sequences, concepts, run.as_of, recipe, max_tokens), "gold.vocabulary", where=run.partition)
    rows = lake.read("gold.vocabulary", run.as_of, where={"recipe": recipe})
    columns = rows.select("concept_hash", "token", "amount_mean", "amount_std").toPandas()
    return vocabulary_of(columns.concept_hash, columns.token, columns.amount_mean, columns.amount_std)


def measured(
    recipe: recipes.Recipe, trained: Trained, examples: Examples, settings: TrainSettings
) -> tuple[list[tuple[str, Metric]], int]:
    """(model, metric) of the model, of logistic regression and of their difference; rows measured."""
    model = recipes.ready(recipe, trained)
    train, tune, test = (examples.rows(split) for split in ("train", "tune", "test"))
    labels, bootstrap = examples.labels[test], Bootstrap(settings.num_draws, settings.seed)
    scores = recipes.predict(recipe, trained.config, model, examples.encoded.take(test), trained.form.batch_size)
    name, inputs = plain_inputs(examples.encoded, trained.vocabulary)
    baseline = logistic(inputs, examples.labels, train, tune)[test]
    rows = [(recipe.name, metric) for metric in evaluate(labels, scores, bootstrap)]
    rows += [(name, metric) for metric in evaluate(labels, baseline, bootstrap)]
    rows += [(recipe.name, m) for m in differences(labels, scores, baseline, name, bootstrap)]
    return rows, len(test)


def plain_inputs(encoded: Encoded, vocabulary: Vocabulary | None) -> tuple[str, np.ndarray | csr_matrix]:
    """What the model is measured against: the name in gold.model_metric, and the inputs of logistic regression."""
    if vocabulary is None:
        return "logistic_pixels", pixel_inputs(encoded.pixels)
    return "logistic_counts", count_inputs(encoded.offsets, encoded.tokens, encoded.days_before, vocabulary.num_tokens)


def model_rows(run: job.Run, saved: checkpoints.Checkpoint) -> DataFrame:
    """The candidate's row of ops.model."""
    row = {
        "recipe": saved.recipe,
        "model_sha256": saved.sha256,
        "as_of": run.as_of,
        "status": "candidate",
        "effective_from": run.as_of,
        "sequence": 0,
        "path": f"models/{saved.folder}",
        "config": json.dumps(saved.config, sort_keys=True),
        "metrics": json.dumps(saved.metrics, sort_keys=True),
        "data": json.dumps(saved.data, sort_keys=True),
    }
    types = {"as_of": "date", "effective_from": "date", "sequence": "long"}
    return run.lake.spark.createDataFrame(
        [tuple(row.values())], ", ".join(f"{name} {types.get(name, 'string')}" for name in row)
    )


def metric_rows(run: job.Run, rows: list[tuple[str, Metric]], split: str, num_patients: int) -> DataFrame:
    """gold.model_metric (without run_id)."""
    found = [
        (run.as_of, run.options["recipe"], model, split, "all", m.name, m.value, m.low, m.high, num_patients)
        for model, m in rows
    ]
    columns = "as_of date, recipe string, model string, split string, subgroup string, metric string"
    return run.lake.spark.createDataFrame(found, f"{columns}, value double, low double, high double, num_patients long")


def training_folder(root: str, run_id: str) -> Path:
    """Where a killed training finds its state again: in the lake if that is local."""
    place = Path(tempfile.gettempdir()) / "medpipe-training" if "://" in root else Path(root) / "ops" / "training"
    return place / run_id


if __name__ == "__main__":
    sys.exit(main())
