"""The pages that people look at: of a run with its model card, of scored predictions, of several runs."""

from bincount.report.pages import write, write_comparison, write_scored

__all__ = ["write", "write_comparison", "write_scored"]
