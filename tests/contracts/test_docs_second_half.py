"""Commands and programs of the later pages work as pasted; in a file of its own, so that another worker runs it."""

from __future__ import annotations

from pathlib import Path

from tests.contracts.pages import HALVES, run_pages


def test_the_second_half_works_as_pasted(tmp_path: Path) -> None:
    """After the README, the pages from live.md on."""
    run_pages(HALVES[1], tmp_path)
