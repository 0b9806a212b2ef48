"""Trains a generator of molecules and its discriminator: by likelihood first, then each against the other.

The discriminator estimates the ratio of real to generated molecules at a string, and the generator is drawn to its own
molecules by that ratio (an invalid one has none: no real molecule is invalid). Where it is exact, one step of weighted
likelihood leads to the real distribution, without the collapse onto few molecules that a reward brings.
Source: Che et al., Maximum-Likelihood Augmented Discrete GANs, arXiv 1702.07983, section 3.
"""

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel

from medpipe.errors import UsageError
from medpipe.models.gan import Discriminator, GanConfig, Generator, MoleculeGan
from medpipe.molecules.smiles import END, canonical, decode
from medpipe.train.examples import in_pools
from medpipe.train.loop import Fitted, reproducible
from medpipe.train.settings import GanSettings

WARM_UP_STEPS = 200
# Targets of the discriminator: never quite sure (Salimans et al., NeurIPS 2016, section 3.4).
REAL, DRAWN = 0.95, 0.05
# The discriminator also sees molecules of so many rounds before, so that it does not forget them.
ROUNDS_KEPT = 8


def fit_gan(config: dict, tokens: Tensor, settings: GanSettings, told: Callable[[str, dict], None]) -> Fitted:
    """The same molecules, config and settings give the same bits on one machine.

    Args:
        config: as GanConfig.
        tokens: int64 (N, T) of the molecules in an order that no file decides; END, then padding.
        told: is given the name of each epoch and of every tenth round, and its figures.
    Raises:
        UsageError: NO_VALID_MOLECULE where likelihood alone has taught the generator too little.
    """
    with reproducible(settings.num_threads):
        torch.manual_seed(settings.seed)
        gan = MoleculeGan(GanConfig(**config))
        loss = _by_likelihood(gan.generator, tokens, settings, told)
        figures = _against_each_other(gan, config, tokens, settings, told)
    return Fitted(gan.state_dict(), {"train_log_loss": loss} | figures, ())


def _by_likelihood(
    generator: Generator, tokens: Tensor, settings: GanSettings, told: Callable[[str, dict], None]
) -> float:
    """Negative log-likelihood of a molecule in the last epoch; the generator's weights become their moving average."""
    lengths = (tokens != 0).sum(dim=1).numpy()
    num_steps = settings.num_epochs * -(-len(tokens) // settings.batch_size)
    optimiser = torch.optim.Adam(generator.parameters(), settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share(step, num_steps))
    average, loss = _average(generator, settings.decay), 0.0
    for epoch in range(settings.num_epochs):
        losses = []
        random = np.random.default_rng([settings.seed, epoch])
        order = random.permutation(len(tokens))
        for rows in in_pools(order, lengths, settings.batch_size, random):
            # A mean over molecules: one over tokens would give the long ones of a batch less weight.
            loss = -generator.log_probability(tokens[rows, : lengths[rows].max()]).mean()
            _step(generator, optimiser, loss, settings.max_norm)
            schedule.step()
            average.update_parameters(generator)
            losses.append(loss.item())
        loss = float(np.mean(losses))
        told("epoch", {"epoch": epoch + 1, "loss": round(loss, 3)})
    generator.load_state_dict(average.module.state_dict())
    return loss


def _against_each_other(
    gan: MoleculeGan, config: dict, tokens: Tensor, settings: GanSettings, told: Callable[[str, dict], None]
) -> dict:
    """Figures of the last round; the generator's weights become their moving average."""
    generator, discriminator = gan.generator, gan.discriminator
    generating = torch.optim.Adam(generator.parameters(), settings.rate_against, betas=(0.9, 0.99))
    judging = torch.optim.AdamW(discriminator.parameters(), settings.discriminator_rate, (0.5, 0.99), weight_decay=0.01)
    average, kept, figures = _average(generator, 0.98), deque(maxlen=ROUNDS_KEPT), {}
    real, more_real = (_endless(tokens, settings, salt) for salt in (1, 2))
    for number in range(settings.num_rounds):
        drawn, is_valid = _draw(generator, config, settings.round_size)
        figures = _figures(discriminator, next(more_real), drawn, is_valid)
        kept.append(drawn)
        for judged in (drawn, *(kept[torch.randint(len(kept), ())] for _ in range(3))):
            _judge(discriminator, judging, next(real), judged)
        if number >= settings.warm_up:
            _generate(gan, generating, drawn, is_valid, next(real), settings)
            average.update_parameters(generator)
        if number % 10 == 9:
            told("round", {"round": number + 1} | figures)
    if settings.num_rounds > settings.warm_up:
        generator.load_state_dict(average.module.state_dict())
    return figures


@torch.no_grad()
def _draw(generator: Generator, config: dict, num_molecules: int) -> tuple[Tensor, Tensor]:
    """Finished molecules int64 (N, T), N <= num_molecules, and whether RDKit takes them, bool (N,).

    Raises:
        UsageError: NO_VALID_MOLECULE.
    """
    tokens = generator.sample(torch.rand(num_molecules, config["max_tokens"]))
    tokens = tokens[(tokens == END).any(dim=1)]
    texts = decode(config["tokens"], tokens.numpy())
    is_valid = torch.tensor([canonical(text) is not None for text in texts], dtype=torch.bool)
    if not is_valid.any():
        raise UsageError(
            "NO_VALID_MOLECULE", f"of {num_molecules} generated molecules none is valid; raise gan.num_epochs"
        )
    return tokens, is_valid


def _judge(discriminator: Discriminator, optimiser: torch.optim.Optimizer, real: Tensor, drawn: Tensor) -> None:
    discriminator.train()
    on_real, on_drawn = discriminator(real), discriminator(drawn)
    loss = binary_cross_entropy_with_logits(on_real, torch.full_like(on_real, REAL))
    loss = loss + binary_cross_entropy_with_logits(on_drawn, torch.full_like(on_drawn, DRAWN))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _generate(
    gan: MoleculeGan,
    optimiser: torch.optim.Optimizer,
    drawn: Tensor,
    is_valid: Tensor,
    real: Tensor,
    settings: GanSettings,
) -> None:
    """One step towards the drawn molecules that are likelier real than the others, and towards real ones."""
    gan.discriminator.eval()
    with torch.no_grad():
        weights = advantage(gan.discriminator(drawn), is_valid, settings.max_logit)
    loss = -(weights * gan.generator.log_probability(drawn)).mean()
    loss = loss - settings.likelihood_weight * gan.generator.log_probability(real).mean()
    _step(gan.generator, optimiser, loss, settings.max_norm)


def advantage(logits: Tensor, is_valid: Tensor, max_logit: float) -> Tensor:
    """How much likelier a drawn molecule is to be real than the others, float32 (N,), mean 0; -1 for what is none.

    Args:
        logits: of the discriminator (N,). is_valid: bool (N,), true for at least one.
    """
    ratio = logits.clamp(-max_logit, max_logit).exp() * is_valid
    return ratio / ratio.mean() - 1


@torch.no_grad()
def _figures(discriminator: Discriminator, real: Tensor, drawn: Tensor, is_valid: Tensor) -> dict:
    """Valid share of the drawn, and how well the discriminator tells molecules it was not trained on (AUROC)."""
    discriminator.eval()
    logits = torch.cat([discriminator(real), discriminator(drawn)])
    is_real = torch.cat([torch.ones(len(real)), torch.zeros(len(drawn))])
    return {
        "valid": round(float(is_valid.float().mean()), 4),
        "discriminator_auroc": round(float(roc_auc_score(is_real, logits)), 4),
    }


def _endless(tokens: Tensor, settings: GanSettings, salt: int) -> Iterator[Tensor]:
    """Real molecules int64 (round_size, T), drawn anew each time."""
    random = np.random.default_rng([settings.seed, settings.num_epochs, salt])
    size = min(settings.round_size, len(tokens))
    while True:
        yield tokens[random.choice(len(tokens), size, replace=False)]


def _average(model: nn.Module, decay: float) -> AveragedModel:
    """Moving average of the weights; of few steps it covers the later half only."""

    def moved(average: Tensor, new: Tensor, num_steps: Tensor) -> Tensor:
        return torch.lerp(new, average, min(decay, (1 + int(num_steps)) / (10 + int(num_steps))))

    return AveragedModel(model, avg_fn=moved)


def _step(model: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, max_norm: float) -> None:
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimiser.step()


def _share(step: int, num_steps: int) -> float:
    """Of the learning rate: up over WARM_UP_STEPS, then down along half a cosine to a fiftieth."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm * (0.02 + 0.98 * (1 + np.cos(np.pi * min(1.0, step / num_steps))) / 2)
