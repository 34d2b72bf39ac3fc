"""Print the service's OpenAPI schema: `python -m server.openapi > server/openapi.json`."""

import json

from lab.bench_config import BenchConfig
from server.app import create_app


def schema_text() -> str:
    """Return the schema as the committed file has it."""
    app = create_app(BenchConfig(name="", instruments={}, systems={}), data_dir=".")
    return json.dumps(app.openapi(), indent=2) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
