"""The Python interface: similar users and items, ranking, audiences, vectors by id, listings, training frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

import pandas as pd
import pyarrow as pa
from feast import FeatureStore, FeatureView

from feast_embeddings.arguments import Id, Interactions, at_least_one, history, id_list
from feast_embeddings.artifact import Entity, FoldedIn
from feast_embeddings.errors import NotPublishedError, UnknownIdError
from feast_embeddings.model.sides import Filter
from feast_embeddings.offline.training_frame import TrainingVectors, Vectors, training_frame, training_vectors
from feast_embeddings.query.answers import Embeddings, Neighbours, NeighboursBatch, Page
from feast_embeddings.query.collection import read_cursor
from feast_embeddings.query.fold_in import fold_in
from feast_embeddings.query.live import LiveModel
from feast_embeddings.query.options import AudienceOptions, FoldInOptions, QueryOptions, RankOptions, VersionOptions
from feast_embeddings.query.watch import LiveWatch

__all__ = ["EmbeddingStore", "Filter"]

Answer = TypeVar("Answer")
P = ParamSpec("P")


class EmbeddingStore:
    """Queries over the live version of one model; safe to use from many threads.

    Each call answers from one version, whatever is published meanwhile. What is published is noticed with the next
    call, with attributes that it brings. Lists of ids may be of any iterable, and are read once.

    Args:
        feature_store: a repo whose online store is `QdrantEmbeddingOnlineStore`.
        model: name of a trained and applied model.

    Raises:
        InputError: the model's feature views are not registered, or the online store is another one.
    """

    def __init__(self, feature_store: FeatureStore, model: str) -> None:
        self.feature_store = feature_store
        self.model = model
        self._watch = LiveWatch(feature_store, model)

    def similar_items(self, item_id: Id, k: int = 10, **options: Unpack[QueryOptions]) -> Neighbours:
        """The k items nearest to an item by cosine, without the item itself; fewer only when fewer pass the filter.

        Args:
            options: `filter`, `attributes`; see `QueryOptions`.

        Raises:
            UnknownIdError: the live version has no such item.
            FilterError: the filter cannot be understood or applied.
            NotPublishedError: no version is live.
        """
        return self._only("item", self.similar_items_batch([item_id], k, **options))

    def similar_items_batch(
        self, item_ids: Iterable[Id], k: int = 10, **options: Unpack[QueryOptions]
    ) -> NeighboursBatch:
        """`similar_items` for each of many items, where an unknown one is no error."""
        return self._ask(LiveModel.similar, "item", id_list(item_ids, "item_ids"), k, **options)

    def similar_users(self, user_id: Id, k: int = 10, **options: Unpack[QueryOptions]) -> Neighbours:
        """The k users nearest to a user by cosine, without the user; see `similar_items`."""
        return self._only("user", self.similar_users_batch([user_id], k, **options))

    def similar_users_batch(
        self, user_ids: Iterable[Id], k: int = 10, **options: Unpack[QueryOptions]
    ) -> NeighboursBatch:
        """`similar_users` for each of many users, where an unknown one is no error."""
        return self._ask(LiveModel.similar, "user", id_list(user_ids, "user_ids"), k, **options)

    def rank(self, user_id: Id, k: int = 10, **options: Unpack[RankOptions]) -> Neighbours:
        """The k items with the highest score for a user: ``user · item + item bias``.

        Args:
            options: `filter`, `attributes`, `exclude_seen`, `item_ids`; see `RankOptions`.

        Raises:
            UnknownIdError: the live version has no such user.
            VersionMismatchError: users and items are of different spaces; no score would mean anything.
            FilterError, NotPublishedError: as in `similar_items`.
        """
        return self._only("user", self.rank_batch([user_id], k, **options))

    def rank_batch(self, user_ids: Iterable[Id], k: int = 10, **options: Unpack[RankOptions]) -> NeighboursBatch:
        """`rank` for each of many users, where an unknown one is no error."""
        return self._ask(LiveModel.rank, id_list(user_ids, "user_ids"), k, **_listed(options))

    def rank_visitor(self, interactions: Interactions, k: int = 10, **options: Unpack[RankOptions]) -> Neighbours:
        """`rank` for somebody without an id, from what they did: the score of the vector that fold-in gives them.

        The first visitor of a version waits until its items have been read.

        Args:
            interactions: the items, each as often as it was interacted with, or with weights as training used them.
                Those that the version does not know are in `missing`. They are what `exclude_seen` leaves out.

        Raises:
            UnknownIdError: the live version knows none of the items.
            FoldInError: it is not on this disk, or its trainer is not installed or cannot fold in.
            InputError: a weight that no vector comes of.
            VersionMismatchError, FilterError, NotPublishedError: as in `rank`.
        """
        found = self.rank_visitors([interactions], k, **options)
        (answer,) = found.answers
        if answer is None:
            raise UnknownIdError(f"version {found.version} of model {self.model!r} knows none of the visitor's items")
        return answer

    def rank_visitors(
        self, interactions: Iterable[Interactions], k: int = 10, **options: Unpack[RankOptions]
    ) -> NeighboursBatch:
        """`rank_visitor` for each of many, where one whose items are all unknown is no error."""
        histories = [history(each, "each of interactions") for each in interactions]
        return self._ask(LiveModel.rank_visitors, histories, k, **_listed(options))

    def users_for_item(self, item_id: Id, k: int = 10, **options: Unpack[AudienceOptions]) -> Neighbours:
        """The k users whose score for an item is highest, by the score of `rank`. It is a scan of all users.

        Args:
            options: `filter`, on user attributes, `attributes`, `exclude_seen`; see `AudienceOptions`.

        Raises:
            UnknownIdError: the live version has no such item.
            VersionMismatchError, FilterError, NotPublishedError: as in `rank`.
        """
        return self._only("item", self.users_for_item_batch([item_id], k, **options))

    def users_for_item_batch(
        self, item_ids: Iterable[Id], k: int = 10, **options: Unpack[AudienceOptions]
    ) -> NeighboursBatch:
        """`users_for_item` for each of many items, where an unknown one is no error."""
        return self._ask(LiveModel.users_for_item, id_list(item_ids, "item_ids"), k, **options)

    def lookalike_users(self, user_ids: Iterable[Id], k: int = 10, **options: Unpack[QueryOptions]) -> Neighbours:
        """The k users nearest by cosine to the mean direction of these users, without them.

        Ids that the version does not know are in `missing`; where it knows none, no one is like them.

        Raises:
            FilterError, NotPublishedError: as in `similar_items`.
        """
        return self._ask(LiveModel.lookalike, id_list(user_ids, "user_ids"), k, **options)

    def user_embeddings(self, user_ids: Iterable[Id]) -> Embeddings:
        """The vectors of these users, float32, bit for bit as trained."""
        ids = id_list(user_ids, "user_ids")
        return self._ask(LiveModel.embeddings, "user", ids)

    def item_embeddings(self, item_ids: Iterable[Id]) -> Embeddings:
        """The vectors of these items without the bias, float32, bit for bit as trained."""
        ids = id_list(item_ids, "item_ids")
        return self._ask(LiveModel.embeddings, "item", ids)

    def page(
        self,
        entity: Entity,
        k: int = 100,
        *,
        filter: Filter | None = None,
        cursor: str | None = None,
        vectors: bool = False,
    ) -> Page:
        """At most k of the users or items that pass a filter, in no order that means anything.

        Args:
            cursor: of the page before; the pages of one listing are of one version, whatever is published meanwhile.
            vectors: whether their embeddings come along.

        Raises:
            CursorError: it is not one, or its version is not loaded any more.
            FilterError, NotPublishedError: as in `similar_items`.
        """
        k = at_least_one(k, "k")
        version, start = (None, None) if cursor is None else read_cursor(cursor)

        def page(live: LiveModel) -> Page:
            side = live.side(entity)
            if version not in (None, side.spec.version):
                side = self._watch.loaded(side.side, str(version))
            return side.page(side.side.translate(filter), k, start, vectors=vectors)

        return self._watch.answer(page)

    def export(self, entity: Entity, *, filter: Filter | None = None) -> pa.RecordBatchReader:
        """All live users or items that have a vector and pass a filter, with all features of their view, as Arrow.

        ``read_all()`` of what is returned makes a table, ``read_pandas()`` a DataFrame; taken batch by batch, little
        memory is enough for any number. Columns are the id, the features (``embedding`` as float32 lists of one
        length, without the bias), and ``event_timestamp``. All rows are of one loaded version, whatever is published
        meanwhile: the metadata of the schema has its ``version``, ``space`` and ``as_of``. A row that was carried over
        from an earlier version of the same space says so in its own ``version``.

        Raises:
            EngineError: that version was dropped while its rows were read.
            FilterError, NotPublishedError: as in `similar_items`.
        """
        return self._ask(LiveModel.export, entity, filter)

    def training_frame(
        self, entity_df: pd.DataFrame, *, vectors: Vectors = "lists", **options: Unpack[VersionOptions]
    ) -> pd.DataFrame:
        """Join to each row the embeddings that existed at its time; see `feast_embeddings.offline.training_frame`."""
        return training_frame(self.feature_store, self.model, entity_df, vectors=vectors, **options)

    def training_vectors(self, entity_df: pd.DataFrame, **options: Unpack[VersionOptions]) -> TrainingVectors:
        """The same vectors as one float32 matrix; see `feast_embeddings.offline.training_frame`."""
        return training_vectors(self.feature_store, self.model, entity_df, **options)

    def parse_id(self, entity: Entity, text: str) -> Id:
        """An id given as text, in the type that the model's ids have.

        Raises:
            InputError: the ids are whole numbers and this is not one.
        """
        return self._watch.sides[entity].parse_id(text)

    def fold_in_users(self, interactions: Any, **options: Unpack[FoldInOptions]) -> FoldedIn:
        """Vectors for users that came after the training, from what they did; pushed, they can be ranked at once.

        Items of the log are then seen; see `feast_embeddings.query.fold_in` for options and errors.
        """
        live = self.live_version()
        return fold_in(self.feature_store, self.model, "user", interactions, live=live, **options)

    def fold_in_items(self, interactions: Any, **options: Unpack[FoldInOptions]) -> FoldedIn:
        """Vectors for items that came after the training, from who had them; see `fold_in_users`."""
        live = self.live_version()
        return fold_in(self.feature_store, self.model, "item", interactions, live=live, **options)

    def live_version(self) -> str | None:
        """The version that queries answer from, or None when none is live."""
        try:
            return self.live().side("item").spec.version
        except NotPublishedError:
            return None

    def live(self) -> LiveModel:
        """What is live now; all queries on it answer from that."""
        return self._watch.live()

    @property
    def views(self) -> list[FeatureView]:
        """The feature views of users and items, as registered."""
        return [side.codec.view for side in self._watch.sides.values()]

    def _ask(
        self, question: Callable[Concatenate[LiveModel, P], Answer], *given: P.args, **options: P.kwargs
    ) -> Answer:
        """Ask what is live now; again, should it be replaced and dropped, or deleted, meanwhile."""
        return self._watch.answer(lambda live: question(live, *given, **options))

    def _only(self, entity: Entity, batch: NeighboursBatch) -> Neighbours:
        (answer,) = batch.answers
        if answer is None:
            raise UnknownIdError(
                f"{entity} {batch.ids[0]!r} has no embedding in version {batch.version} of model {self.model!r}"
            )
        return answer


def _listed(options: RankOptions) -> RankOptions:
    """The options with items that can be read again."""
    ids = options.get("item_ids")
    return options if ids is None else {**options, "item_ids": id_list(ids, "item_ids")}
