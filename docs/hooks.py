"""What mkdocs asks for while it builds the site: pages that follow from the code, and mathematics.

Pages on algorithms, the gallery, speed and what stands at the root of the repository are made anew
in every build, so that they cannot fall behind. Mathematics becomes MathML, which browsers draw by
themselves: nothing is fetched.
"""

from __future__ import annotations

import html
import pathlib
import re

import algorithm_pages
import repeated
from latex2mathml import converter
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
# What arithmatex leaves of $...$ and $$...$$.
MATHS = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_config(config):
    """Adds to the navigation what is made, and the address of the repository once there is one."""
    for entry in config.nav:
        if "Algorithms" in entry:
            entry["Algorithms"] += [
                {head: [f"algorithms/{name}.md" for name in names]}
                for head, names in algorithm_pages.FAMILIES.items()
            ]
    place = repeated.published_address()
    if place:
        config.repo_url, config.repo_name = place, place.removeprefix("https://github.com/")
    return config


def on_files(files, config):
    """Adds the pages that are made, and the pictures that stand elsewhere."""
    for name, text in {**algorithm_pages.made(), **repeated.made()}.items():
        files.append(File.generated(config, name, content=text))
    for name, path in repeated.pictures().items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_content(content, page, config, files):
    """Draws mathematics."""
    del page, config, files
    return MATHS.sub(_mathml, content)


def _mathml(match: re.Match) -> str:
    display = "block" if match[1] == "div" else "inline"
    drawn = converter.convert(html.unescape(match[2]).strip(), display=display)
    return f'<div class="maths">{drawn}</div>' if display == "block" else drawn
