"""How a command ends: the exit code that `main` answers."""

CONFIGURATION = 3


class Done(BaseException):
    """A command is over; `code` is the process's answer. No exception that anything may catch on the way."""

    def __init__(self, code: int = 0) -> None:
        self.code = code


# What stdout could not take; `main` answers 3 then, unless the command has something worse to say.
LOST: list[OSError] = []
