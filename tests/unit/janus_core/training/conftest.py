"""The small models' tokenizers, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from janus_core.processing import chat
from janus_core.processing.tokenizer import Tokenizer
from janus_core.training.batches import RowMaker
from janus_core.training.recipes.tiny import VOCABULARY
from janus_core.training.streams import corpus
from janus_core.training.vocabulary import write_vocabulary


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return corpus(0, 4000)


@pytest.fixture(scope="session")
def vocabulary(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the recipe of janus-tiny makes it."""
    folder = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(folder, texts, VOCABULARY, bracketed=True)
    return folder


@pytest.fixture(scope="session")
def tokenizer(vocabulary: Path) -> Tokenizer:
    return Tokenizer.from_folder(vocabulary)


@pytest.fixture(scope="session")
def rows(tokenizer: Tokenizer) -> RowMaker:
    """Rows with four image tokens a picture."""
    return RowMaker(tokenizer, chat.BRACKETED, 4)
