"""How the documentation is built: ``sphinx-build -W --keep-going docs docs/_build``.

Nothing is fetched: no inventories of other projects, no fonts, no scripts of others. What the
reference says is read from the sources at each build, by autodoc and by the extensions beside
this file.
"""

import logging
import os
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

_DOCS = Path(__file__).parent
sys.path[:0] = [str(_DOCS / "extensions")]
# What the command line shows as a default must not come from whoever builds.
for _name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
    del os.environ[_name]
# Before a package of the theme's has all be logged that the reference's node and catalog do.
logging.basicConfig(level=logging.WARNING)

project = "Penstock"
author = "The Penstock authors"
copyright = author  # noqa: A001 - Sphinx's name
version = release = installed_version("penstock")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "command_line",
    "configuration",
    "docstrings",
    "metrics",
    "protos",
]
exclude_patterns = ["_build", "extensions"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
highlight_language = "none"
smartquotes = False  # Options have two dashes.
# `Name` in a docstring is a link where it is part of this documentation, else plain code.
default_role = "py:obj"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

nitpicky = True
# Signatures name types of others, and of ours that no caller makes. That every public name is here
# is a test of its own.
nitpick_ignore_regex = [("py:.*", r".*")]

html_theme = "furo"
html_title = f"Penstock {version}"
html_static_path = ["static"]
html_css_files = ["penstock.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}


_OUTSIDE = re.compile(
    r"\[([^]]+)\]\((?:\.\./)+((?:bench|cachenode|client|examples|proto|tests)/[^)]+)\)"
)


def _prepare(_app: Sphinx, name: str, source: list[str]) -> None:
    """Change what a page says where Sphinx and whoever reads the repository need other words."""
    # What is no page of this documentation is named, since there is nothing to lead to.
    source[0] = _OUTSIDE.sub(r"\1 (`\2`)", source[0])
    if name == "decisions/README":  # Below its own table, which is written by hand.
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n:titlesonly:\n\n0*\n```\n"


def setup(app: Sphinx) -> None:
    """Register what is above."""
    app.connect("source-read", _prepare)
