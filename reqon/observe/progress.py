"""Progress bars on a terminal; in a pipe, nothing but the summary."""

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from reqon.diagnostics import escape_controls
from reqon.events import ActionEnded, ActionStarted, Emitted, EventBus, MissionEnded, Progressed


class ProgressBars:
    """One line for each action in work: a bar where the end is known, a count where it isn't."""

    def __init__(self, bus: EventBus, console: Console) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._off = [
            bus.on(ActionStarted, self._started),
            bus.on(Progressed, self._moved),
            bus.on(ActionEnded, self._ended),
            bus.on(MissionEnded, self._over),
        ]

    def start(self) -> None:
        self._bars.start()

    def stop(self) -> None:
        for off in self._off:
            off()
        self._bars.stop()

    def _started(self, emitted: Emitted) -> None:
        key = (emitted.execution_id, emitted.event.action_name)  # type: ignore[attr-defined]
        name = escape_controls(f"{emitted.mission} · {key[1]}")
        self._tasks[key] = self._bars.add_task(name, total=None, count="")

    def _moved(self, emitted: Emitted) -> None:
        event = emitted.event
        assert isinstance(event, Progressed)
        task = self._tasks.get((emitted.execution_id, event.action))
        if task is not None:
            count = f"{event.current:,} of {event.total:,}" if event.total is not None else f"{event.current:,}"
            self._bars.update(
                task, completed=event.current, total=event.total, count=f"{count}  {escape_controls(event.step)}"
            )

    def _ended(self, emitted: Emitted) -> None:
        task = self._tasks.pop((emitted.execution_id, emitted.event.action_name), None)  # type: ignore[attr-defined]
        if task is not None:
            self._bars.remove_task(task)

    def _over(self, emitted: Emitted) -> None:
        for key in [k for k in self._tasks if k[0] == emitted.execution_id]:
            self._bars.remove_task(self._tasks.pop(key))
