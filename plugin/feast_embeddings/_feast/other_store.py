"""Any online store of Feast or of a package, next to ours in one repo."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from feast import RepoConfig
from feast.infra.online_stores.helpers import get_online_store_from_config
from feast.infra.online_stores.online_store import OnlineStore
from feast.repo_config import get_online_config_from_type

__all__ = ["open_store", "settings_of", "with_settings"]


def settings_of(section: Mapping[str, Any]) -> Any:
    """Return the settings of a section ``online_store`` as its store's own class; raises what that or Feast raises."""
    return get_online_config_from_type(section["type"])(**section)


def open_store(settings: Any) -> OnlineStore:
    """Return the store of these settings."""
    store: OnlineStore = get_online_store_from_config(settings)
    return store


def with_settings(config: RepoConfig, settings: Any) -> RepoConfig:
    """Return a repo's configuration as it would be with this online store alone."""
    changed = copy.copy(config)
    changed.online_config = settings
    changed._online_store = settings
    return changed
