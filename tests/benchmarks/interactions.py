"""How fast and in how much memory a Parquet log with text ids becomes a training matrix, next to pandas' way.

    python -m tests.benchmarks.interactions

Each way runs several times, in turn and in a process of its own, which reports its time and the most memory that it
had beyond what its imports take; the median run counts. The log is generated: ids such as user-123456, activity and
popularity by a power law.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_ROW_GROUP = 1 << 20


def write_log(path: Path, n: int, n_users: int, n_items: int) -> None:
    rng = np.random.default_rng(0)
    ids = {
        kind: pa.array([f"{kind}-{number:06d}" for number in rng.permutation(count)])
        for kind, count in (("user", n_users), ("item", n_items))
    }
    schema = pa.schema(
        [("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.timestamp("us", tz="UTC"))]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, n, _ROW_GROUP):
            size = min(_ROW_GROUP, n - start)
            # The uniform numbers' powers: a tenth of the items has half of the interactions.
            users, items = (
                column.take(pa.array((len(column) * rng.random(size) ** power).astype(np.int64)))
                for column, power in ((ids["user"], 2), (ids["item"], 3))
            )
            times = pa.array(1_700_000_000_000_000 + 1_000_000 * np.arange(start, start + size)).cast(schema[2].type)
            writer.write_table(pa.table([users, items, times], schema=schema))


def ours(path: Path) -> object:
    from embedding_trainers.interactions import read_interactions

    return read_interactions(path).to_csr()


def pandas(path: Path) -> object:
    import pandas as pd
    from scipy.sparse import csr_matrix

    frame = pd.read_parquet(path)
    users, items = (frame[column].astype("category").cat for column in ("user_id", "item_id"))
    return csr_matrix(
        (np.ones(len(frame), np.float32), (users.codes, items.codes)),
        shape=(len(users.categories), len(items.categories)),
    )


WAYS = {"ours": ours, "pandas": pandas}


def peak_memory() -> int:
    """The most bytes of memory that this process has had."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def measure(way: str, path: Path) -> dict[str, float]:
    import pandas as pd  # noqa: F401 (what both import is not counted)
    import scipy.sparse  # noqa: F401

    import embedding_trainers.interactions  # noqa: F401

    before = peak_memory()
    start = time.perf_counter()
    matrix = WAYS[way](path)
    seconds = time.perf_counter() - start
    parts = (matrix.data, matrix.indices, matrix.indptr)  # type: ignore[attr-defined]
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time(),
        "peak": peak_memory() - before,
        "matrix": sum(part.nbytes for part in parts),
        "pairs": len(matrix.data),  # type: ignore[attr-defined]
        "sum": float(matrix.data.sum(dtype=np.float64)),  # type: ignore[attr-defined]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--log", type=Path, help="generated here if it does not exist; a temporary one by default")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="measure this one on --log, in this process")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.log)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.log or Path(folder) / "log.parquet"
        if not path.exists():
            write_log(path, options.rows, options.users, options.items)
            os.sync()  # else the disk is written to while the log is read
        rows = pq.read_metadata(path).num_rows
        batch = pq.read_metadata(path).row_group(0).total_byte_size
        print(f"{rows:,} interactions; load average {os.getloadavg()}", flush=True)
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for way in list(WAYS) * options.runs:
            command = [sys.executable, "-m", "tests.benchmarks.interactions", "--way", way, "--log", str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            one = json.loads(done.stdout)
            runs[way].append(one)
            print(
                f"{way}: {one['seconds']:.1f} s ({one['cpu_seconds']:.1f} s of CPU), "
                f"{rows / one['seconds'] / 1e6:.2f} million rows/s, peak {one['peak'] / 2**20:,.0f} MiB = "
                f"{one['peak'] / one['matrix']:.2f} × the matrix of {one['matrix'] / 2**20:,.0f} MiB",
                flush=True,
            )
    mine, theirs = (sorted(runs[way], key=lambda one: one["seconds"])[options.runs // 2] for way in WAYS)
    if (mine["pairs"], mine["sum"]) != (theirs["pairs"], theirs["sum"]):
        raise SystemExit("the two ways made different matrices")
    print(
        f"median: ours {rows / mine['seconds'] / 1e6:.2f}, pandas {rows / theirs['seconds'] / 1e6:.2f} million rows/s; "
        f"ours ÷ pandas: rows/s {theirs['seconds'] / mine['seconds']:.2f}, memory {mine['peak'] / theirs['peak']:.2f}"
        f"   (bars: 3 million rows/s, 4 × the matrix and one batch = {(4 * mine['matrix'] + batch) / 2**20:,.0f} MiB)"
    )
    print(f"load average {os.getloadavg()}")


if __name__ == "__main__":
    main()
