"""Read a data source that is registered in a Feast repo: ``feast:NAME``.

A file source is read by this project's own readers; any other one by the repo's offline store, whose answer is in
memory as a whole.
"""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from feast.data_source import DataSource, KafkaSource, KinesisSource, PushSource, RequestSource
from feast.infra.offline_stores.file_source import FileSource

from feast_embeddings._feast.private import offline_rows
from feast_embeddings.errors import InputError
from feast_embeddings.reading.files import DataFile
from feast_embeddings.reading.locations import Location, located, opened
from feast_embeddings.reading.relation import ArrowStream
from feast_embeddings.repo import Repo

__all__ = ["open_feast_source"]


def open_feast_source(location: Location, scratch: Path, exits: ExitStack) -> ArrowStream | list[DataFile]:
    """Open a data source of the location's repo; see `feast_embeddings.reading.locations.opened`.

    Raises:
        InputError: the repo has no such source, or the source cannot be read.
    """
    repo, name = Repo.open(location.repo or Path()), location.text.removeprefix("feast:")
    feature_store = repo.feature_store()
    sources = {source.name: source for source in feature_store.list_data_sources()}
    source: DataSource | None = sources.get(name)
    if source is None:
        raise InputError(f"{location}: {repo.path} has the data sources {', '.join(sorted(sources)) or '(none)'}")
    if isinstance(source, PushSource | KafkaSource | KinesisSource):
        source = source.batch_source
        if source is None:
            raise InputError(f"{location} is a stream without a batch source, so it has no history")
    if isinstance(source, RequestSource):
        raise InputError(f"{location} has no rows, as its values come with each request; name a source with a table")
    if isinstance(source, FileSource):
        path = source.path if ":" in source.path else str(repo.path / source.path)
        if type(source.file_format).__name__ == "DeltaFormat":
            path = f"delta:{path}"
        return opened(located(path.removeprefix("file://")), scratch, exits)
    start = location.since or datetime(1970, 1, 1, tzinfo=UTC)
    end = location.until or datetime.now(UTC)
    try:
        rows: ArrowStream = offline_rows(feature_store, source, start, end)
    except Exception as error:  # every offline store has errors of its own
        raise InputError(f"{location} cannot be read: {str(error).splitlines()[0][:300]}") from None
    return rows
