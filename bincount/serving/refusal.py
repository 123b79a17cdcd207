"""What a request is answered that is not counted."""


class Refusal(Exception):
    """Answered with an HTTP ``status`` and one line that says why. ``retry_after``: seconds, or None."""

    def __init__(self, status: int, told: str, retry_after: int | None = None):
        super().__init__(told)
        self.status, self.told, self.retry_after = status, told, retry_after
