"""The errors of this package.

EmpathyAgentError
├── InputError (ValueError)         the caller's text, file or argument cannot be used
├── ModelError (RuntimeError)       a model, adapter or tokenizer cannot be loaded or does not fit
├── OverloadedError (RuntimeError)  the worker's queue is full
├── MissingExtraError (ImportError) a feature needs an extra that is not installed
├── ReplyError (RuntimeError)       a model failed while it wrote a reply
│   └── UnreachableError (ReplyError) nobody answers at the server of the models, or not in time
└── StorageError (RuntimeError)     the database of threads failed

Each also is the built-in error in brackets, so that `except ValueError` works and the message reaches LangGraph's server.
"""

from __future__ import annotations


class EmpathyAgentError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(EmpathyAgentError, ValueError):
    """The caller's text, file or argument cannot be used; the message says what can."""


class ModelError(EmpathyAgentError, RuntimeError):
    """A model, adapter or tokenizer cannot be loaded or does not fit the others."""


class OverloadedError(EmpathyAgentError, RuntimeError):
    """The worker's queue is full; try again later or raise its size."""


class MissingExtraError(EmpathyAgentError, ImportError):
    """A feature needs an extra that is not installed; the message holds the install line."""


class ReplyError(EmpathyAgentError, RuntimeError):
    """A model failed while it wrote a reply."""


class UnreachableError(ReplyError):
    """Nobody answers at the server of the models, or not in time; no other model of that server would."""


class StorageError(EmpathyAgentError, RuntimeError):
    """The database of threads failed; what was stored before is still there."""
