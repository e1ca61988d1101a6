"""How Sphinx builds these pages: offline, and with every unknown reference an error (`sphinx-build -n -T -W`)."""

from __future__ import annotations

import ast
import inspect
import sys
from typing import TYPE_CHECKING, Any

import trionats
import trionats.testing

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

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
default_role = "py:obj"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
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
    # The copied inventory of Python knows it by another role.
    (r"py:class", r"types\.EllipsisType"),
    (r"py:class", r"NATS|JetStreamContext\..*|KeyValue\..*"),
    # Private names in public signatures: type variables and aliases.
    (r"py:class", r"AnyObjectInfo|AnyObjectMeta|Api|NatsPyConnection|ObjectData|OnRecreate|Opening|Overflow|Progress"),
    (r"py:.*", r"trionats\.(monitoring\.)?_.*"),
    (r"py:.*", r"(trionats\.errors\.)?[TREP]"),
]


def import_what_type_checkers_see() -> None:
    """Run the `if TYPE_CHECKING:` blocks of the package, so that autodoc can resolve what annotations name.

    Afterwards and not at import, because what stands in them may be circular.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "trionats":
            continue
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                block = ast.Module(node.body, type_ignores=[])
                exec(compile(block, str(module.__file__), "exec"), vars(module))


def plain_text_for_what_is_no_name(app: Sphinx, env: object, node: Any, contnode: nodes.Node) -> nodes.Node | None:  # noqa: ANN401
    """Let single backticks link where they name something, and else show what stands in them.

    What begins with a package's name is meant as a link, and an error if there is nothing.
    """
    target = node.get("reftarget", "")
    meant = target.partition(".")[0] in {"trionats", "trio"} and target.replace(".", "").isidentifier()
    return contnode if node.get("reftype") == "obj" and not meant else None


def readable_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show `open_x(...)` with what its block gives, not with the generator it is made of, and defaults that parse."""
    if signature and what == "exception" and str(getattr(obj, "__module__", "")).startswith("nats."):
        return "()", None  # what they take names classes that are not here
    if getattr(obj, "__returns_acontextmanager__", False) and returns and "[" in returns:
        returns = returns.partition("[")[2].removesuffix("]")
    return signature and signature.replace("<factory>", "..."), returns


def summary_of_what_is_borrowed(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Keep the first line of nats-py's docstrings, if it is not the signature that dataclasses make one of."""
    if str(getattr(obj, "__module__", "")).startswith("nats."):
        del lines[0 if lines and "(" in lines[0].partition(" ")[0] else 1 :]


def no_type_before_a_colon(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keep napoleon from taking what stands before a colon in a property's first line for its type."""
    if what in {"attribute", "property"}:
        lines[:0] = ["..", ""]  # an empty comment


def without_borrowed_methods(
    app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object
) -> bool | None:
    """Leave out what nats-py's classes inherit or define: the class is named, its pages are nats-py's."""
    is_function = inspect.isfunction(obj) or inspect.ismethod(obj)
    return True if is_function and str(obj.__module__).startswith("nats.") else None


def setup(app: Sphinx) -> None:
    import_what_type_checkers_see()
    app.connect("missing-reference", plain_text_for_what_is_no_name, priority=900)
    app.connect("autodoc-process-docstring", no_type_before_a_colon, priority=400)
    app.connect("autodoc-process-docstring", summary_of_what_is_borrowed)
    app.connect("autodoc-skip-member", without_borrowed_methods)
    app.connect("autodoc-process-signature", readable_signature)
