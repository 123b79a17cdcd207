"""Engines that make the tables of records elsewhere than in this process: Spark and Athena.

`spark` is a script by itself, which knows nothing of the rest; `athena` is SQL, and sends nothing.
"""
