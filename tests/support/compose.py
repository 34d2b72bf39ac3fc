"""The part of the Compose specification that docker-compose.yml may use; anything else is refused.

After https://github.com/compose-spec/compose-spec, schema/compose-spec.json.
"""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

Duration = Annotated[str, Field(pattern=r"^(\d+h)?(\d+m)?(\d+s)?$", min_length=2)]
LoopbackPort = Annotated[str, Field(pattern=r"^127\.0\.0\.1:\d{1,5}:\d{1,5}$")]
NamedVolume = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]+:/[^:]+$")]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class HealthCheck(_Strict):
    test: list[str]
    interval: Duration
    timeout: Duration
    retries: int = Field(ge=1)
    start_period: Duration


class Dependency(_Strict):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class Service(_Strict):
    build: str
    image: str
    init: bool
    command: list[str]
    environment: list[Name] = []
    healthcheck: HealthCheck
    depends_on: dict[Name, Dependency] = {}
    stop_grace_period: Duration | None = None
    ports: list[LoopbackPort] = []
    volumes: list[NamedVolume] = []


class Compose(_Strict):
    services: dict[Name, Service]
    volumes: dict[Name, None]


def read_compose(path: Path) -> Compose:
    """Return the file; raise pydantic's ValidationError for anything that is not allowed above."""
    return Compose.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
