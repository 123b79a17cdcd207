"""Learning from collages first, beside what else a run can be asked for."""

from pathlib import Path

import pytest
import torch

from bincount import compose, run, train


@pytest.mark.slow
def test_a_frozen_body_learns_from_the_collages_and_no_more(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "_evaluate", lambda *_: None)
    words = [f"data.root={small_data}", f"runs={tmp_path}", "model=resnet18", "data.image_size=32"]
    words += ["model.freeze=true", "data.batch_size=16", "data.workers=0", "trainer.max_epochs=1"]
    words += ["pretrain.epochs=1", "pretrain.photos=40"]
    folder = train.train(compose.typed("train", compose.compose("train", words)))
    first, then = (
        torch.load(path / run.LAST, weights_only=True, map_location="cpu")["state_dict"]
        for path in (folder / run.PRETRAINING, folder)
    )
    body = [name for name in first if not name.startswith("model.fc.")]
    assert int(first["model.bn1.num_batches_tracked"]) > 0  # it was in training mode
    assert all(torch.equal(first[name], then[name]) for name in body)
    assert not torch.equal(first["model.fc.weight"], then["model.fc.weight"])
