"""Benches for a dry run: simulated counterparts where real instruments were."""

from pathlib import Path

import pytest

from drivers.transport import open_rigs
from lab.bench import open_bench
from lab.bench_config import BenchConfig, RigConfig, load_bench
from lab.errors import ConfigError
from lab.openers import DRIVERS
from lab.rehearsal import COUNTERPARTS, rehearsed

ROOT = Path(__file__).parents[2]


def real(bench: str, **addresses: str) -> BenchConfig:
    """Return a bench file's content with real addresses and no rigs."""
    content = load_bench(ROOT / bench).model_dump()
    for name, address in addresses.items():
        content["instruments"][name] |= {"address": address, "rig": None}
    content["rigs"] = {n: r for n, r in content["rigs"].items() if len(addresses) == 1}
    return BenchConfig.model_validate(content)


OPTICS = {"shaper": "http://192.168.1.20", "spectrometer": "TCPIP0::192.168.1.21::10001::SOCKET"}


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_driver_has_a_counterpart_that_stands_on_its_rig(driver):
    plant, instrument = COUNTERPARTS[driver]
    rigs = open_rigs({"rig": RigConfig(plant=plant)})
    assert instrument in rigs["rig"].instruments


def test_no_driver_is_without_a_counterpart():
    assert COUNTERPARTS.keys() == DRIVERS.keys()


@pytest.mark.parametrize(
    ("bench", "addresses", "plant"),
    [
        ("bench.toml", OPTICS, "optics"),
        ("bench-circuit.toml", {"daq": "mcc://01A2B3C4"}, "circuit"),
        ("bench-plate.toml", {"sound": "audio://Scarlett 2i2"}, "plate"),
    ],
)
def test_the_instruments_of_a_system_stand_on_one_simulated_rig(bench, addresses, plant):
    config = rehearsed(real(bench, **addresses))
    (rig,) = {part.rig for part in config.instruments.values()}
    assert config.rigs[rig].plant == plant
    with open_bench(config) as opened:
        for name, instrument in opened.systems[plant].identify().items():
            assert name in addresses
            assert instrument


def test_only_what_is_real_is_replaced():
    config = real("bench.toml", shaper="http://192.168.1.20")
    mixed = rehearsed(config)
    assert mixed.instruments["spectrometer"] == config.instruments["spectrometer"]
    assert mixed.instruments["shaper"].address == "mock://optics/shaper"
    assert mixed.instruments["shaper"].expect_idn is None
    assert mixed.instruments["shaper"].settings == config.instruments["shaper"].settings
    assert mixed.rigs.keys() == {"optics"}


def test_waits_are_not_waited_and_nothing_is_recorded():
    config = load_bench(ROOT / "bench.toml")
    rig = config.rigs["optics"].model_copy(update={"honour_times": True})
    config = config.model_copy(update={"rigs": {"optics": rig}, "record": "session.jsonl"})
    assert not rehearsed(config).rigs["optics"].honour_times
    assert rehearsed(config).record is None


def test_an_instrument_without_a_system_has_a_rig_of_its_own():
    content = real("bench.toml", **OPTICS).model_dump()
    content["instruments"]["spare"] = content["instruments"]["shaper"]
    config = rehearsed(BenchConfig.model_validate(content))
    assert config.instruments["spare"].rig not in (None, config.instruments["shaper"].rig)


def test_rigs_on_sockets_are_left_alone():
    content = load_bench(ROOT / "bench.toml").model_dump()
    content["rigs"]["optics"]["admin"] = "http://127.0.0.1:9"
    for name, address in OPTICS.items():
        content["instruments"][name]["address"] = address
    config = rehearsed(BenchConfig.model_validate(content))
    assert all(rig.admin is None for rig in config.rigs.values())
    assert all(part.address.startswith("mock://") for part in config.instruments.values())


def test_an_interlock_is_not_asked():
    content = load_bench(ROOT / "bench.toml").model_dump()
    content["interlock"] = {"address": "TCPIP0::192.168.1.22::5000::SOCKET"}
    assert rehearsed(BenchConfig.model_validate(content)).interlock is None


def test_a_driver_of_ones_own_needs_a_mock():
    content = real("bench.toml", **OPTICS).model_dump()
    content["instruments"]["shaper"]["driver"] = "my_lab.shapers:open_shaper"
    with pytest.raises(ConfigError, match=r"instruments\.shaper: .*my_lab\.shapers:open_shaper"):
        rehearsed(BenchConfig.model_validate(content))
