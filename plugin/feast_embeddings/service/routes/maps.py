"""The endpoint for the map of the live version, which `feast-embeddings map --save` wrote."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Response
from pydantic import BaseModel, Field

from feast_embeddings.artifact import Entity
from feast_embeddings.artifact.saved_map import read_map
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo
from feast_embeddings.service import answers
from feast_embeddings.service.access import GuardedRouter
from feast_embeddings.service.calls import Calls, Model
from feast_embeddings.service.problems import ProblemError
from feast_embeddings.service.settings import ServiceSettings

__all__ = ["add_map_routes"]


class MapLabel(BaseModel):
    """The name of a segment, and a place in its midst."""

    name: str
    x: float
    y: float


class MapColoring(BaseModel):
    """A way to colour the points."""

    name: str = Field(description="What the colours say, such as an attribute.")
    groups: list[str] = Field(description="Those with one colour.")
    numbers: list[int] = Field(description="Each point's place in `groups`, from 0, in the order of `ids`.")


class MapAnswer(BaseModel):
    """A map: users or items in the plane, those with like vectors near each other."""

    model: str
    version: str
    entity: Entity
    ids: list[str | int]
    titles: list[str] = Field(description="What to say of each, in the order of `ids`.")
    x: list[float] = Field(description="In the order of `ids`.")
    y: list[float] = Field(description="In the order of `ids`.")
    colorings: list[MapColoring] = Field(description="The ways to colour them, one at least.")
    labels: list[MapLabel] = Field(description="The segments that have a name.")
    hidden: list[int] = Field(description="The places in `ids`, from 0, of those that other answers leave out.")


def add_map_routes(router: GuardedRouter, calls: Calls, settings: ServiceSettings) -> None:
    """Add this endpoint to the router of the models."""

    @router.get("/{model}/map/{entity}", responses={200: {"model": MapAnswer}})
    async def saved_map(model: Model, entity: Annotated[Entity, Path(description="Whose map.")]) -> Response:
        """Return the map of the live version, if `feast-embeddings map --save` wrote one."""

        def look(store: EmbeddingStore) -> dict[str, Any]:
            store.side(entity)
            version = store.live().spec.version
            found = read_map(Repo.open(settings.repo).data / model / version, entity)
            if found is None:
                raise ProblemError(
                    404,
                    f"there is no map of the {entity}s of the live version {version}: "
                    f"run feast-embeddings map --entity {entity} --save --model {model}",
                )
            return {
                "model": model,
                "version": version,
                "entity": entity,
                "ids": found.ids.to_pylist(),
                "titles": found.titles,
                # To a thousandth: a map is some hundred units wide.
                "x": found.places[:, 0].round(3).tolist(),
                "y": found.places[:, 1].round(3).tolist(),
                "colorings": [
                    {"name": each.name, "groups": each.groups, "numbers": each.numbers.tolist()}
                    for each in found.colourings
                ],
                "labels": [{"name": name, "x": x, "y": y} for x, y, name in found.labels],
                "hidden": found.rows_of(store.hidden(entity)),
            }

        return answers.json_response(await calls.run(model, look))
