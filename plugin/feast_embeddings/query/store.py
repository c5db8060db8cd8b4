"""The Python interface: similar users and items, ranking, audiences, vectors by id, listings, training frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any, Concatenate, ParamSpec, TypedDict, TypeVar, Unpack, cast

import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from feast import FeatureStore, FeatureView

from feast_embeddings.arguments import Id, Interactions, at_least_one, history, id_list
from feast_embeddings.artifact import Entity, FoldedIn
from feast_embeddings.changes import (
    AttributesSet,
    Forgotten,
    Given,
    Visibility,
    forget,
    set_attributes,
    set_hidden,
)
from feast_embeddings.errors import InputError, NotPublishedError, UnknownIdError
from feast_embeddings.events import Added, to_events
from feast_embeddings.model.sides import Filter, Side, missing_side
from feast_embeddings.offline.training_frame import TrainingVectors, Vectors, training_frame, training_vectors
from feast_embeddings.query.answers import Embeddings, Found, Neighbours, NeighboursBatch, Page
from feast_embeddings.query.collection import read_cursor
from feast_embeddings.query.events.vectors import EventsPushed, NewItems, item_vectors, user_vectors
from feast_embeddings.query.fold_in import fold_in, push_rows
from feast_embeddings.query.live import LiveModel
from feast_embeddings.query.new_items import items_table
from feast_embeddings.query.options import (
    AudienceOptions,
    By,
    FoldInOptions,
    QueryOptions,
    RankOptions,
    SimilarOptions,
    VersionOptions,
)
from feast_embeddings.query.searching.returned import Returned
from feast_embeddings.query.watch import LiveWatch

__all__ = ["EmbeddingStore", "Filter"]

Answer = TypeVar("Answer")
Options = TypeVar("Options", RankOptions, SimilarOptions)
P = ParamSpec("P")


_COMPARED: dict[By, str] = {
    "blend": "embedding",
    "behaviour": "embedding from behaviour",
    "content": "content embedding",
}


class _To(TypedDict):
    positive: list[Id]
    negative: list[Id]
    vector: npt.ArrayLike | None


class EmbeddingStore:
    """Queries over the live version of one model; safe to use from many threads.

    Each call answers from one version, whatever is published meanwhile. The next call notices a new version, and its
    attributes. With `version`, a query asks another loaded version, such as one kept for a rollback: its name, or
    ``latest`` for the newest on disk, or ``previous`` for the one before that. Ids may come in any iterable, which is
    read once.

    Args:
        feature_store: a repo whose online store is `QdrantEmbeddingOnlineStore`.
        model: name of a trained and applied model.

    Raises:
        InputError: the model's feature views are not registered, or the online store is a different one.

    Stability: stable, see docs/compatibility.md.
    """

    def __init__(self, feature_store: FeatureStore, model: str) -> None:
        self.feature_store = feature_store
        self.model = model
        self._watch = LiveWatch(feature_store, model)
        self._new_items: NewItems | None = None

    def similar_items(
        self,
        item_id: Id | None = None,
        k: int = 10,
        *,
        positive: Iterable[Id] | None = None,
        negative: Iterable[Id] | None = None,
        vector: npt.ArrayLike | None = None,
        version: str | None = None,
        **options: Unpack[SimilarOptions],
    ) -> Neighbours:
        """Find the k items nearest by cosine to an item, to examples or to a vector; fewer only if fewer pass.

        Args:
            item_id: the item, which is not in the answer.
            positive: instead, items to be like, not in the answer; those that the version does not know are in
                `missing`. See `feast_embeddings.query.searching.examples`.
            negative: with `positive`, items to be unlike; not in the answer either.
            vector: instead, as many numbers as the version has dimensions, of its space, which the answer names.
            version: a loaded one to ask instead of the live one.
            options: `filter`, `attributes`, `by`, `exclude_ids`, `boosts`, `offset`, `max_per`, `diversity`; see
                `SimilarOptions`.

        Raises:
            InputError: not exactly one of item, examples and vector is given.
            UnknownIdError: the version has no such item, or none with the compared vector.
            OptionError: the version is not loaded, the vector is not of its dimension, the examples cancel out, there
                are no content vectors, or `boosts`, `max_per` or `diversity` cannot be used with this model.
            FilterError: the filter cannot be understood or applied.
            NotPublishedError: no version is live.
        """
        if (item_id is not None) + (positive is not None) + (vector is not None) != 1 or (
            negative is not None and positive is None
        ):
            raise InputError("similar_items: give an item_id, positive examples (and negative ones), or a vector")
        if item_id is not None:
            found = self.similar_items_batch([item_id], k, version=version, **options)
            return self._only("item", found, options.get("by", "blend"))
        liked, disliked = id_list(positive or (), "positive"), id_list(negative or (), "negative")
        to: _To = {"positive": liked, "negative": disliked, "vector": vector}
        return self._ask(version, LiveModel.similar_to, "item", k, **to, **_listed(options))

    def similar_items_batch(
        self, item_ids: Iterable[Id], k: int = 10, *, version: str | None = None, **options: Unpack[SimilarOptions]
    ) -> NeighboursBatch:
        """Run `similar_items` for many items; an unknown one is not an error."""
        return self._ask(version, LiveModel.similar, "item", id_list(item_ids, "item_ids"), k, **_listed(options))

    def similar_users(
        self, user_id: Id, k: int = 10, *, version: str | None = None, **options: Unpack[SimilarOptions]
    ) -> Neighbours:
        """Find the k users nearest to a user by cosine, without the user; see `similar_items`."""
        found = self.similar_users_batch([user_id], k, version=version, **options)
        return self._only("user", found, options.get("by", "blend"))

    def similar_users_batch(
        self, user_ids: Iterable[Id], k: int = 10, *, version: str | None = None, **options: Unpack[SimilarOptions]
    ) -> NeighboursBatch:
        """Run `similar_users` for many users; an unknown one is not an error."""
        return self._ask(version, LiveModel.similar, "user", id_list(user_ids, "user_ids"), k, **_listed(options))

    def rank(
        self, user_id: Id, k: int = 10, *, version: str | None = None, **options: Unpack[RankOptions]
    ) -> Neighbours:
        """Find the k items with the highest score for a user: ``user · item + item bias``.

        Args:
            options: `filter`, `attributes`, `exclude_seen`, `item_ids`, `exclude_ids`, `boosts`, `offset`, `max_per`,
                `diversity`, `fallback`, `explain`; see `RankOptions`.

        Raises:
            UnknownIdError: the live version has no such user, and `fallback` is not ``"popular"``.
            OptionError: `boosts`, `max_per`, `diversity`, `fallback` or `explain` cannot be used with this model.
            FoldInError: with `explain`, as in `rank_visitor`.
            VersionMismatchError: users and items are of different spaces, so scores would be meaningless.
            FilterError, NotPublishedError: as in `similar_items`.
        """
        return self._only("user", self.rank_batch([user_id], k, version=version, **options))

    def rank_batch(
        self, user_ids: Iterable[Id], k: int = 10, *, version: str | None = None, **options: Unpack[RankOptions]
    ) -> NeighboursBatch:
        """Run `rank` for many users; an unknown one is not an error."""
        return self._ask(version, LiveModel.rank, id_list(user_ids, "user_ids"), k, **_listed(options))

    def rank_visitor(
        self, interactions: Interactions, k: int = 10, *, version: str | None = None, **options: Unpack[RankOptions]
    ) -> Neighbours:
        """Rank items for a visitor without an id, by the vector that fold-in computes from their interactions.

        The first visitor of a version waits until its items have been read.

        Args:
            interactions: the items, one entry per interaction, or with weights on the scale of training. Items that
                the version does not know are in `missing`. `exclude_seen` leaves these items out.

        Raises:
            UnknownIdError: the live version knows none of the items.
            FoldInError: the version is not on this disk, or its trainer is not installed or cannot fold in.
            InputError: the weights give no vector.
            OptionError, VersionMismatchError, FilterError, NotPublishedError: as in `rank`.
        """
        found = self.rank_visitors([interactions], k, version=version, **options)
        (answer,) = found.answers
        if answer is None:
            raise UnknownIdError(f"version {found.version} of model {self.model!r} knows none of the visitor's items")
        return answer

    def rank_visitors(
        self,
        interactions: Iterable[Interactions],
        k: int = 10,
        *,
        version: str | None = None,
        **options: Unpack[RankOptions],
    ) -> NeighboursBatch:
        """Run `rank_visitor` for many visitors; one whose items are all unknown is not an error."""
        histories = [history(each, "each of interactions") for each in interactions]
        return self._ask(version, LiveModel.rank_visitors, histories, k, **_listed(options))

    def search(
        self,
        text: str,
        user: Id | None = None,
        k: int = 10,
        *,
        version: str | None = None,
        **options: Unpack[QueryOptions],
    ) -> Found:
        """Find the k items that are best for a text: by its words, by what it says as content, and for a user.

        The version has to be trained with a column of text among its content. The first search of a version waits until
        the words of its items have been read. Items that a user has seen are not left out.

        Args:
            text: at least one word.
            user: whom to find items for. One that the version does not know is in `missing`.

        Raises:
            OptionError: the text has no word or is too long, or the version was trained without text.
            TextSearchError: the version is not on this disk or is damaged, or its encoder is not installed.
            VersionMismatchError, FilterError, NotPublishedError: as in `rank`.
        """
        given = None if user is None else id_list([user], "user")[0]
        return self._ask(version, LiveModel.search, text, given, k, **options)

    def users_for_item(
        self, item_id: Id, k: int = 10, *, version: str | None = None, **options: Unpack[AudienceOptions]
    ) -> Neighbours:
        """Find the k users with the highest score for an item, as in `rank`, by a scan of all users.

        Args:
            options: `filter`, on user attributes, `attributes`, `exclude_seen`; see `AudienceOptions`.

        Raises:
            UnknownIdError: the live version has no such item.
            VersionMismatchError, FilterError, NotPublishedError: as in `rank`.
        """
        return self._only("item", self.users_for_item_batch([item_id], k, version=version, **options))

    def users_for_item_batch(
        self, item_ids: Iterable[Id], k: int = 10, *, version: str | None = None, **options: Unpack[AudienceOptions]
    ) -> NeighboursBatch:
        """Run `users_for_item` for many items; an unknown one is not an error."""
        return self._ask(version, LiveModel.users_for_item, id_list(item_ids, "item_ids"), k, **options)

    def lookalike_users(
        self, user_ids: Iterable[Id], k: int = 10, *, version: str | None = None, **options: Unpack[QueryOptions]
    ) -> Neighbours:
        """Find the k users nearest by cosine to the mean direction of these users, without them.

        Ids that the version does not know are in `missing`; if it knows none, the answer is empty.

        Raises:
            FilterError, NotPublishedError: as in `similar_items`.
        """
        return self._ask(version, LiveModel.lookalike, id_list(user_ids, "user_ids"), k, **options)

    def user_embeddings(self, user_ids: Iterable[Id]) -> Embeddings:
        """Return the vectors of these users, float32, bit for bit as trained."""
        ids = id_list(user_ids, "user_ids")
        return self._ask(None, LiveModel.embeddings, "user", ids)

    def item_embeddings(self, item_ids: Iterable[Id]) -> Embeddings:
        """Return the vectors of these items without the bias, float32, bit for bit as trained."""
        ids = id_list(item_ids, "item_ids")
        return self._ask(None, LiveModel.embeddings, "item", ids)

    def page(
        self,
        entity: Entity,
        k: int = 100,
        *,
        filter: Filter | None = None,
        cursor: str | None = None,
        vectors: bool = False,
        attributes: bool | Sequence[str] = True,
    ) -> Page:
        """Return at most k of the users or items that pass a filter, in arbitrary order.

        Args:
            cursor: from the previous page; all pages of a listing are of one version, whatever is published.
            vectors: whether to return their embeddings.
            attributes: as in `QueryOptions`.

        Raises:
            CursorError: the cursor is invalid, or its version is no longer loaded.
            OptionError: an attribute is not one of theirs.
            FilterError, NotPublishedError: as in `similar_items`.
        """
        k = at_least_one(k, "k")
        version, start = (None, None) if cursor is None else read_cursor(cursor)

        def page(live: LiveModel) -> Page:
            side = live.side(entity)
            if version not in (None, side.spec.version):
                side = self._watch.loaded(side.side, str(version))
            returned = Returned.of(side.side, attributes)
            return side.page(side.side.translate(filter), k, start, vectors=vectors, returned=returned)

        return self._watch.answer(page)

    def export(self, entity: Entity, *, filter: Filter | None = None) -> pa.RecordBatchReader:
        """Return all live users or items that have a vector and pass a filter, with all features, as Arrow batches.

        ``read_all()`` of the reader makes a table, ``read_pandas()`` a DataFrame; read batch by batch, any number of
        rows needs little memory. Columns are the id, the features (``embedding`` as float32 lists of one length,
        without the bias), and ``event_timestamp``. All rows are of one loaded version, whatever is published
        meanwhile: the metadata of the schema has its ``version``, ``space`` and ``as_of``. A row that was carried over
        from an earlier version of the same space has that version in its column ``version``.

        Raises:
            EngineError: the version was dropped while its rows were read.
            FilterError, NotPublishedError: as in `similar_items`.
        """
        return self._ask(None, LiveModel.export, entity, filter)

    def training_frame(
        self, entity_df: pd.DataFrame, *, vectors: Vectors = "lists", **options: Unpack[VersionOptions]
    ) -> pd.DataFrame:
        """Join the embeddings that existed at its time to each row; see `feast_embeddings.offline.training_frame`."""
        return training_frame(self.feature_store, self.model, entity_df, vectors=vectors, **options)

    def training_vectors(self, entity_df: pd.DataFrame, **options: Unpack[VersionOptions]) -> TrainingVectors:
        """Return the same vectors as one float32 matrix; see `feast_embeddings.offline.training_frame`."""
        return training_vectors(self.feature_store, self.model, entity_df, **options)

    def parse_id(self, entity: Entity, text: str) -> Id:
        """Convert an id from text to the type of the model's ids.

        Raises:
            InputError: the ids are whole numbers and the text is not one, or the model has no such side.
        """
        return self.side(entity).parse_id(text)

    def side(self, entity: Entity) -> Side:
        """Return the users or the items of the model, as registered.

        Raises:
            MissingSideError: the model has no such side.
        """
        if entity not in self._watch.sides:
            raise missing_side(self.model, entity)
        return self._watch.sides[entity]

    def fold_in_users(
        self, interactions: Any = None, *, attributes: Any = None, **options: Unpack[FoldInOptions]
    ) -> FoldedIn:
        """Compute vectors for users newer than the training, from interactions, attributes or both.

        Once they are pushed, `rank` knows them, and items of the log count as seen. Attributes need a version that was
        trained with content of users; see `feast_embeddings.query.fold_in` for options and errors.
        """
        return self._folded_in("user", interactions, attributes, options)

    def fold_in_items(
        self, interactions: Any = None, *, attributes: Any = None, **options: Unpack[FoldInOptions]
    ) -> FoldedIn:
        """Compute vectors for items newer than the training, from interactions, attributes or both.

        Attributes need a version that was trained with content of items; see `fold_in_users` for the options.
        """
        return self._folded_in("item", interactions, attributes, options)

    def _folded_in(
        self,
        entity: Entity,
        interactions: Any,
        attributes: Any,
        options: FoldInOptions,
        instead: str = "allow it with --update (update=True)",
    ) -> FoldedIn:
        if interactions is None and attributes is None:
            raise InputError(f"fold_in_{entity}s: expected interactions, attributes or both, got neither")
        live = self.live_version()
        return fold_in(
            self.feature_store,
            self.model,
            entity,
            interactions,
            attributes=attributes,
            live=live,
            instead=instead,
            **options,
        )

    def fold_in_events(self, entity: Entity, *, push: bool = False) -> FoldedIn:
        """Compute the vectors that recorded interactions changed, as `rank` uses them now, and vectors of new items.

        Users have one if they did something since their vector was computed; items, if the training did not know them:
        folded in from their events, by the vectors of their users. After a push, every query and Feast's
        online features see them, and no event counts as newer any more: the event timestamp is the newest event's.
        Pushing again changes nothing.

        Args:
            push: also write them into the live collection.

        Returns:
            Rows with the columns of the live collection, attributes as they are there; `known` are the rows that
            are there already, `missing` those without a vector, as nothing is known that their events are with.

        Raises:
            FoldInError: the live version is not on this disk, or its trainer is not installed or cannot fold in.
            InputError: weights give no vector, or the version does not say what its users have seen.
            NotPublishedError, VersionMismatchError, MissingSideError: as in `rank`.
        """
        return self._folded_in_events(entity, 0, push)[0]

    def push_events(self, since: int = 0) -> EventsPushed:
        """Push what `fold_in_events` gives for users, then for items.

        Args:
            since: only for the users and items of events after this position in the log, which the previous answer has.
        """
        # What comes between the two is new for the users.
        users, position = self._folded_in_events("user", since, True)
        items, _ = self._folded_in_events("item", since, True)
        return EventsPushed(len(users.table), len(items.table), len(users.missing) + len(items.missing), position)

    def _folded_in_events(self, entity: Entity, since: int, push: bool) -> tuple[FoldedIn, int]:
        events = self._watch.events

        def folded(live: LiveModel) -> FoldedIn:
            if entity == "user":
                return user_vectors(live, live.side("user").side.possible(new.users))
            version = live.side("item").spec.version
            if self._new_items is None or self._new_items.version != version:
                self._new_items = NewItems(self._watch.versions, version)
            return item_vectors(live, self._new_items, live.side("item").side.possible(new.items))

        # No one is forgotten and no attribute is set between reading a row and writing it.
        with events.changing() if push else nullcontext():
            new = events.since(since)
            found = self._watch.answer(folded)
            if push and len(found.table):
                push_rows(self.feature_store, self.side(entity), found.table, found.table["version"][0].as_py())
        return found, new.position

    def add_interactions(self, interactions: Iterable[Mapping[str, Any]]) -> Added:
        """Record what users did; `rank` takes it into account with its next answer, also for users not trained on.

        The user's vector is then computed by fold-in from what they had seen in training, each item with weight 1, and
        the events that are newer than their vector. Nothing is written to Qdrant. When this returns, the events are on
        the disk of the repo.

        Args:
            interactions: dictionaries with ``user_id`` and ``item_id``, and if wanted ``weight`` (default 1),
                ``timestamp`` (default now), ``event_id``: an event whose id is there already is not added again, and
                ``event``: a type that the training of the live version weighs, which multiplies the weight. Of a type
                that weighs 0 nothing is added.

        Raises:
            InputError: a field cannot be used, or an id is not of the type of the model's ids; nothing is added.
            MissingSideError: the model has no users or no items.
        """
        events = to_events(interactions, datetime.now(UTC), self._watch.event_weights)
        ids: dict[Entity, list[Id]] = {"user": [e.user_id for e in events], "item": [e.item_id for e in events]}
        for entity, given in ids.items():
            if entity not in self._watch.sides:
                raise missing_side(self.model, entity)
            self._watch.sides[entity].point_ids(given)  # raises for an id of another type
        counted = [event for event in events if event.weight > 0]
        return self._watch.events.add(counted)._replace(without_weight=len(events) - len(counted))

    def add_items(self, items: Mapping[Id, Mapping[str, Any]]) -> FoldedIn:
        """Make items searchable that the training did not know, by what content says of them.

        Args:
            items: attributes by id, under the names and with the types of the training. A missing one is a null.

        Raises:
            InputError: the version was trained without content of items, or has a vector of one of them that was
                learned from interactions, or an attribute cannot be used; nothing is added.
        """
        if "item" not in self._watch.sides:
            raise missing_side(self.model, "item")
        self._watch.sides["item"].point_ids(items)  # raises for an id of another type
        instead = "change attributes of live items with set_attributes, over HTTP with PATCH of the same path"
        return self._folded_in("item", None, items_table(items), {"push": True}, instead=instead)

    def forget(self, *, users: Iterable[Id] = (), items: Iterable[Id] = (), dry_run: bool = False) -> Forgotten:
        """Remove users and items from all versions and the recorded interactions; see `feast_embeddings.changes`."""
        user_ids, item_ids = id_list(users, "users"), id_list(items, "items")
        data = self._watch.versions.data
        return forget(self.feature_store, data, self.model, users=user_ids, items=item_ids, dry_run=dry_run)

    def set_attributes(
        self, items: Given | None = None, users: Given | None = None, *, add: Mapping[str, str] | None = None
    ) -> AttributesSet:
        """Set attributes of live users and items, e.g. ``items={"sku-1": {"price": 9.5}}``; None sets a null.

        The next answer has them, and the next publish keeps them; see `feast_embeddings.changes.set_attributes`.
        ``add={"segment": "int"}`` adds an attribute that the training did not have.
        """
        data = self._watch.versions.data
        return set_attributes(self.feature_store, data, self.model, items=items, users=users, add=add)

    def hide(self, *, users: Iterable[Id] = (), items: Iterable[Id] = ()) -> Visibility:
        """Leave users and items out of all answers until `unhide`, whatever is published.

        They keep their vectors: similar items of a hidden item, and items for a hidden user, are still found.
        """
        return self._set_hidden(True, users, items)

    def unhide(self, *, users: Iterable[Id] = (), items: Iterable[Id] = ()) -> Visibility:
        """Show hidden users and items again; ids that are not hidden change nothing."""
        return self._set_hidden(False, users, items)

    def _set_hidden(self, hide: bool, users: Iterable[Id], items: Iterable[Id]) -> Visibility:
        user_ids, item_ids = id_list(users, "users"), id_list(items, "items")
        data = self._watch.versions.data
        return set_hidden(self.feature_store, data, self.model, hide, users=user_ids, items=item_ids)

    def hidden(self, entity: Entity) -> frozenset[Id]:
        """Return the users or items that are hidden, whether the live version has them or not."""
        return self._watch.hidden.ids(entity)

    def live_version(self) -> str | None:
        """Return the version that queries answer from, or None if none is live."""
        try:
            return self.live().spec.version
        except NotPublishedError:
            return None

    def live(self) -> LiveModel:
        """Return the live version as of now; all queries on it answer from that version."""
        return self._watch.live()

    @property
    def views(self) -> list[FeatureView]:
        """The feature views of users and items, as registered."""
        return [side.codec.view for side in self._watch.sides.values()]

    def _ask(
        self,
        version: str | None,
        question: Callable[Concatenate[LiveModel, P], Answer],
        *given: P.args,
        **options: P.kwargs,
    ) -> Answer:
        """Query the live version, again if it is replaced and dropped, or deleted, meanwhile; or a named one."""
        return self._watch.answer(lambda live: question(live, *given, **options), version)

    def _only(self, entity: Entity, batch: NeighboursBatch, by: By = "blend") -> Neighbours:
        (answer,) = batch.answers
        if answer is None:
            raise UnknownIdError(
                f"{entity} {batch.ids[0]!r} has no {_COMPARED[by]} in version {batch.version} of model {self.model!r}"
            )
        return answer


def _listed(options: Options) -> Options:
    """Return the options with the ids as lists, which can be read more than once."""
    given: Mapping[str, Any] = options
    ids = {name: id_list(given[name], name) for name in ("item_ids", "exclude_ids") if given.get(name) is not None}
    return cast("Options", {**options, **ids})
