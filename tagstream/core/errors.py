"""Every error of tagstream. The class says what happens next; the docstring is what an operator reads.

TagstreamError
  InvalidEvent          never retried: the record goes to the dead letters with its reason
  Unavailable           retried with backoff, nothing is lost, the worker is healthy but not ready
    StoreNotInitialised   until `jobs/rebuild_store.py` has refilled it
    ReplicaDied           or did not answer: once more, then event by event in a process of its own
    TransactionAborted    no reader sees any of it: it is sent again
  Overloaded            not a failure: slow down and try again
  TaggingFailed         the model raised on these events: halved until the guilty one is a dead letter
  StartOver             the worker is made anew and reads from the last commit
  TooManyDeadLetters    every consumer halts, nothing is lost, until `tagstream resume`
  IncompatibleModel     the model version is refused, the champion stays
  BadSettings           nothing is started
"""

from __future__ import annotations

#: A reason may quote the record, which may be large and hold line ends.
_REASON_MAX_CHARS = 500


class TagstreamError(Exception):
    """Base of every error that tagstream raises on purpose."""


class InvalidEvent(TagstreamError):
    """The record cannot become an event and never will. It is a dead letter; correct it at its producer."""

    def __init__(self, reason: str, stage: str = "decode") -> None:
        self.reason = " ".join(reason[:_REASON_MAX_CHARS].split())
        super().__init__(self.reason)
        self.stage = stage


class Unavailable(TagstreamError):
    """An outside system does not answer. The worker retries and loses nothing; bring the system back."""


class StoreNotInitialised(Unavailable):
    """The store has no layout mark. If it is new, run `tagstream topics create`. If it was emptied, refill it
    with `jobs/rebuild_store.py`."""


class ReplicaDied(Unavailable):
    """The process that worked on this micro-batch died, or did not answer in time. Another replica tries once
    more. If that fails too, its events go one by one through a process of their own. An event on which that
    fails twice is a dead letter."""


class TransactionAborted(Unavailable):
    """The broker rolled a transaction back: no reader at read_committed sees any of it. It is sent again
    for the partitions that are still held."""


class StartOver(TagstreamError):
    """What the worker holds does not fit the store any more. A new worker reads from the last commit; nothing
    is lost."""


class Overloaded(TagstreamError):
    """The replicas cannot take more. The worker slows down; add replicas if it lasts."""


class TaggingFailed(TagstreamError):
    """The model raised on this micro-batch. It is halved until the guilty event is alone."""


class TooManyDeadLetters(TagstreamError):
    """So many events fail that the cause is ours, not theirs. Every consumer has halted and lost nothing;
    remove the cause (a bad deploy, a model that raises), then run `tagstream resume`."""


class IncompatibleModel(TagstreamError):
    """The model version's files disagree with each other or with this code. The champion stays as it is."""


class BadSettings(TagstreamError):
    """A setting is missing or wrong. Nothing was started; correct the named setting and start again."""
