"""What every scene of this folder starts from."""

from __future__ import annotations

from tests.addon.conftest import _keys_are_read_once, confdir, data_dir, proxied

__all__ = ["_keys_are_read_once", "confdir", "data_dir", "proxied"]
