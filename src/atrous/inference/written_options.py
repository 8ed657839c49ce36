"""Options as people write them, on a command line or in an address: strings that become numbers."""

from __future__ import annotations

from atrous.errors import InputError


def parse_scales(text: str | None, option: str = "--scales") -> tuple[float, ...]:
    """Scale factors separated by commas; none if the option was left out.

    Args:
        text: as ``0.75,1,1.25``.
        option: its name, for the error.

    Raises:
        InputError: something that is not a number.
    """
    try:
        return () if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} takes factors separated by commas, such as 0.75,1,1.25, not '{text}'") from None
