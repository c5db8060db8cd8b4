"""All trainers, with their defaults and one thread, on several logs, next to other libraries: a table for the docs.

    python -m tests.benchmarks.trainers_by_logs --write docs/quality.md \\
        "MovieLens 100K=ml-100k_interactions.parquet" "Gowalla's training file=gowalla_train.parquet"

What is held back is what `compare` holds back: the newest of each user where there are times, else some at random. A
trainer that reads times, or whose package is missing, has no cell. `--write` replaces what stands between the two
comments that name this script.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tests.benchmarks.peers import train_peers

from embedding_trainers.comparison.paired import Row, Scored, compare
from embedding_trainers.comparison.runs import Contender, train_each
from embedding_trainers.interactions import read_interactions, split_interactions
from embedding_trainers.trainer import RunOptions, known_trainers

_BEGIN, _END = "<!-- written by tests.benchmarks.trainers_by_logs -->", "<!-- end of what it wrote -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--trainers", nargs="+", default=known_trainers())
    parser.add_argument("--write", type=Path, help="a Markdown file with the two comments")
    arguments = parser.parse_args()
    tables: dict[str, dict[str, Row]] = {}
    for each in arguments.logs:
        name, _, file = each.partition("=")
        rows = compare(scored(Path(file), arguments.trainers), seed=0)
        tables[name] = {row.name: row for row in rows}
        print(table({name: tables[name]}), flush=True)
    if arguments.write:
        text = arguments.write.read_text()
        pattern = re.compile(f"{re.escape(_BEGIN)}\n.*?{re.escape(_END)}", re.DOTALL)
        made = f"{_BEGIN}\n\n{table(tables)}\n\n{_END}"
        if not pattern.search(text):
            raise SystemExit(f"{arguments.write} does not have the comments {_BEGIN} and {_END}")
        arguments.write.write_text(pattern.sub(lambda _: made, text))


def scored(file: Path, trainers: list[str]) -> list[Scored]:
    """What each gave the test users."""
    log = read_interactions(file)
    split = split_interactions(log, seed=0).with_log(log)
    options = RunOptions(seed=0, threads=1)
    found, failed = train_each([Contender(name, name, {}) for name in trainers], split, options)
    for why in failed.values():
        print(why)
    return found + train_peers(split)


def table(tables: dict[str, dict[str, Row]]) -> str:
    """A row for each trainer, a column for each log; the best NDCG is bold, and ≈ says that the difference is noise."""
    names = list(dict.fromkeys(name for rows in tables.values() for name in sorted(rows, key=lambda n: (" " in n, n))))
    lines = [["", *(f"{log}: Recall@20, NDCG@20, CPU s, MiB" for log in tables)], ["---"] * (len(tables) + 1)]
    lines += [[name, *(cell(rows.get(name)) for rows in tables.values())] for name in names]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def cell(row: Row | None) -> str:
    if row is None:
        return ""
    recall, ndcg = (f"{estimate.value:.4f}" for estimate in row.scores.values())
    bold = {"best": f"**{ndcg}**", "noise": f"{ndcg} ≈", "worse": ndcg}[row.verdict]
    return f"{recall}, {bold}, {row.cpu_seconds:,.1f}, {row.memory_mib:,.0f}"


if __name__ == "__main__":
    main()
