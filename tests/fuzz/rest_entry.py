"""Rows that are posted to the service, as JSON and as NumPy archives."""

import asyncio
import io
import json
import tempfile
from contextlib import suppress
from typing import Any

import httpx
import numpy as np

from bad_drives import good_series, good_values, no_array, spoil
from drivers.errors import LimitError
from limited_benches import (
    RANGES,
    SHARES,
    limited_bench,
    verdicts,
)
from server.app import create_app
from tally import Fuzz


def _drives(fuzz: Fuzz, system: str, rows: int, size: int) -> tuple[Any, Any]:
    """Return x and theta, physical units: quiet, loud, or with values out of their ranges."""
    rng, (low, high) = fuzz.rng, RANGES[system]
    case = rng.random()
    if case < 0.4:  # within the ranges, but more than the row limits allow, in some rows or all
        level = rng.choice([1.0, 1.0, 0.8])
        x, theta = (good_values(rng, (rows, size), level * low, level * high) for _ in "xt")
        return (np.abs(x), np.abs(theta)) if system == "optics" else (x, theta)
    if system == "optics":
        x, theta = (good_values(rng, (rows, size), -0.3, 0.3) for _ in "xt")
    else:
        x, theta = (good_series(rng, rows, size, high) for _ in "xt")
    if case < 0.75:
        which = rng.integers(3)
        x = spoil(rng, x, low, high) if which != 1 else x
        theta = spoil(rng, theta, low, high) if which != 0 else theta
    return x, theta


def rest(fuzz: Fuzz) -> None:
    """Post passes to the service, as JSON and as NumPy archives."""
    for system in SHARES:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(_post_passes(fuzz, system, folder))


async def _post_passes(fuzz: Fuzz, system: str, folder: str) -> None:
    app = create_app(limited_bench(system, rows=True), data_dir=folder)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    url = f"http://lab/api/v1/systems/{system}/passes"
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as http:
        size = (await http.get(url.removesuffix("/passes"))).json()["x"]["shape"][0]
        most = 8 if system == "optics" else 60
        while fuzz.goes_on(SHARES[system]):
            rows = int(fuzz.rng.integers(1, most + 1))
            x, theta = _drives(fuzz, system, rows, size)
            verdict = verdicts(system, x, theta, rows=True)
            body, kind, broken = _body(fuzz, x, theta)
            if broken:
                verdict = np.ones_like(verdict)
            with suppress(LimitError), fuzz.asked(verdict):
                answer = await http.post(url, content=body, headers={"content-type": kind})
                if answer.status_code not in (200, 422):
                    fuzz.tally.wrong.append(f"{system}: {answer.status_code} {answer.text[:200]}")
                if answer.status_code != 200:
                    raise LimitError("service", "pass", answer.text)


def _body(fuzz: Fuzz, x: Any, theta: Any) -> tuple[bytes, str, bool]:
    """Return a body, its type, and whether it is to be refused whatever the values are."""
    rng = fuzz.rng
    broken = rng.random() < 0.03
    if rng.random() < 0.3:
        content: dict[str, Any] = {"x": x.tolist(), "theta": theta.tolist()}
        if broken:
            wrong = rng.choice(["ragged", "short", "word", "none"])
            row = content["theta"][0]
            content["theta"][0] = {
                "ragged": row[:-1],
                "short": [],
                "word": ["loud", *row[1:]],
                "none": [None, *row[1:]],
            }[str(wrong)]
        return json.dumps(content).encode(), "application/json", broken
    file = io.BytesIO()
    kinds = [lambda v: v, lambda v: v.astype(">f8"), np.asfortranarray]
    given = no_array(rng, theta) if broken else kinds[rng.integers(3)](theta)
    if isinstance(given, list | np.ma.MaskedArray):  # no file can hold these
        given = theta[:, :-1]
    np.savez(file, x=x, theta=given)
    return file.getvalue(), "application/x-npz", broken
