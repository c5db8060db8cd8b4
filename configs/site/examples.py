"""Examples of commands with what they print: blocks of the README and of docs/ that tests run and compare."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BLOCK", "Example", "examples_in"]

# A block, why tests do not run it if they do not, and what it prints if the page says so.
BLOCK = re.compile(
    r"(?:<!-- (?P<why>not run: [^>]+) -->\n)?```(?P<language>(?!text)\w+)\n(?P<code>.*?)```"
    r"(?:\n\n```text\n(?P<output>.*?)```)?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Example:
    """A command line, and what it prints."""

    code: str
    output: str


def examples_in(pages: Iterable[Path]) -> dict[str, list[Example]]:
    """Return the blocks of one command that are followed by its output, by the command's name."""
    found: dict[str, list[Example]] = {}
    for page in pages:
        for block in BLOCK.finditer(page.read_text()):
            if block["output"] and (command := re.match(r"feast-embeddings (\S+)", block["code"])):
                found.setdefault(command[1], []).append(Example(block["code"], block["output"]))
    return found
