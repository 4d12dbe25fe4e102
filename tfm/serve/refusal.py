"""A request that is not answered, and why."""

import math


class Refusal(Exception):
    """What a client is told in place of an answer.

    Attributes:
      status: of HTTP.
      message: one sentence, without any part of a text.
      retry_after: whole seconds after which the same request may succeed.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.retry_after = None if retry_after is None else min(120, max(1, math.ceil(retry_after)))
