"""Where photos, records and labels come from: folders, or a bucket laid out as ABID's is."""

from collections.abc import Sequence
from dataclasses import dataclass

from bincount import storage
from bincount.config import FolderSource, PhotoSource, S3Source
from bincount.data import images
from bincount.data.labels import Label, read_labels
from bincount.data.skipped import Skipped
from bincount.errors import BadInput
from bincount.storage import Folder, Store


@dataclass(frozen=True)
class Origin:
    """What there is to read.

    ``listed``: the labels alone tell which photos and records are asked for. ``counts_from``: the key that
    tells where the counts come from, with its value.
    """

    photos: Store | None
    records: Store | None
    labels: Sequence[Label] | None
    labels_left_out: Sequence[Skipped]
    listed: bool
    counts_from: str

    def photo_names(self, *, deep: bool = False) -> list[str]:
        """Names of the photos, in order. Raises BadInput where there is none."""
        assert self.photos is not None
        if self.listed:
            return sorted(f"{label.id}.jpg" for label in self.labels or [])
        names = [name for name in self.photos.names(deep=deep) if name.lower().endswith(images.SUFFIXES)]
        if not names and not deep:
            where = self.photos.address
            raise BadInput(f"source.images={where}: there are no photos in it (.jpg, .jpeg or .png)")
        return names

    def record_names(self) -> list[str]:
        """Names of the records, in order. Raises BadInput where there is none."""
        assert self.records is not None
        if self.listed:
            return sorted(f"{label.id}.json" for label in self.labels or [])
        names = [name for name in self.records.names() if name.lower().endswith(".json")]
        if not names:
            raise BadInput(f"source.metadata={self.records.address}: there are no records in it (ID.json)")
        return names


def open_origin(source: PhotoSource) -> Origin:
    """Open what ``source`` names, and read its labels. Raises BadInput for a folder that is not there."""
    if isinstance(source, S3Source):
        bucket = _open(source.bucket, "source.bucket", source.anonymous)
        photos = None if source.images is None else bucket.below(source.images)
        records = None if source.metadata is None else bucket.below(source.metadata)
        key, address = "list", source.list
    else:
        assert isinstance(source, FolderSource)
        photos = None if source.images is None else _open(source.images, "source.images")
        records = None if source.metadata is None else _open(source.metadata, "source.metadata")
        key, address = "labels", source.labels
    if photos is None and records is None:
        raise BadInput("there is nothing to prepare: give source.images=…, source.metadata=…, or both")
    labels, left_out = (None, []) if address is None else read_labels(address)
    counts_from = f"source.{key}={address}" if address else f"source.metadata={records and records.address}"
    listed = isinstance(source, S3Source) and address is not None
    return Origin(photos, records, labels, left_out, listed, counts_from)


def _open(address: str, what: str, anonymous: bool = False) -> Store:
    store = storage.open_store(address, anonymous=anonymous)
    if isinstance(store, Folder):
        storage.existing_folder(address, what)
    return store
