"""Each node has a folder of its own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lattice.errors import Conflict, Invalid
from node.data_folder import open_data_folder


def test_each_node_gets_the_first_free_folder(tmp_path: Path) -> None:
    with open_data_folder(tmp_path) as first:
        with open_data_folder(tmp_path) as second:
            assert (first.name, second.name) == ("node-1", "node-2")
        with open_data_folder(tmp_path) as again:
            assert again.name == "node-2"
    with open_data_folder(tmp_path) as again:
        assert again == first
        assert stat.S_IMODE(again.stat().st_mode) == 0o700


def test_an_explicit_folder_in_use_is_a_conflict_that_names_the_process(tmp_path: Path) -> None:
    explicit = tmp_path / "mine"
    with (
        open_data_folder(tmp_path, explicit) as held,
        pytest.raises(Conflict, match=f"process {os.getpid()}.*--data"),
        open_data_folder(tmp_path, explicit),
    ):
        pass
    assert held == explicit


def test_a_folder_that_cannot_be_made_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid, match="--data"), open_data_folder(tmp_path, tmp_path / "file" / "x"):
        pass
