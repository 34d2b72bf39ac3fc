"""What a bench file may say of rigs that another process serves."""

import pytest
from pydantic import ValidationError

from documentation import ROOT
from lab.bench_config import BenchConfig, InstrumentConfig, RigConfig, load_bench
from lab.errors import ConfigError
from lab.rigs import is_simulated, on_sockets, with_rigs

OPTICS = load_bench(ROOT / "bench.toml")
REAL = {
    "mock://optics/shaper": "http://lab:1",
    "mock://optics/spectrometer": "TCPIP0::lab::2::SOCKET",
}


def test_an_address_in_memory_says_its_rig():
    assert InstrumentConfig(driver="d", address="mock://plate/audio").rig == "plate"
    assert InstrumentConfig(driver="d", address="http://lab").rig is None
    assert InstrumentConfig(driver="d", address="http://lab", rig="plate").rig == "plate"
    with pytest.raises(ValidationError, match="rig 'optics', but the address is one of rig 'plate"):
        InstrumentConfig(driver="d", address="mock://plate/audio", rig="optics")


def test_a_rig_of_a_real_address_must_be_there():
    part = InstrumentConfig(driver="d", address="http://lab", rig="plate")
    with pytest.raises(
        ValidationError, match=r"instruments\.a\.rig: no rig 'plate' \(there are: n"
    ):
        BenchConfig(name="", instruments={"a": part}, systems={})


@pytest.mark.parametrize(
    "admin", ["lab:9000", "https://lab", "http://", "http://lab/rigs", "http://a b"]
)
def test_an_admin_is_the_address_of_a_process(admin):
    with pytest.raises(ValidationError, match="admin"):
        RigConfig(admin=admin)


def test_a_bench_on_sockets_keeps_everything_else():
    there = on_sockets(OPTICS, "http://lab:9000", REAL)
    assert there.rigs["optics"] == OPTICS.rigs["optics"].model_copy(
        update={"admin": "http://lab:9000"}
    )
    assert [part.address for part in there.instruments.values()] == list(REAL.values())
    assert {part.rig for part in there.instruments.values()} == {"optics"}
    assert there.systems == OPTICS.systems
    assert BenchConfig.model_validate(there.model_dump()) == there


def test_an_instrument_without_a_network_wire_stays_in_memory_with_its_rig():
    plate = load_bench(ROOT / "bench-plate.toml")
    assert on_sockets(plate, "http://lab:9000", {"mock://plate/audio": None}) == plate


def test_what_is_elsewhere_cannot_be_changed_here_nor_be_had_several_times():
    there = on_sockets(OPTICS, "http://lab:9000", REAL)
    assert is_simulated(OPTICS)
    assert not is_simulated(there)
    with pytest.raises(ConfigError, match=r"gap: rig 'optics' is served at http://lab:9000: not h"):
        with_rigs(there, gap=0.5)


def test_a_plant_cannot_be_in_two_places():
    mixed = {**REAL, "mock://optics/spectrometer": None}
    with pytest.raises(
        ConfigError, match=r"rigs\.optics: 'shaper' is served .* 'spectrometer' has no"
    ):
        on_sockets(OPTICS, "http://lab:9000", mixed)


def test_who_is_told_of_row_keys_does_not_change_what_is_measured():
    there = on_sockets(OPTICS, "http://lab:9000", REAL)
    rig = there.rigs["optics"].model_copy(update={"admin": "http://lab:9500"})
    moved = there.model_copy(update={"rigs": {"optics": rig}})
    assert moved.measurement_digest() == there.measurement_digest()


def test_a_simulated_interlock_is_reached_on_its_socket_too():
    contact = {"interlock": {"address": "mock://optics/interlock"}}
    bench = BenchConfig.model_validate({**OPTICS.model_dump(), **contact})
    there = on_sockets(bench, "http://lab:9000", {**REAL, "mock://optics/interlock": "TCPIP0::a"})
    assert there.interlock is not None
    assert there.interlock.address == "TCPIP0::a"
