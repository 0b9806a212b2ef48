"""Train a candidate of a generator of molecules on gold.molecule of --as-of, measure what it makes, register it."""

import json
import sys
from dataclasses import asdict

from medpipe import checkpoints, job, log, recipes
from medpipe.evaluate.classification import Metric
from medpipe.evaluate.generation import generation
from medpipe.jobs.train_model import SHARD_ROWS, metric_rows, model_rows
from medpipe.models.gan import GanConfig
from medpipe.molecules.smiles import learn
from medpipe.recipes import Trained
from medpipe.stream.noise import draw, noise_file
from medpipe.stream.shards import plan
from medpipe.train.gan_loop import fit_gan
from medpipe.train.molecules import padded, read_molecules
from medpipe.train.settings import GanSettings

RECIPE = job.Option("recipe", "model recipe", "molecule_gan", ("molecule_gan",))
# Unlike the noise of the molecules that are published.
SEED_MEASURED = 2**40


@job.step(
    reads={"gold.molecule": {}},
    writes=("ops.model", "gold.model_metric"),
    settings=("gan",),
    options=(RECIPE,),
)
def main(run: job.Run) -> None:
    lake, recipe, settings = run.lake, recipes.named(run.options["recipe"]), run.settings.gan
    snapshot = lake.shards("gold.molecule", {"as_of": run.as_of}, ["molecule_id", "smiles", "split"])
    smiles = read_molecules(plan(snapshot.files, SHARD_ROWS), settings.max_molecules)
    tokens = learn(smiles, settings.num_merges)
    rows = padded(tokens, smiles)
    config = asdict(GanConfig(tokens.texts, rows.shape[1], hidden_dim=settings.hidden_dim))
    fitted = fit_gan(config, rows, settings, told)
    trained = Trained(recipe.name, config, fitted.weights, None, recipe.form)
    figures = generation(made(recipe, trained, settings), smiles)
    data = {"gold.molecule": snapshot.version}
    saved = checkpoints.save(f"{lake.root}/models", trained, asdict(settings), fitted.metrics | figures, data)
    lake.append(model_rows(run, saved), "ops.model")
    measured = [(recipe.name, Metric(name, value, None, None)) for name, value in figures.items()]
    rows = metric_rows(run, measured, "generated", settings.num_measured)
    lake.replace(rows, "gold.model_metric", where=run.partition)


def made(recipe: recipes.Recipe, trained: Trained, settings: GanSettings) -> list[str | None]:
    """Molecules as scoring would make them; None for what is none."""
    model = recipes.ready(recipe, trained)
    file = noise_file(SEED_MEASURED + settings.seed, settings.num_measured, recipe.batch_rows)
    found: list[str | None] = []
    for batch in draw(file.url, range(len(file.row_group_rows)), recipe.columns, recipe.batch_rows):
        outputs = recipes.predict(recipe, trained.config, model, recipe.read(batch, None), trained.form.batch_size)
        results = recipe.results(outputs, trained.config)
        pairs = zip(results["smiles"].to_pylist(), results["is_valid"].to_pylist(), strict=True)
        found += [smiles if is_valid else None for smiles, is_valid in pairs]
    return found


def told(step: str, figures: dict) -> None:
    """Says how far the training is: it takes long."""
    log.logger.info(f"{step} done", extra={"detail": json.dumps(figures)})


if __name__ == "__main__":
    sys.exit(main())
