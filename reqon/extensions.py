"""What users' code adds to the language, for the checker: functions, store adapters, state stores."""

from reqon.lang.check import Registered
from reqon.lang.functions import REGISTERED
from reqon.state.custom import registered_state_stores
from reqon.stores.registry import known_adapters


def registered() -> Registered:
    """The names that are known in this process now."""
    return Registered(
        functions=frozenset(REGISTERED),
        adapters=frozenset(known_adapters()),
        state_stores=frozenset(registered_state_stores()),
    )
