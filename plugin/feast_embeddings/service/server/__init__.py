"""The server processes: uvicorn with bounded connections and supervised workers."""
