"""When Python looks for cycles. Its collector costs a fifth and more of a run that holds many records.

Nothing the engine makes per item is a cycle: reference counts free it. So the collector rests while a process starts,
leaves what is loaded alone for good, and then looks seldom; cycles of libraries (a task and its exception) are few.
"""

import gc

# New containers between two looks at the youngest. At a few hundred bytes each, what waits stays under some 20 MB.
_YOUNGEST, _MIDDLE, _OLDEST = 50_000, 20, 20


def rest() -> None:
    """Look for nothing while modules and missions are loaded."""
    gc.disable()


def settle() -> None:
    """What is loaded by now stays; look seldom from now on.

    Waste is not looked for first: a process that loaded two thousand missions has twenty objects of it, and the look
    takes a third of a second.
    """
    gc.freeze()
    gc.set_threshold(_YOUNGEST, _MIDDLE, _OLDEST)
    gc.enable()
