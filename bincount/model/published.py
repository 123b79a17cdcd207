"""Figures that others published for counting 0 to 5 items in ABID photos, to set our own results beside.

All of them are published on another split than ours (often one drawn photo by photo, so that pictures of
the same bin fall on both sides), and on other numbers of photos. They tell the order of magnitude to expect
and prove nothing about which of two models is better.
"""

from dataclasses import dataclass

ANOTHER_SPLIT = "published on another split"


@dataclass(frozen=True)
class Published:
    """One published result.

    `accuracy` and `count_accuracy` are shares (0 to 1) of photos, `rmse` and `count_rmse` are in items;
    the last two have one figure for each count 0, 1, ... and are empty where nothing was published.
    """

    name: str
    accuracy: float
    source: str
    rmse: float | None = None
    count_accuracy: tuple[float, ...] = ()
    count_rmse: tuple[float, ...] = ()
    note: str = ANOTHER_SPLIT


_SGD = "github.com/silverbottlep/abid_challenge (E. Park)"
_SGDR = "github.com/pablo-tech/Image-Inventory-Reconciliation-with-SVM-and-CNN (Stanford CS229, 2018)"
_CAPSTONE = "quoted in a capstone of the AWS machine learning engineer course (github.com/nov05)"
_COURSE = "notebook of an AWS machine learning course"
_FINE_TUNED = "github.com/tho121/aws_capstone"
_ONE_TO_FIVE = "published on another split, of photos with 1 to 5 items"

PUBLISHED = (
    Published("random", 0.2008, _CAPSTONE),
    Published("commonest count", 0.2227, _CAPSTONE),
    Published(
        "ResNet50, frozen",
        0.31,
        _COURSE,
        rmse=1.96,
        count_accuracy=(0.7474, 0.2866, 0.7082, 0.2318, 0.2012, 0.1908),
        count_rmse=(1.08, 0.99, 1.47, 1.53, 1.85, 2.13),
    ),
    Published("ViT-B/16, fine-tuned", 0.515, _FINE_TUNED, note=_ONE_TO_FIVE),
    Published("ResNet34, fine-tuned", 0.53, _FINE_TUNED, note=_ONE_TO_FIVE),
    Published("ResNet34, SGDR", 0.538, _SGDR, rmse=0.94),
    Published(
        "ResNet34, SGD",
        0.5567,
        _SGD,
        rmse=0.930,
        count_accuracy=(0.977, 0.834, 0.672, 0.549, 0.426, 0.449),
        count_rmse=(0.187, 0.542, 0.710, 0.867, 1.025, 1.311),
    ),
)
