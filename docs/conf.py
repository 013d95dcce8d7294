# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Sphinx's configuration: ``make docs`` builds the site from ``docs``, the bundles' pages and the notebooks, in place.

The source folder is the root of the repository, so that no page has to be copied; this folder holds the configuration.
"""

from __future__ import annotations

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

import monai_armed

project = "monai_armed"
author = copyright = "the monai_armed authors"
release = version = monai_armed.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "bundles/*/docs/README.md",
    "benchmarks/README.md",
    "benchmarks/real_data/README.md",
    "benchmarks/real_images/README.md",
    "benchmarks/left_out_sites/README.md",
    "tutorials/*.ipynb",
    "CONTRIBUTING.md",
    "SECURITY.md",
]
exclude_patterns = ["docs/_build", "tutorials/output", "**/.ipynb_checkpoints"]
# Notebooks may be missing, and may call commands ("!"); that the pages' own links lead somewhere is tested.
suppress_warnings = ["toc.empty_glob", "myst.xref_missing", "misc.highlighting_failure"]

html_theme = "furo"
html_title = "monai_armed"
html_extra_path = ["index.html"]  # leads from the root of the site to its first page
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"  # drawn by the browser itself, so that the pages work offline

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests run the notebooks; the pages show what was kept in them

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autoclass_content = "class"
maximum_signature_line_length = 90
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False


def _inline_math(translator, node: nodes.math) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block_math(translator, node: nodes.math_block) -> None:
    translator.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def _shapes(app, what, name, obj, options, lines: list[str]) -> None:
    """Shapes such as (B, *spatial) are no emphasis."""
    lines[:] = [re.sub(r"(?<=[ (])\*(?=[a-z_]+[,)])", r"\\*", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Let equations be MathML, and shapes be read as they stand."""
    app.connect("autodoc-process-docstring", _shapes)
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
