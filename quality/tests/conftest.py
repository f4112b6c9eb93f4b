"""What the tests need and how they say so: a need that SEMPROXY_TEST_REQUIRE names fails where it is missing, else it is skipped."""

import os
from pathlib import Path

import pytest

from semproxy_quality import models


def required(need: str) -> bool:
    return need in os.environ.get("SEMPROXY_TEST_REQUIRE", "").split(",")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2's folder. Required, it is fetched where it is not there yet; else the test is skipped without it."""
    source = models.SOURCES["smol"]
    if not required("smollm2") and not (models.cache() / source.folder / "config.json").is_file():
        pytest.skip("SmolLM2 is not in the cache: SEMPROXY_TEST_REQUIRE=smollm2 fetches it")
    return models.fetch(source)
