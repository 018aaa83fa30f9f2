"""What the readings of both sources share: packages that need not be installed, and prices as they are written."""

import sys
from decimal import Decimal
from importlib.metadata import Distribution, distributions

import click


def package(name: str, path: str | None) -> Distribution:
    """A distribution in a wheel or a directory, or the installed one."""
    found = next(iter(distributions(name=name, path=sys.path if path is None else [path])), None)
    if found is None:
        raise click.ClickException(f"{name} is not in {path or 'the environment'}")
    return found


def plain(price: Decimal) -> Decimal:
    """Without zeros at its end, and without an exponent."""
    return Decimal(f"{price.normalize():f}")
