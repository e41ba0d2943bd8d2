"""`Reqon()`: an instance with its own extensions, hooks and plugins (spec/runtime.md 20)."""

import asyncio
from pathlib import Path
from typing import Protocol, Self, Unpack

from reqon.api import ExecutionOptions, ExecutionResult, _execute, _loaded, _parsed
from reqon.errors import ConfigurationError
from reqon.lang.program import MissionProgram, Program
from reqon.runtime.hooks import Hooks
from reqon.runtime.registries import Registries


class Plugin(Protocol):
    """What `Reqon.use` takes. `install` gets the instance, to register things and to tap hooks."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    def install(self, reqon: "Reqon") -> object: ...


class Reqon(Registries):
    """Runs missions with functions, stores, auth providers, paginations and steps of its own.

    What is registered here (`register_function` and its kin, methods of this class) is unknown to other instances and
    to `reqon.execute`, and what is registered there is unknown here. `hooks` are the moments where code may step in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hooks = Hooks()
        self.plugins: dict[str, str] = {}

    def use(self, plugin: Plugin) -> Self:
        """Install a plugin; once by name.

        Raises:
            ConfigurationError: another version of it is installed already.
            TypeError: it is no plugin.
        """
        if not (hasattr(plugin, "name") and hasattr(plugin, "version") and callable(getattr(plugin, "install", None))):
            raise TypeError(f"a plugin has name, version and install(reqon); {type(plugin).__name__} has not")
        name, version = str(plugin.name), str(plugin.version)
        known = self.plugins.get(name)
        if known is not None:
            if known != version:
                raise ConfigurationError(f"plugin {name} {version}: version {known} is installed already")
            return self
        plugin.install(self)
        self.plugins[name] = version
        return self

    async def parse(self, source: str, *, mission_dir: Path | str | None = None) -> Program:
        """The checked missions of a text, as `reqon.parse`, with this instance's names and hooks."""
        return await _parsed(source, {"mission_dir": mission_dir}, self, self.hooks)

    async def execute(
        self, source: str | Program | MissionProgram, **options: Unpack[ExecutionOptions]
    ) -> ExecutionResult:
        """Run a mission once, as `reqon.execute`."""
        return await _execute(source, options, registries=self, hooks=self.hooks)

    async def from_file(self, path: Path | str, **options: Unpack[ExecutionOptions]) -> ExecutionResult:
        """Run the mission of one file, as `reqon.from_file`."""
        program = await asyncio.to_thread(_loaded, Path(path), options, folders=False, registries=self)
        return await _execute(program, options, registries=self, hooks=self.hooks)

    async def from_path(self, path: Path | str, **options: Unpack[ExecutionOptions]) -> ExecutionResult:
        """Run the mission of a file or folder, as `reqon.from_path`."""
        program = await asyncio.to_thread(_loaded, Path(path), options, registries=self)
        return await _execute(program, options, registries=self, hooks=self.hooks)
