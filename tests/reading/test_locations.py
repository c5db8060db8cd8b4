"""Tables that are not files here: each real, and each gives the rows that a Parquet file of them gives."""

from __future__ import annotations

import gzip
import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_trainers.interactions import Interactions, read_interactions
from feast_embeddings.errors import InputError, MissingExtraError
from feast_embeddings.reading import Location, located, read_table

N = 500
ROWS = pa.table(
    {
        "user_id": [f"u-{i % 40:03d}" for i in range(N)],
        "item_id": [i * 7 % 60 for i in range(N)],
        "timestamp": pa.array([1_700_000_000_000_000 + i * 1_000_000 for i in range(N)], pa.timestamp("us", "UTC")),
    }
)
SELECT = "SELECT user_id, item_id, timestamp FROM clicks"


def fingerprint(log: Interactions) -> str:
    return log.fingerprint()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the same rows are in a Parquet file."""
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    pq.write_table(ROWS, path)
    return read_interactions(path).fingerprint()


@pytest.fixture
def filled(postgres: str) -> str:
    """A database with the rows in the table clicks."""
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi", reason="the extra sql is not installed")
    with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("clicks", ROWS, mode="replace")
        connection.commit()
    return postgres


def test_postgresql(filled: str, expected: str) -> None:
    """A query streams from a real server."""
    assert fingerprint(read_interactions(Location(filled, query=SELECT))) == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [("SELECT nothing FROM clicks", 'column "nothing" does not exist'), ("SELEC", "syntax error")],
)
def test_a_wrong_query_says_what_the_server_says(filled: str, query: str, message: str) -> None:
    """In one line, without the password."""
    with pytest.raises(InputError, match=message) as error:
        read_interactions(Location(filled, query=query))
    assert "\n" not in str(error.value)
    assert "s3cret" not in str(error.value)


def test_passwords_stay_secret(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the text of a location, nor in its repr or an error; it may come from the environment."""
    wrong = Location(postgres.replace("s3cret", "wr0ng"), query="SELECT 1 AS user_id, 1 AS item_id")
    with pytest.raises(InputError, match="password authentication failed") as error:
        read_interactions(wrong)
    for text in (str(error.value), str(wrong), repr(wrong)):
        assert "wr0ng" not in text
    monkeypatch.setenv("PASSWORD_OF_LOG", "s3cret")
    secret = Location(postgres.replace("s3cret", "${PASSWORD_OF_LOG}"), query="SELECT 1 AS user_id, 2 AS item_id")
    assert len(read_interactions(secret)) == 1
    monkeypatch.delenv("PASSWORD_OF_LOG")
    with pytest.raises(InputError, match="the environment variable PASSWORD_OF_LOG is not set"):
        read_interactions(secret)


def test_a_database_needs_a_query(postgres: str) -> None:
    """It has many tables."""
    with pytest.raises(
        InputError, match=r"postgresql://tests:\*\*\*@.* is a database: say what to read of it, as SQL, with --query"
    ):
        read_interactions(Location(postgres))


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE clicks (user_id TEXT, item_id INTEGER, timestamp INTEGER)")
        times = ROWS["timestamp"].cast(pa.int64()).to_pylist()
        rows = zip(ROWS["user_id"].to_pylist(), ROWS["item_id"].to_pylist(), times, strict=True)
        connection.executemany("INSERT INTO clicks VALUES (?, ?, ?)", rows)
        connection.commit()
    return path


def test_sqlite(sqlite: Path, expected: str) -> None:
    """A file of SQLite, by its path from here or from the root."""
    pytest.importorskip("adbc_driver_sqlite", reason="the extra sql is not installed")
    for text in (f"sqlite://{sqlite}", f"sqlite:{sqlite}"):
        assert fingerprint(read_interactions(Location(text, query=SELECT))) == expected
    missing = sqlite.with_name("none.db")
    with pytest.raises(InputError, match="does not exist"):
        read_interactions(Location(f"sqlite:{missing}", query=SELECT))
    assert not missing.exists()
    sqlite.write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="cannot be read as SQLite"):
        read_interactions(Location(f"sqlite:{sqlite}", query=SELECT))


def test_delta(tmp_path: Path, expected: str) -> None:
    """Only the rows of the newest version count, though older files are there, whether it is called delta or not."""
    deltalake = pytest.importorskip("deltalake", reason="the extra lake is not installed")
    folder = tmp_path / "clicks"
    deltalake.write_deltalake(str(folder), ROWS.slice(0, 100))
    deltalake.write_deltalake(str(folder), ROWS, mode="overwrite")
    assert len(list(folder.glob("*.parquet"))) == 2
    for source in (Location(f"delta:{folder}"), folder):
        assert fingerprint(read_interactions(source)) == expected
    with pytest.raises(InputError, match="cannot be read as a Delta table"):
        read_interactions(Location(f"delta:{tmp_path}/none"))


def test_iceberg(tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name in a configured catalog, and by the table's metadata file."""
    catalogs = pytest.importorskip("pyiceberg.catalog", reason="the extra lake is not installed")
    monkeypatch.setenv("PYICEBERG_CATALOG__DEFAULT__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__DEFAULT__URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__DEFAULT__WAREHOUSE", f"file://{tmp_path}/warehouse")
    # It reads the environment once, when it is imported.
    config = pytest.importorskip("pyiceberg.utils.config").Config()
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", config)
    (tmp_path / "warehouse").mkdir()
    settings = {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}/warehouse"}
    catalog = catalogs.load_catalog("default", **settings)
    catalog.create_namespace("shop")
    table = catalog.create_table("shop.clicks", schema=ROWS.schema)
    table.append(ROWS.slice(0, 100))
    table.overwrite(ROWS)
    assert fingerprint(read_interactions(Location("iceberg:default.shop.clicks"))) == expected
    assert fingerprint(read_interactions(Location(f"iceberg:{table.metadata_location}"))) == expected
    with pytest.raises(InputError, match="cannot be read as an Iceberg table"):
        read_interactions(Location("iceberg:shop.none"))


def test_object_store(tmp_path: Path, expected: str) -> None:
    """A file, a folder with partitions and a glob, through fsspec's store in memory; errors name what is there."""
    store = fsspec.filesystem("memory")
    buffer = io.BytesIO()
    pq.write_table(ROWS, buffer)
    store.pipe("/bucket/log.parquet", buffer.getvalue())
    for part in range(2):
        buffer = io.BytesIO()
        pq.write_table(ROWS.slice(part * 250, 250), buffer)
        store.pipe(f"/bucket/days/day={part}/log.parquet", buffer.getvalue())
    for text in ("memory://bucket/log.parquet", "memory://bucket/days", "memory://bucket/days/*/log.parquet"):
        assert fingerprint(read_interactions(Location(text))) == expected, text
    assert set(read_table(Location("memory://bucket/days"))["day"].to_pylist()) == {0, 1}
    with pytest.raises(InputError, match="memory://bucket/none does not exist"):
        read_interactions(Location("memory://bucket/none"))
    store.pipe("/bucket/broken/log.parquet", b"PAR1 no more")
    with pytest.raises(InputError, match=r"memory://.*bucket/broken/log\.parquet cannot be read"):
        read_interactions(Location("memory://bucket/broken"))


def test_a_scheme_that_nothing_reads() -> None:
    """It is an error of ours, as is a store whose package is missing."""
    with pytest.raises(InputError, match="nowhere://x"):
        read_interactions(Location("nowhere://x"))
    with pytest.raises((InputError, MissingExtraError), match="dropbox"):
        read_interactions(Location("dropbox://x"))


def as_csv(table: pa.Table) -> bytes:
    lines = ["user_id,item_id,timestamp"]
    lines += [f"{row['user_id']},{row['item_id']},{row['timestamp'].isoformat()}" for row in table.to_pylist()]
    return "\n".join(lines).encode()


def as_parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "encode", [as_parquet, as_csv, lambda table: gzip.compress(as_csv(table))], ids=["parquet", "csv", "csv.gz"]
)
def test_standard_input(encode: Callable[[pa.Table], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first bytes tell the format."""
    content = encode(ROWS)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    log = read_interactions(located("-"))
    assert (len(log), len(log.users), len(log.items)) == (N, 40, 60)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"user_id,item_id\nu,\n")))
    with pytest.raises(InputError, match="standard input"):
        read_interactions(located("-"))


def test_a_query_of_files(tmp_path: Path) -> None:
    """DuckDB's SQL over Parquet, which keeps types; not over text, whose types it would guess."""
    pq.write_table(ROWS, tmp_path / "log.parquet")
    path = str(tmp_path / "log.parquet")
    log = read_interactions(Location(path, query="SELECT * FROM log WHERE item_id < 10"))
    assert log.items.to_pylist() == list(range(10))
    with pytest.raises(InputError, match=r"--query: .*nothing"):
        read_interactions(Location(path, query="SELECT nothing FROM log"))
    (tmp_path / "log.csv").write_bytes(as_csv(ROWS))
    with pytest.raises(InputError, match="--query reads Parquet"):
        read_interactions(Location(str(tmp_path / "log.csv"), query="SELECT * FROM log"))
    with pytest.raises(InputError, match="--query works on databases"):
        read_interactions(Location("memory://x", query="SELECT * FROM log"))


def test_paths_stay_paths(tmp_path: Path) -> None:
    """Whatever has no scheme; and a file with a colon in its name."""
    assert located("log.csv") == Path("log.csv")
    odd = tmp_path / "s3:log.csv"
    odd.write_bytes(as_csv(ROWS))
    assert located(str(odd)) == odd
    since = datetime(2026, 1, 1, tzinfo=UTC)
    assert located("feast:clicks", repo=tmp_path, since=since) == Location("feast:clicks", None, tmp_path, since)


def test_a_query_after_the_address(sqlite: Path, expected: str) -> None:
    """As for --items, which has no --query; a # that begins no query is part of the name."""
    found = located(f"sqlite:{sqlite}# {SELECT}")
    assert isinstance(found, Location)
    assert (found.text, found.query) == (f"sqlite:{sqlite}", SELECT)
    assert fingerprint(read_interactions(found)) == expected
    name = located("sqlite:a#b.db")
    assert isinstance(name, Location)
    assert name.query is None


@pytest.mark.parametrize(
    "query",
    ["SELECT * FROM clicks; DROP TABLE clicks", "DELETE FROM clicks", "SELECT nothing FROM clicks", "COMMIT; SELECT 1"],
)
def test_sqlite_gets_one_query_that_reads(sqlite: Path, query: str) -> None:
    """What the driver would ignore, and what the file refuses, is an error; nothing is changed."""
    before = sqlite.read_bytes()
    with pytest.raises(InputError, match="sqlite:"):
        read_table(Location(f"sqlite:{sqlite}", query))
    assert sqlite.read_bytes() == before


def test_a_query_of_files_only_reads(tmp_path: Path) -> None:
    """COPY would write a file, and what follows the first statement would be lost."""
    pq.write_table(pa.table({"x": [1]}), path := tmp_path / "log.parquet")
    for query in (
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        "SELECT * FROM log; SELECT 2",
        "CREATE TABLE t (x INT)",
        "",
    ):
        with pytest.raises(InputError, match="--query: expected one SELECT"):
            read_table(Location(str(path), query))
    assert [file.name for file in tmp_path.iterdir()] == ["log.parquet"]
    assert read_table(Location(str(path), "FROM log")).to_pylist() == [{"x": 1}]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (
            Location("-", "SELECT * FROM log"),
            "--query works on databases and on Parquet files .*, not on standard input",
        ),
        (Location("snowflake://account/db", "SELECT 1"), "run pip install adbc-driver-snowflake"),
    ],
)
def test_what_cannot_be_queried(location: Location, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_table(location)
