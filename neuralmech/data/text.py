"""A text for language models, character by character."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from neuralmech.data.dataset import Dataset
from neuralmech.data.options_own import TextOptions, place
from neuralmech.data.parts import Samples
from neuralmech.errors import UserError

SHIPPED = Path(__file__).parent / "texts" / "sonnets.txt"  # of Shakespeare, 1609


def load_text(options: TextOptions) -> Dataset:
    """Windows of a file; a token is a character's number among all that occur, in the order of Unicode.

    Raises
    ------
    UserError
        If the file is not there, is no UTF-8, or is shorter than a window in either part.
    """
    path = SHIPPED if options.path is None else place(options.path)
    tokens, characters = encoded(read_text(path))
    if len(characters) < 2:
        raise UserError(f"data.path: {path} has {len(characters)} different characters; give a text with two or more")
    held = round(len(tokens) * options.test_fraction)
    train, test = (
        _windows(part, name, path, options)
        for part, name in ((tokens[: len(tokens) - held], "training"), (tokens[len(tokens) - held :], "held-out"))
    )
    return Dataset(train, test, classes=len(characters))


def read_text(path: Path) -> str:
    """All of a text file, without a byte order mark.

    Raises
    ------
    UserError
        If it is not there, or no UTF-8.
    """
    if not path.is_file():
        raise UserError(f"data.path: {path} is no file; give a text file")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"data.path: {path} is not UTF-8 ({error.reason} at byte {error.start}); save it so") from None


def encoded(text: str) -> tuple[Int64[Tensor, " characters"], str]:
    """Tokens of a text, and the characters that they stand for.

    Examples
    --------
    >>> tokens, characters = encoded("to be")
    >>> tokens.tolist(), characters
    ([4, 3, 0, 1, 2], ' beot')
    """
    points, tokens = np.unique(np.frombuffer(text.encode("utf-32-le"), "<u4"), return_inverse=True)
    return torch.from_numpy(tokens.astype(np.int64)), "".join(map(chr, points))


def _windows(tokens: Tensor, name: str, path: Path, options: TextOptions) -> Samples:
    """Windows (windows, length) and, for each character, the next one."""
    if len(tokens) <= options.length:
        raise UserError(
            f"data.length={options.length}: the {name} part of {path} has {len(tokens)} characters, and a window with "
            "its next one needs more; shorten data.length, change data.test_fraction, or take a longer text"
        )
    stride = options.stride or options.length
    return Samples(tokens[:-1].unfold(0, options.length, stride), tokens[1:].unfold(0, options.length, stride))
