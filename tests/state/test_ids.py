from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.state.ids import derived_key, execution_time, is_execution_id, new_execution_id

INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  # bounds


@given(INSTANTS)
def test_an_id_tells_its_time(at: datetime) -> None:
    execution_id = new_execution_id(at)
    assert len(execution_id) == 31
    assert is_execution_id(execution_id)
    assert execution_time(execution_id) == at.replace(microsecond=at.microsecond // 1000 * 1000)


@given(INSTANTS, st.timedeltas(timedelta(milliseconds=1), timedelta(days=9000)))
def test_later_ids_sort_later(at: datetime, later: timedelta) -> None:
    if at.year < 9900 - later.days // 365:
        assert new_execution_id(at) < new_execution_id(at + later)


def test_ids_of_one_moment_differ() -> None:
    at = datetime(2024, 1, 20, tzinfo=UTC)
    assert len({new_execution_id(at) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("text", ["exec_abc123", "", "exec_", "exec_" + "z" * 26, "exec_" + "i" * 26, "x" * 31])
def test_other_ids_tell_no_time(text: str) -> None:
    assert execution_time(text) is None


@pytest.mark.parametrize("text", ["", "../x", "a b", "a/b", "x" * 65, "ä", "a\n"])
def test_what_is_unsafe_in_a_file_name_is_no_id(text: str) -> None:
    assert not is_execution_id(text)


def test_a_derived_key_is_the_same_for_the_same_place_only() -> None:
    def keys() -> list[str]:
        return [
            derived_key("auto_", execution_id, step, *indices)
            for execution_id in ("e", "e1")
            for step in ("step", "step1")
            for indices in [(), (1,), (2,), (12,), (1, 2)]
        ]

    assert len(set(keys())) == 20
    assert keys() == keys()
    assert all(k.startswith("auto_") and len(k) == 31 and k == k.lower() for k in keys())
