"""How Sphinx builds these pages: offline, and with every unknown reference an error (`sphinx-build -n -T -W`)."""

from __future__ import annotations

import trionats

project = "trionats"
copyright = "the trionats authors"
release = trionats.__version__
version = release

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
]
exclude_patterns = ["_build", "newsfragments/*"]
html_theme = "furo"
html_title = f"trionats {release}"
nitpicky = True
default_role = "any"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "inherited-members": False, "show-inheritance": False}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# The build needs no network: the inventories are copies, made as inventories/README.rst says.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.inv"),
    "trio": ("https://trio.readthedocs.io/en/stable", "inventories/trio.inv"),
}

nitpick_ignore_regex = [
    # nats-py and multidict publish no inventory that could be copied.
    (r"py:.*", r"nats(\..*)?"),
    (r"py:.*", r"multidict\..*"),
]
