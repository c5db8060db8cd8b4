"""The processes that serve: uvicorn with bounded connections and watched workers."""
