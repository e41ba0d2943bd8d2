"""What all tests share."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from reqon.secrets import SECRETS

# How long an example takes says more about the machine than about us; what must be quick has its own test.
settings.register_profile("reqon", deadline=None)
settings.load_profile("reqon")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the rendered text beside each golden mission"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden texts are to be rewritten instead of compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(autouse=True)
def _secrets_of_one_test() -> Iterator[None]:
    """What one test calls a secret is no secret in the next one of its process."""
    known = SECRETS.snapshot()
    yield
    SECRETS.restore(known)


@pytest.fixture(autouse=True)
def _mask_of_one_test() -> Iterator[None]:
    """A command that a test runs in its own process narrows the rights of new files; the next test's are as ever."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
