"""The digital connector of a simulated Red Pitaya: its pins' levels and directions."""

from drivers.mock.firmware.redpitaya_state import one_of, own_error, two, word
from drivers.mock.firmware.scpi import Arguments, Handler

PINS = [f"DIO{i}_{side}" for side in "PN" for i in range(11)]


def pin_commands(levels: dict[str, int]) -> dict[str, Handler]:
    """Return the commands that read and drive the pins, whose levels stand in `levels`."""
    directions = dict.fromkeys(PINS, "IN")

    def turn(arguments: Arguments) -> None:
        direction, pin = two(arguments)
        directions[one_of(pin, PINS)] = one_of(direction, ("IN", "OUT"))

    def drive(arguments: Arguments) -> None:
        pin, level = two(arguments)
        if directions[one_of(pin, PINS)] == "IN":
            raise own_error(9, "Writing to input pin is not valid.")
        levels[pin.upper()] = int(one_of(level, ("0", "1")))

    return {
        "DIG:RST": lambda _: directions.update(dict.fromkeys(PINS, "IN")),
        "DIG:PIN": drive,
        "DIG:PIN?": lambda a: str(levels[word(a, PINS)]),
        "DIG:PIN:DIR": turn,
        "DIG:PIN:DIR?": lambda a: directions[word(a, PINS)],
    }
