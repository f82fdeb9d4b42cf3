"""Both ways in which a site may answer."""

from __future__ import annotations

import pytest

from tests.node.http import sites


@pytest.fixture(params=["at once", "in time"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every promise holds for answers that are there at once and for those that are waited for."""
    monkeypatch.setattr(sites, "answers_at_once", request.param == "at once")
