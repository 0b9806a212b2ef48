"""The real chest X-rays of PneumoniaMNIST, 28 x 28: trained on, promoted, and the validation images scored."""

import hashlib
from datetime import date

import numpy as np
import pytest
from pyspark.sql import functions as F
from sklearn.metrics import roc_auc_score

from medpipe import job, ledger, settings
from medpipe.jobs import promote_model, score_population, train_model
from medpipe.tables import Lake

AS_OF = date(2026, 1, 31)
COLUMNS = "image_id string, split string, label int, height int, width int, pixels binary"


def rows(pixels, labels, prefix, split=None):
    """Rows of gold.image; without a split, one in six is for tuning, by hash."""
    found = []
    for i, (image, (label,)) in enumerate(zip(pixels, labels, strict=True)):
        name = f"{prefix}{i}"
        drawn = "tune" if hashlib.sha256(name.encode()).digest()[0] % 6 == 0 else "train"
        found.append((name, split or drawn, int(label), *image.shape, image.tobytes()))
    return found


@pytest.fixture(scope="module")
def scored(spark, shared_data, tmp_path_factory):
    """The workplace after training, promotion and scoring, and the truth: image_id -> label."""
    images = np.load(shared_data / "img_pneumoniamnist" / "pneumoniamnist_train_val.npz")
    held_out = rows(images["val_images"], images["val_labels"], "v", "test")
    learned = rows(images["train_images"], images["train_labels"], "t")
    root = str(tmp_path_factory.mktemp("xray") / "lake")
    given = {
        "lake": root,
        "train": {"max_epochs": 3, "batch_size": 64, "num_draws": 20, "num_threads": 2},
        "score": {"shard_rows": 150},
    }
    configured = settings.load(None, given)
    lake = Lake(spark, configured.lake, configured.phi_root)
    for role, found in (("fit", learned + held_out), ("apply", held_out)):
        frame = spark.createDataFrame(found, COLUMNS).repartition(4, "image_id")
        frame = frame.withColumns({"as_of": F.lit(AS_OF), "role": F.lit(role)})
        lake.for_run("images").replace(frame, "gold.image", where={"as_of": AS_OF, "role": role})
    work = job.Workplace(lake, configured, AS_OF, ledger.Ledger.open(lake))
    for step in (train_model.main, promote_model.main, score_population.main):
        work.run(step, recipe="xray_cnn")
    return work, {row[0]: row[2] for row in held_out}


def test_the_model_finds_pneumonia_on_images_it_has_not_seen(scored):
    work, labels = scored
    found = {r.image_id: r.score for r in work.lake.for_run("").read("gold.image_score", AS_OF).collect()}
    assert found.keys() == labels.keys() and len(found) == 524
    assert roc_auc_score([labels[name] for name in found], list(found.values())) >= 0.95


def test_its_figures_stand_beside_logistic_regression_on_the_pixels(scored):
    work, _ = scored
    rows = work.lake.for_run("").read("gold.model_metric", AS_OF, {"recipe": "xray_cnn"}).where("metric = 'auroc'")
    values = {row.model: row.value for row in rows.collect()}
    assert values["xray_cnn"] >= max(0.95, values["logistic_pixels"])


def test_an_image_that_is_cut_is_told_and_the_others_are_scored(scored, spark):
    work, labels = scored
    lake, first = work.lake, min(labels)
    before = {r.image_id: r.score for r in lake.for_run("").read("gold.image_score", AS_OF).collect()}
    images = lake.for_run("").read("gold.image", AS_OF, {"role": "apply"}).drop("run_id")
    cut = F.when(F.col("image_id") == first, F.expr("substring(pixels, 1, 700)")).otherwise(F.col("pixels"))
    lake.for_run("cut").replace(images.withColumn("pixels", cut), "gold.image", where={"as_of": AS_OF, "role": "apply"})
    again = settings.load(None, {"lake": lake.root, "score": {"shard_rows": 151}})
    job.Workplace(lake, again, AS_OF, ledger.Ledger.open(lake)).run(score_population.main, recipe="xray_cnn")
    (error,) = lake.for_run("").read("gold.score_error", AS_OF).collect()
    assert (error.row_id, error.code) == (first, "TRUNCATED")
    after = {r.image_id: r.score for r in lake.for_run("").read("gold.image_score", AS_OF).collect()}
    assert after == pytest.approx({name: score for name, score in before.items() if name != first}, abs=1e-6)
