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
"""The page of an audit: one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd

__all__ = ["report_page"]

# What a browser may do with the page: show it. Nothing is fetched, nothing is sent.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem; }
.verdict { padding: .8rem 1rem; border-left: 6px solid #2a8a4a; background: #f2f7f3; }
.verdict.reads { border-color: #d9822b; background: #fdf5ec; } .verdict p { margin: .3rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
td.text, th.text { text-align: left; } th button { font: inherit; font-weight: 600; border: 0; background: none;
padding: 0; cursor: pointer; } th button::after { content: " \\2195"; color: #999; }
th[aria-sort=ascending] button::after { content: " \\2191"; } th[aria-sort=descending] button::after
{ content: " \\2193"; } svg { max-width: 100%; height: auto; } .note { color: #555; font-size: 13px; }
"""
SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0];
  const column = [...head.parentElement.children].indexOf(head), up = head.ariaSort !== "ascending";
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compare = (a, b) => { const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");  // what is not known comes last, either way
    return (up ? 1 : -1) * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y); };
  body.append(...[...body.rows].sort(compare));
};
"""


def report_page(
    title: str,
    verdict: list[str],
    warns: bool,
    sections: list[tuple[str, str, str, pd.DataFrame]],
    figures: Mapping[str, str],
    facts: Mapping[str, Any],
) -> str:
    """
    Args:
        title: heading.
        verdict: sentences above all else.
        warns: whether they warn.
        sections: name, heading, explanation and table of each part.
        figures: SVG by the name of the part that it stands in.
        facts: what was read, with what.

    Returns:
        HTML; text of the data is escaped, figures are put in as they are.
    """
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in verdict)
    parts = [
        f"<h2>{escape(heading)}</h2><p class=note>{escape(text)}</p>{figures.get(name, '')}{_table(table)}"
        for name, heading, text, table in sections
    ]
    listed = pd.DataFrame({"what": list(facts), "value": [str(value) for value in facts.values()]})
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f'<h1>{escape(title)}</h1><div class="verdict{" reads" if warns else ""}">{said}</div>{"".join(parts)}'
        f"<h2>What was read</h2>{_table(listed)}<script>{SCRIPT}</script></body></html>\n"
    )


def _table(table: pd.DataFrame) -> str:
    text = {column: not pd.api.types.is_numeric_dtype(table[column]) for column in table}
    kind = {column: " class=text" if text[column] else "" for column in table}
    head = "".join(f"<th{kind[c]}><button>{escape(str(c).replace('_', ' '))}</button></th>" for c in table)
    rows = ("".join(f"<td{kind[c]}{_value(row[c], text[c])}</td>" for c in table) for row in table.to_dict("records"))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _value(value: Any, text: bool) -> str:
    """The rest of a cell's tag, with the number that it is sorted by, and what is shown."""
    if text:
        return f">{escape(str(value))}"
    if pd.isna(value):
        return ' data-value="">n/a'
    whole = float(value).is_integer() and not isinstance(value, float)
    return f' data-value="{value!r}">{value}' if whole else f' data-value="{float(value)!r}">{value:.3f}'
