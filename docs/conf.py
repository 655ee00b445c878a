"""What Sphinx builds the pages from: `make docs` puts them into build/docs."""

from __future__ import annotations

from fastlstm import __version__

project = "fastlstm"
author = "fastlstm developers"
copyright = "2026, fastlstm developers"  # noqa: A001
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx-mathjax-offline",  # formulas need no network, when built or when read
    "sphinx_copybutton",
]
exclude_patterns = ["_static"]

# Pages are Markdown that a code host shows, too: formulas between dollars and in fences.
myst_enable_extensions = ["dollarmath", "deflist"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

# `name` in a docstring is a link where it names something of ours, else code.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # np.float32, not <class "numpy.float32">
autodoc_typehints = "none"  # numpydoc sections say more: shapes, dtypes, ranges
autodoc_mock_imports = ["torch"]  # too large to install for the one class that derives from its own
numpydoc_show_class_members = False  # the pages of the reference list them

html_theme = "furo"
html_title = f"fastlstm {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sourcelink = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
