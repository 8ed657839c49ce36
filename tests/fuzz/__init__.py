"""Mutated input files: each gives a result or an AtrousError, in bounded time and memory; never anything else."""
