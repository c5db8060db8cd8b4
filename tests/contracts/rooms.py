"""The picture of the rooms in docs/architecture.md, made from the imports.

python -m tests.contracts.rooms        # draws it again
"""

from __future__ import annotations

import re
import tomllib

import grimp
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "architecture.md"
_PICTURE = re.compile(r"(?<=<!-- rooms -->\n).*?(?=<!-- /rooms -->)", re.DOTALL)
_PLUGIN = "feast_embeddings"


def floors() -> list[list[str]]:
    """The rooms of each floor, the top one first, as the contract of the walls has them."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in config["contracts"] if contract["name"] == "Floors of the plugin")
    return [re.split(r"\s*[|:]\s*", floor) for floor in layers]


def arrows() -> set[tuple[str, str]]:
    """Which room imports from which one."""
    graph = grimp.build_graph(_PLUGIN, exclude_type_checking_imports=True)

    def room(module: str) -> str | None:
        parts = module.split(".")
        return parts[1] if len(parts) > 1 else None

    found = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = room(module), room(imported)
            if pair[0] and pair[1] and pair[0] != pair[1]:
                found.add((pair[0], pair[1]))
    return found


def drawn() -> str:
    """The picture, in Mermaid: an arrow that follows from others is left out."""
    every = arrows()
    below: dict[str, set[str]] = {}
    for floor in reversed(floors()):
        for room in floor:
            direct = {b for a, b in every if a == room}
            below[room] = direct | {far for near in direct for far in below[near]}
    direct_only = sorted(
        (a, b) for a, b in every if not any(b in below[other] for x, other in every if x == a and other != b)
    )
    lines = ["```mermaid", "flowchart TD"]
    for number, floor in enumerate(floors()):
        lines.append(f'  subgraph floor{number}[" "]')
        lines += [f"    {room}" for room in floor]
        lines.append("  end")
    lines += [f"  {a} --> {b}" for a, b in direct_only]
    counted = (
        f"There are {len(every)} imports between the {len(below)} rooms. {len(direct_only)} are drawn; each of the "
        "others runs along a path of drawn arrows."
    )
    return "\n".join([*lines, "```", "", counted, ""])


def page(text: str) -> str:
    """The page with the picture as it is now."""
    return _PICTURE.sub(lambda _: drawn(), text)


def main() -> None:
    """Draw it again."""
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
