"""A run as one file: its graph written, opened again, and held against the run."""
