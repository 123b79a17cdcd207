"""`bincount predict`: new photos become a CSV of counts."""

import csv
import io

from bincount import progress, storage
from bincount.config import PredictConfig
from bincount.counting import counted
from bincount.data.found import find_photos
from bincount.data.index import probability_columns
from bincount.data.skipped import Skipped, as_csv
from bincount.errors import BadInput
from bincount.exporting.opening import open_counter
from bincount.model.decoding import decode


def predict(config: PredictConfig) -> None:
    """Count every photo that can be read into ``config.out``; list the others beside it, with the reason."""
    found = find_photos(config.photos)
    counter = open_counter(config.run, config.runs, config.decode)
    out = storage.folder(config.out)
    skipped: list[Skipped] = []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "count", *probability_columns(counter.counts.names)])
    rows = 0
    photos = progress.track(found, "counting photos", len(found))
    for chunk, probabilities in counted(counter, photos, config.batch_size, skipped):
        for photo, count, shares in zip(
            chunk, decode(probabilities, counter.decoding).tolist(), probabilities.tolist(), strict=True
        ):
            writer.writerow([photo.id, counter.counts.names[count], *(f"{share:.6f}" for share in shares)])
            rows += 1
    left_out = out.with_name(f"{out.stem}.skipped.csv")
    if skipped:
        storage.Folder(left_out.parent).write(left_out.name, as_csv(skipped))
    else:
        left_out.unlink(missing_ok=True)
    if not rows:
        raise BadInput(
            f"none of the {len(found)} photos could be read, the first because: {skipped[0].reason}"
        )
    storage.write_text(out, text.getvalue())
    progress.out.print(f"counted {rows:,} photos into {out}", soft_wrap=True)
    if skipped:
        progress.out.print(
            f"{len(skipped):,} could not be read, each with its reason in {left_out}",
            soft_wrap=True,
        )
