"""tokenizer_config.json: what a Hugging Face folder says beside a vocabulary, as far as `edgetok/text/` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from edgetok.errors import InputError
from edgetok.text.library import SETTINGS
from edgetok.text.vocabulary import read

MOST_BYTES = 16 << 20


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


Token = Annotated[str, BeforeValidator(_content)]  # a string, or an object with it


class Settings(BaseModel):
    """The file's fields, by the names that transformers gives them; others are passed over.

    Attributes:
        tokenizer_class: of transformers, which knows by it what stands around a text.
        add_bos_token: whether texts begin with `bos_token`; None where the file does not say.
        add_eos_token: whether they end with `eos_token`.
        bos_token: the token of the beginning.
        eos_token: the token of the end.
        pat_str: tiktoken's pattern of the pieces that no token crosses.
        added_tokens_decoder: the tokens that are not in the vocabulary's file, by id.
    """

    model_config = ConfigDict(frozen=True)
    tokenizer_class: str | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    bos_token: Token | None = None
    eos_token: Token | None = None
    pat_str: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    added_tokens_decoder: dict[Annotated[int, Field(ge=0, lt=2**31)], Token] = {}


def beside(vocabulary: Path) -> Settings:
    """The settings in a vocabulary's folder; without the file, those that say nothing.

    Raises:
        InputError: the file is damaged.
    """
    file = vocabulary.parent / SETTINGS
    if not file.is_file():
        return Settings()
    try:
        return Settings.model_validate_json(read(file, MOST_BYTES))
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InputError(f"{SETTINGS}: {'.'.join(map(str, wrong['loc'])) or 'the file'}: {wrong['msg']}") from None
