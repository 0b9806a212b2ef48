"""The form in which a model scores soonest on one core, chosen once, when the model is registered."""

import time
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from medpipe.recipes import Form, Recipe, Trained, predict, ready
from medpipe.stream.batches import Encoded

# A score in another form may differ from the trained model's by so much.
MAX_DIFFERENCE = 1e-5
# A smaller gain is noise: the recipe's own form stays.
MIN_GAIN = 0.1
REPEATS = 3


def choose(recipe: Recipe, trained: Trained, encoded: Encoded) -> Form:
    """The fastest of the recipe's forms and batch sizes for these rows that gives the trained model's scores.

    Seconds of CPU are compared, which other work on the machine disturbs little.

    Args:
        encoded: a thousand rows are enough; how long they are decides.
    Cost: scores the rows once per form, batch size and repeat.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a task
    try:
        models = {name: ready(recipe, replace(trained, form=Form(name, 1))) for name in recipe.forms}
        scores = {
            name: predict(recipe, trained.config, m, encoded, recipe.form.batch_size) for name, m in models.items()
        }
        differences = {name: np.abs(found - scores["eager"]).max(initial=0) for name, found in scores.items()}
        fit = [name for name, most in differences.items() if name == "eager" or most <= MAX_DIFFERENCE]
        forms = [Form(name, batch_size) for name in fit for batch_size in recipe.batch_sizes]
        seconds = {form: _seconds(recipe, trained.config, models[form.name], encoded, form) for form in forms}
    finally:
        torch.set_num_threads(num_threads)
    best = min(seconds, key=seconds.get)
    return best if seconds[best] < (1 - MIN_GAIN) * seconds[recipe.form] else recipe.form


def _seconds(recipe: Recipe, config: dict, model: nn.Module, encoded: Encoded, form: Form) -> float:
    found = []
    for _ in range(REPEATS):
        started = time.process_time()
        predict(recipe, config, model, encoded, form.batch_size)
        found.append(time.process_time() - started)
    return min(found)
