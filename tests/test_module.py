import copy
import math
import os
import socket

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader

from bincount import config
from bincount.config import WATCHED
from bincount.errors import BadInput
from bincount.model.metrics import score
from bincount.model.module import CountModule
from bincount.model.objectives import build
from bincount.model.optimizers import (
    build_optimizer,
    build_scheduler,
    cosine_factor,
    rate_factor,
    restarts_factor,
)

pytestmark = [
    # lightning 2.6.6 under torch 2.15, in each fit
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
    # Lightning's advice on machines of many cores; the loaders here are lists
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]

SGD = config.SGD(name="sgd", scale="none", lr=0.1, weight_decay=0.01, momentum=0.9, nesterov=False)
ADAMW = config.AdamW(name="adamw", scale="none", lr=0.01, weight_decay=0.01, betas=[0.9, 0.99])
STEP = config.Step(name="step", every=2, gamma=0.1)
COSINE = config.Cosine(name="cosine", warmup=0.25, final=0.01)
RESTARTS = config.Restarts(name="restarts", first=1, multiply=2, final=0.1)
PLATEAU = config.Plateau(name="plateau", factor=0.5, patience=0, monitor="val/loss")
SIDE, CLASSES = 4, 6


def count_module(optimizer=SGD, scheduler=STEP):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 8), nn.LayerNorm(8), nn.Linear(8, CLASSES))
    return CountModule(model, build("cross_entropy", CLASSES, label_smoothing=0.1), optimizer, scheduler)


def make_batch(real, holes=0, seed=0):
    """A batch of `real` photos, then `holes` rows of weight 0 that hold garbage."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(real, 3, SIDE, SIDE, generator=generator)
    count = torch.randint(CLASSES, (real,), generator=generator)
    return {
        "pixels": torch.cat([pixels, torch.full((holes, 3, SIDE, SIDE), 1e3)]),
        "count": torch.cat([count, torch.full((holes,), -1)]),
        "weight": torch.tensor([1.0] * real + [0.0] * holes),
        "row": torch.arange(real + holes),
    }


def loader(batches):
    return DataLoader(batches, batch_size=None)


class Rates(L.Callback):
    """Keeps the learning rate and the loss of each step."""

    def __init__(self):
        self.rates, self.losses = [], []

    def on_train_batch_end(self, trainer, *_):
        self.rates.append(float(trainer.callback_metrics["train/lr"]))
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def fit(module, batches, validation=None, epochs=2, **options):
    rates = Rates()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[rates],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, loader(batches), loader(validation or [make_batch(2)]))
    return trainer, rates


@pytest.mark.parametrize("optimizer", [SGD, ADAMW])
@pytest.mark.parametrize("scheduler", [STEP, COSINE, RESTARTS, PLATEAU])
def test_it_learns_under_every_optimizer_and_scheduler(optimizer, scheduler):
    batches = [make_batch(16, seed=seed) for seed in range(4)]
    trainer, rates = fit(count_module(optimizer, scheduler), batches, batches[:1], epochs=4)
    assert rates.losses[-1] < rates.losses[0]
    assert set(WATCHED) < set(trainer.callback_metrics)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (STEP, [1, 1, 1, 1, 0.1, 0.1]),
        (COSINE, [0.5, 1, 1, 0.7525, 0.2575, 0.01]),
        (
            RESTARTS,
            [1, 0.55, 1, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 0.55, 0.1 + 0.9 * (1 - math.sqrt(0.5)) / 2],
        ),
    ],
)
def test_rates_over_three_epochs_of_two_steps(scheduler, expected):
    _, rates = fit(count_module(scheduler=scheduler), [make_batch(4), make_batch(4)], epochs=3)
    assert rates.rates == pytest.approx([SGD.lr * ratio for ratio in expected])


def test_steps_are_those_of_the_optimizer_when_gradients_accumulate():
    _, rates = fit(count_module(scheduler=RESTARTS), [make_batch(4)] * 3, epochs=2, accumulate_grad_batches=2)
    assert rates.rates == pytest.approx(
        [0.1, 0.1, 0.055, 0.1, 0.1, SGD.lr * (0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)]
    )


def test_plateau_lowers_the_rate_when_the_figure_no_longer_improves():
    validation = [make_batch(4)]
    scheduler = config.Plateau(name="plateau", factor=0.5, patience=0, monitor="val/accuracy")
    still = config.SGD(name="sgd", scale="none", lr=1e-6, weight_decay=0, momentum=0, nesterov=False)
    _, rates = fit(count_module(still, scheduler), [make_batch(4)], validation, epochs=4)
    assert rates.rates == pytest.approx([1e-6, 1e-6, 5e-7, 2.5e-7])


def test_holes_change_neither_loss_nor_gradients_nor_figures():
    def run(holes):
        module = count_module()
        trainer, rates = fit(module, [make_batch(5, holes)], [make_batch(7, holes, seed=1)], epochs=3)
        figures = {key: float(trainer.callback_metrics[key]) for key in WATCHED}
        return rates.losses, figures, module.state_dict()

    losses, figures, weights = run(holes=0)
    holed_losses, holed_figures, holed_weights = run(holes=3)
    assert holed_losses == pytest.approx(losses, rel=1e-6)
    assert holed_figures == pytest.approx(figures, rel=1e-6)
    for key, value in weights.items():
        torch.testing.assert_close(holed_weights[key], value)


def test_a_batch_without_any_real_photo_changes_nothing():
    still = config.SGD(name="sgd", scale="none", lr=0.1, weight_decay=0, momentum=0.9, nesterov=False)
    module = count_module(still)
    before = copy.deepcopy(module.state_dict())
    _, rates = fit(module, [make_batch(0, 4)], epochs=1)
    assert rates.losses == [0]
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_validation_logs_the_figures_of_score():
    module = count_module()
    validation = [make_batch(5, 2, seed=1), make_batch(3, 0, seed=2), make_batch(0, 2)]
    trainer, _ = fit(module, [make_batch(4)], validation)
    whole = {
        key: torch.cat([batch[key] for batch in validation[:2]]) for key in ("pixels", "count", "weight")
    }
    real = whole["weight"] > 0
    with torch.no_grad():
        posterior = module.posterior(whole["pixels"])[real]
        loss = module.objective(module(whole["pixels"])[real], whole["count"][real]).mean()
    told = score(whole["count"][real].numpy(), posterior.numpy())
    for key in ("accuracy", "rmse", "mae"):
        assert float(trainer.callback_metrics[f"val/{key}"]) == pytest.approx(told[key])
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(float(loss))


def test_a_run_that_diverged_is_seen_to():
    validation = make_batch(4)
    validation["pixels"][0] = math.nan
    trainer, _ = fit(count_module(), [make_batch(4)], [validation, make_batch(4)], num_sanity_val_steps=0)
    assert math.isnan(trainer.callback_metrics["val/loss"])


def test_training_without_an_end_is_refused():
    with pytest.raises(BadInput, match=r"set trainer\.max_epochs"):
        fit(count_module(), [make_batch(4)], epochs=-1)


# --- optimizers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [SGD, ADAMW])
def test_norms_and_biases_do_not_decay(settings):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    decaying, rest = build_optimizer(settings, model.parameters()).param_groups
    assert [p.shape for p in decaying["params"]] == [(2, 4)]
    assert decaying["weight_decay"] == 0.01
    assert [p.shape for p in rest["params"]] == [(4,), (4,), (2,)]
    assert rest["weight_decay"] == 0
    assert decaying["lr"] == rest["lr"] == settings.lr


def test_what_an_optimizer_refuses_is_told_in_one_line():
    nesterov = config.SGD(name="sgd", scale="none", lr=0.1, weight_decay=0, momentum=0, nesterov=True)
    with pytest.raises(BadInput, match="optimizer=sgd: Nesterov"):
        build_optimizer(nesterov, nn.Linear(1, 1).parameters())
    with pytest.raises(BadInput, match="nothing to train"):
        build_optimizer(SGD, nn.Linear(1, 1).requires_grad_(False).parameters())
    wrong = config.Optimizer(name="sdg", scale="none", lr=0.1, weight_decay=0)
    with pytest.raises(BadInput, match="did you mean sgd"):
        build_optimizer(wrong, nn.Linear(1, 1).parameters())


def test_an_unknown_scheduler_names_a_near_one():
    optimizer = build_optimizer(SGD, nn.Linear(1, 1).parameters())
    with pytest.raises(BadInput, match="did you mean cosine"):
        build_scheduler(config.Scheduler(name="cosin"), optimizer, 1, 1)


@given(st.integers(1, 300), st.floats(0, 0.99), st.floats(0, 1))
def test_cosine_rises_once_then_falls_to_its_end(total, warmup, final):
    warm = round(warmup * total)
    rates = [cosine_factor(step, warm, total, final) for step in range(total + 2)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[0] > 0
    assert all(np.diff(rates[:warm]) > 0)
    assert all(np.diff(rates[warm:]) <= 0)
    assert total - warm < 2 or rates[total - 1] == pytest.approx(final)
    assert warm == total or rates[warm] == 1


@given(st.integers(1, 20), st.integers(1, 3), st.floats(0, 0.9))
def test_restarts_begin_anew_after_each_length(first, multiply, final):
    rates = [restarts_factor(step, first, multiply, final) for step in range(80)]
    assert all(final <= rate <= 1 for rate in rates)
    starts, length = {0}, first
    while (start := max(starts) + length) < 80:
        starts.add(start)
        length *= multiply
    assert {step for step, rate in enumerate(rates) if rate == 1} == starts


# --- several ranks ------------------------------------------------------------------------------------


def rank_of_two(rank, port, folder):
    """One rank of DDP: the ranks hold unequal numbers of real photos, and in one step only one has any."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank),
        WORLD_SIZE="2", GROUP_RANK="0", LOCAL_WORLD_SIZE="2", TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    torch.set_num_threads(1)
    module = count_module()
    batches = [make_batch(5 - 3 * rank, 3 * rank, seed=rank), make_batch(4 * rank, 4 - 4 * rank, seed=2)]
    validation = [make_batch(3 + rank, 1 - rank, seed=3 + rank)]
    trainer, rates = fit(
        module,
        batches,
        validation,
        strategy="ddp",
        devices=2,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    told = {key: float(trainer.callback_metrics[key]) for key in WATCHED}
    torch.save({"weights": module.state_dict(), "losses": rates.losses, **told}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_weigh_every_real_photo_as_one_rank_does(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(rank_of_two, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))

    def joined(*batches):
        return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}

    module = count_module()
    batches = [joined(make_batch(5, 0, seed=0), make_batch(2, 3, seed=1)), make_batch(4, 0, seed=2)]
    validation = [joined(make_batch(3, 1, seed=3), make_batch(4, 0, seed=4))]
    trainer, rates = fit(module, batches, validation, num_sanity_val_steps=0)
    assert first["losses"] == second["losses"] == pytest.approx(rates.losses, rel=1e-5)
    for key in WATCHED:
        assert first[key] == second[key] == pytest.approx(float(trainer.callback_metrics[key]), rel=1e-5)
    for key, value in module.state_dict().items():
        torch.testing.assert_close(first["weights"][key], value)
        assert torch.equal(first["weights"][key], second["weights"][key])


@pytest.mark.parametrize(("rule", "factor"), [("none", 1), ("linear", 16), ("sqrt", 4)])
def test_the_rate_grows_with_the_ranks_as_the_rule_says(rule: str, factor: float):
    assert rate_factor(rule, 16) == factor
