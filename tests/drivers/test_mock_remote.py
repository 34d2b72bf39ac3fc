"""Row keys and faults told to a rig in another process, here without the network between."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import ConnectionLost, InstrumentRefused, ProtocolError
from drivers.mock.faults import Fault, FaultOrder, PlantFault
from drivers.mock.http import FirmwareClient
from drivers.mock.readout import Readout
from drivers.mock.remote import RemoteRig
from drivers.mock.rig import Rig
from drivers.mock.serve.admin import Admin
from drivers.row_key import RowKey, row_keys


class CountingAdmin(Admin):
    """Counts the requests that are answered."""

    requests = 0

    def handle(self, method, path, body):
        self.requests += 1
        return super().handle(method, path, body)


class ListeningPlant:
    """Remembers with which key each reading was made."""

    def __init__(self) -> None:
        self.read: list[RowKey | None] = []
        self._key: RowKey | None = None

    def announce(self, key: RowKey) -> None:
        self._key = key

    def respond(self, rows: list[int]) -> list[int]:
        self.read.append(self._key)
        self._key = None
        return rows


class Far:
    """A plant behind an admin interface, and the rig that its client holds."""

    def __init__(self, ahead: bool = True) -> None:
        self.plant = ListeningPlant()
        readout = Readout(self.plant, 1.0)
        self.sweep = lambda: readout.watched(self.plant.respond, len)([0])
        if not ahead:
            self.sweep = lambda: self.plant.respond([0])
        rig = Rig(self.plant, {"daq": object()}, readouts={"daq": readout} if ahead else None)
        self.admin = CountingAdmin({"far": rig})
        self.rig = RemoteRig("far", FirmwareClient(self.admin, timeout_s=1))


@pytest.fixture
def far() -> Iterator[Far]:
    far = Far()
    yield far
    far.rig.close()


def test_a_pass_is_one_request_however_long(far):
    far.rig.announce_rows(())  # from then on it is known that keys are taken ahead
    keys = row_keys(5, 2**62, 2500, 0.75, waited_s=0.1)
    for key in keys:
        far.rig.announce_rows([key], keys)
        far.sweep()
    assert far.plant.read == keys
    assert far.admin.requests == 1 + 3  # of at most a thousand keys each


@pytest.mark.parametrize("ahead", [True, False])
@given(data=st.data())
def test_every_reading_has_the_key_announced_for_it_and_no_other(ahead, data):
    far = Far(ahead)
    passes = [row_keys(stream, 7, 6, 0.75) for stream in range(3)]
    expected: list[RowKey | None] = []
    done = [0, 0, 0]
    turn = st.tuples(st.integers(-1, 2), st.booleans())
    for which, fails in data.draw(st.lists(turn, max_size=40)):
        if which < 0:  # a row that has no key
            far.rig.announce_rows((), ())
            expected.append(None)
            far.sweep()
            continue
        keys = passes[which]
        if done[which] == len(keys):
            continue
        key = keys[done[which]]
        done[which] += 1
        far.rig.announce_rows([key], keys)
        if fails and ahead:  # before anything was read: whoever repeats the pass starts it anew
            done[which] = 0
            passes[which] = list(keys)
            continue
        expected.append(key)
        far.sweep()
    far.rig.close()
    assert far.plant.read == expected


def test_a_batch_of_rows_of_several_passes_is_told_as_it_is(far):
    mixed = [*row_keys(1, 0, 2, 0.75), *row_keys(2, 5, 2, 0.75)]
    for _ in range(2):
        far.rig.announce_rows(mixed, ())
        for _ in mixed:
            far.sweep()
    assert far.plant.read == 2 * mixed


def test_faults_are_armed_and_cleared_from_afar(far):
    far.rig.arm(FaultOrder("daq", PlantFault.STUCK, times=3))
    far.rig.clear_faults()
    with pytest.raises(InstrumentRefused, match=r"rig far: .*no instrument 'scope'.*daq"):
        far.rig.inject("scope", Fault.DROP)
    assert far.rig.states()["interlock"]["safe"] is True


def test_an_admin_that_is_none(far):
    rig = RemoteRig("near", FirmwareClient(far.admin, timeout_s=1))
    with pytest.raises(InstrumentRefused, match=r"rig near: .*HTTP status 404.*rigs: far"):
        rig.announce(RowKey(0, 0, 0.0))
    for answer in (b"welcome", b"[]", b'"a"'):
        far.admin.handle = lambda *_, answer=answer: (200, "text/html", answer)
        with pytest.raises(ProtocolError, match=r"rig far: .*answered"):
            far.rig.states()
    far.rig.close()
    with pytest.raises(ConnectionLost, match="rig far"):
        far.rig.states()


GOOD = {"instrument": "osa", "fault": "dead pixel", "times": 2, "pixel": 17}


def test_an_order_is_read_with_all_that_it_says():
    assert FaultOrder.read(GOOD) == FaultOrder("osa", PlantFault.DEAD_PIXEL, times=2, pixel=17)
    assert FaultOrder.read({"instrument": "osa", "fault": "drop"}).fault is Fault.DROP


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"fault": "fire"}, "'fire' is none of timeout, drop"),
        ({"instrument": 3}, "instrument: a text"),
        ({"on": 3}, "on: a text"),
        ({"times": 0}, "times: a whole number from 1"),
        ({"times": 1.5}, "times: a whole number"),
        ({"times": True}, "times: a whole number"),
        ({"pixel": -1}, "pixel: a whole number from 0"),
        ({"delay_s": "long"}, "delay_s: a number from 0 to 600"),
        ({"delay_s": float("nan")}, "delay_s: a number"),
        ({"burst": 1.1}, "burst: a number from 0 to 1"),
        ({"seconds": 3}, "no seconds"),
    ],
)
def test_an_order_that_means_nothing_is_refused(wrong, named):
    with pytest.raises(ValueError, match=named):
        FaultOrder.read({**GOOD, **wrong})


def test_an_order_says_where_and_what():
    for missing in ("instrument", "fault"):
        with pytest.raises(ValueError, match=f"{missing}: a text is needed"):
            FaultOrder.read({k: v for k, v in GOOD.items() if k != missing})
