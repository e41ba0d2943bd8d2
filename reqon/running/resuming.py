"""Which execution a resume goes on with, and why one cannot be resumed."""

from dataclasses import replace

from reqon.errors import ReqonError
from reqon.running.shared import Shared, mission_directory
from reqon.runtime.explain import ANEW, REFUSED, Outlook, outlook
from reqon.runtime.plan import Plan
from reqon.runtime.request import RunRequest
from reqon.state import recovery
from reqon.state.backend import StateBackend
from reqon.state.records import ExecutionRecord, ExecutionStatus, is_newer
from reqon.stores.lines import last_number, reaches
from reqon.stores.registry import Places, file_of, written_position


class ResumeRefusedError(ReqonError):
    """An execution cannot be resumed, and the reason."""

    slug = "resume-refused"
    kind = "config"


def resumable(shared: Shared, plan: Plan, request: RunRequest) -> ExecutionRecord | None:
    """The execution to resume; None: there is nothing to resume, run anew.

    Raises:
        ResumeRefusedError: the mission has changed, or the execution that was named cannot go on.
    """
    if not plan.enable_state:
        return None
    backend = shared.state_of(plan)
    recovery.recover(backend, shared.directory, mission=plan.name)
    record = _asked_for(plan, request, backend)
    reason = _why_not(plan, record, backend)
    if reason is None:
        return record
    refused = _refused(plan, request, record, reason)
    if refused is not None:
        raise refused
    return None


def begun_again(shared: Shared, plan: Plan, request: RunRequest) -> str | None:
    """The id of the execution that `--force` begins again as a new one; None: there was nothing to go on with."""
    if not (request.resume and request.force and plan.enable_state):
        return None
    record = _asked_for(plan, request, shared.state_of(plan))
    return record.execution_id if record is not None and recovery.may_resume(record) else request.execution_id


def what_a_resume_would_do(shared: Shared, plan: Plan, request: RunRequest) -> Outlook:
    """What `--resume` would do with a mission, found without touching anything.

    Raises:
        ResumeRefusedError: it has no such execution.
    """
    anew = Outlook(mission=plan.name, decision=ANEW, reason="it keeps no state (enableState: false)")
    if not plan.enable_state:
        return anew
    backend = shared.backend.choose(plan.state_store)
    record = _asked_for(plan, request, backend)
    if record is not None and record.status is ExecutionStatus.RUNNING:
        where = f"{record.execution_id} is running now"
        return replace(anew, decision=REFUSED, execution_id=record.execution_id, reason=where)
    reason = _why_not(plan, record, backend)
    if record is None or reason is not None:
        refused = _refused(plan, request, record, reason or "")
        known = replace(anew, execution_id=record.execution_id if record else None, reason=reason)
        return known if refused is None else replace(known, decision=REFUSED, hint=refused.hint)
    places = Places(directory=shared.directory.stores, mission_directory=mission_directory(plan))
    chosen = {name: shared.chosen_store(plan, name) for name in plan.program.stores}
    positions = {n: written_position(c, places) for n, c in chosen.items() if c is None or c.kind != "memory"}
    files = {n: file_of(c, places) for n, c in chosen.items() if c is not None and c.kind == "file"}
    if (letters := shared.dead_letters_of(plan)) is not None:
        positions["dlq"] = last_number(letters)
        files["dlq"] = letters
    openings = {name: reaches(path) for name, path in files.items()}
    return outlook(plan, record, backend.journal(record), positions, openings)


def _asked_for(plan: Plan, request: RunRequest, backend: StateBackend) -> ExecutionRecord | None:
    if request.execution_id is None:
        return next(iter(backend.list(plan.name, limit=1)), None)
    record = backend.load(request.execution_id)
    if record is None or record.mission != plan.name:
        raise ResumeRefusedError(f"mission '{plan.name}' has no execution {request.execution_id}")
    return record


def _why_not(plan: Plan, record: ExecutionRecord | None, backend: StateBackend) -> str | None:
    if record is None:
        return "there is no earlier execution"
    if is_newer(record):
        return f"Reqon {record.reqon_version} wrote it, a newer one than this"
    if not recovery.may_resume(record):
        return f"it is {record.status}"
    if record.mission_hash != plan.definition_hash:
        return "the mission has changed since"
    if record.actions_run and not backend.journal(record).exists:
        return "its journal is gone"
    return None


def _refused(plan: Plan, request: RunRequest, record: ExecutionRecord | None, reason: str) -> ResumeRefusedError | None:
    """Why a resume that cannot be is refused; None: it runs anew."""
    if request.force and record is not None:
        return None
    named = request.execution_id is not None
    if record is not None and (named or record.mission_hash != plan.definition_hash) and recovery.may_resume(record):
        return ResumeRefusedError(
            f"cannot resume {record.execution_id} of {plan.name}: {reason}",
            hint="--force starts it again from its first action, as a new execution",
        )
    if named:
        return ResumeRefusedError(f"cannot resume {request.execution_id} of {plan.name}: {reason}")
    return None
