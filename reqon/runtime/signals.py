"""What a step answers, when it isn't simply done."""

from typing import Final

# A generated step that ends its action answers this; one that is done answers None.
SKIP: Final = "skip"


class RetryFetch(Exception):  # noqa: N818  # a signal, not an error
    """Go back to a fetch of this action and repeat it, after so many seconds."""

    def __init__(self, target: str, delay_seconds: float, attempt: int, max_attempts: int) -> None:
        super().__init__(target)
        self.target = target
        self.delay_seconds = delay_seconds
        self.attempt = attempt  # the one that is over
        self.max_attempts = max_attempts


class SkipIteration(Exception):  # noqa: N818  # a signal, not an error
    """End this iteration from within a block that a plain `continue` cannot leave."""


class RestartAction(Exception):  # noqa: N818  # a signal, not an error
    """Run the whole action again from its first step, after so many seconds."""

    def __init__(self, delay_seconds: float) -> None:
        super().__init__(delay_seconds)
        self.delay_seconds = delay_seconds
