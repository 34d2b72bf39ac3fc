"""What a simulated bench tells and takes beside its wires."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from profiles import format_profile

PROFILE = format_profile(193.1 + 0.001 * np.arange(20), np.full(20, 10.0), np.zeros(20), 1)


@pytest.fixture
def admin(on_sockets) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=on_sockets[0].admin, trust_env=False) as client:
        yield client


def test_the_admin_interface_counts(admin, url):
    assert admin.get("/healthz").json() == {"status": "ok", "rigs": ["optics"]}
    shaper = {"blocked": True, "safe": True, "profiles_loaded": 0, "out_of_limits": 0}
    assert shaper.items() <= admin.get("/rigs/optics").json()["shaper"].items()
    loud = PROFILE.replace("10.0000", "61.0000", 3)
    body = {"type": "wsp", "wsp": loud}
    httpx.post(f"{url}/waveshaper/loadprofile", json=body, trust_env=False)
    states = admin.get("/rigs/optics").json()
    shaper = {"blocked": False, "safe": False, "profiles_loaded": 1, "out_of_limits": 3}
    assert shaper.items() <= states["shaper"].items()
    assert states["spectrometer"]["sweeps"] == 0
    assert states["spectrometer"]["safe"] is True
    assert states["daq"]["outputs_v"] == [0.0, 0.0]


def test_the_admin_interface_arms_faults(admin, url, on_sockets):
    order = {"instrument": "shaper", "fault": "refuse", "times": 5}
    assert admin.post("/rigs/optics/faults", json=order).status_code == 200
    devinfo = f"{url}/waveshaper/devinfo"
    assert httpx.get(devinfo, trust_env=False).json()["rc"] == -1
    assert admin.delete("/rigs/optics/faults").status_code == 200
    assert httpx.get(devinfo, trust_env=False).json()["rc"] == 0


def test_the_admin_interface_opens_the_interlock(admin):
    for closed in (False, True):
        assert admin.put("/rigs/optics/interlock", json={"closed": closed}).status_code == 200
        assert admin.get("/rigs/optics").json()["interlock"]["closed"] is closed
    answer = admin.put("/rigs/optics/interlock", json={"closed": 0})
    assert answer.json() == {"detail": "closed: true or false is needed"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "named"),
    [
        ("GET", "/", "", 404, "rigs: optics"),
        ("GET", "/rigs/plate", "", 404, "rigs: optics"),
        ("PUT", "/rigs/optics/keys", "{}", 404, "no PUT"),
        ("POST", "/rigs/optics/keys", "{", 400, "Expecting"),
        ("POST", "/rigs/optics/keys", "[]", 400, "an object is needed"),
        ("POST", "/rigs/optics/keys", "{}", 400, "keys: a list"),
        ("POST", "/rigs/optics/keys", '{"keys": [[1, 2]]}', 400, "not enough values"),
        ("POST", "/rigs/optics/keys", '{"keys": 3}', 400, "keys: a list"),
        ("POST", "/rigs/optics/faults", "{}", 400, "instrument: a text"),
    ],
)
def test_requests_that_mean_nothing(admin, method, path, body, status, named):
    answer = admin.request(method, path, content=body)
    assert answer.status_code == status
    assert named in answer.json()["detail"]
