"""The command line: one file per group of verbs."""

from penstock.cli.app import main

__all__ = ["main"]
