"""Errors that travel to another process with their type, their message and what they carry."""

import pickle
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ToldError:
    """An error as it can be sent anywhere: what makes it again, or else its text.

    parts: those of a group.
    """

    pickled: bytes | None
    text: str
    parts: tuple["ToldError", ...] = ()

    def rebuilt(self) -> Exception:
        """Return the error; a RuntimeError with its text where it cannot be made again."""
        if self.parts:
            return ExceptionGroup(self.text, [part.rebuilt() for part in self.parts])
        error = None if self.pickled is None else _made(self.pickled)
        return RuntimeError(self.text) if error is None else error


class RemoteTrace(Exception):
    """The trace of an error in the process that it came from; the cause of its copy here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def tell(error: BaseException) -> ToldError:
    """Return what can be sent of an error."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ExceptionGroup):
        return ToldError(None, error.message, tuple(tell(part) for part in error.exceptions))
    for content in (error, (type(error), error.args, error.__dict__)):
        pickled = _pickled(content)
        made = None if pickled is None else _made(pickled)
        if type(made) is type(error) and str(made) == str(error):
            return ToldError(pickled, text)
    return ToldError(None, text)


def _pickled(content: object) -> bytes | None:
    try:
        return pickle.dumps(content)
    except Exception:  # whatever its arguments' own code raises
        return None


def _made(pickled: bytes) -> Exception | None:
    """Return the error, None where that does not work: its constructor may want other arguments."""
    try:
        content: Any = pickle.loads(pickled)
        if isinstance(content, tuple):
            kind, args, state = content
            content = kind.__new__(kind, *args)
            content.__dict__.update(state)
    except Exception:  # whatever its own code raises
        return None
    return content if isinstance(content, Exception) else None
