"""The service of a shop, in this process."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from tests.support.shop import Shop

from feast_embeddings.service import ServiceSettings, create_app
from feast_embeddings.service.api_keys import ENVIRONMENT, ApiKey

__all__ = ["service_of"]


def service_of(shop: Shop, key: ApiKey | None = None, **settings: Any) -> FastAPI:
    """A new one, with settings by name; with a key, it is for those who send that."""
    with pytest.MonkeyPatch.context() as patch:
        # The stand-in for a server is an object of this process, so the app gets the same feature store.
        patch.setattr("feast_embeddings.repo.Repo.feature_store", lambda _: shop.feature_store)
        if key is not None:
            patch.setenv(ENVIRONMENT, key.line)
        return create_app(ServiceSettings(repo=shop.repo.path, **settings))
