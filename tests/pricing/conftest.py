import pytest

from pricing.table import Table


@pytest.fixture(scope="session")
def table() -> Table:
    return Table.packaged()
