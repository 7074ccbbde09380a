"""What several unit tests need."""

import pytest

from support.fake_port import FakePort
from tether_workers.attempts.running import Attempts


@pytest.fixture
def port():
    """A worker port in memory."""
    return FakePort()


@pytest.fixture
def attempts():
    """A worker's running attempts; no time passes for them."""
    return Attempts(clock=lambda: 0.0, on_unwritten=lambda attempt: None)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tokenizer():
    """The demo model's."""
    # Here, since only what needs it should wait for transformers to be imported.
    from transformers import AutoTokenizer

    from tether_workers import demo_model

    return AutoTokenizer.from_pretrained(demo_model.folder(), local_files_only=True)
