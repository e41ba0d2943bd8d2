"""Labelled series with bounds: what no mission, server or scraper can make grow without end (spec/reliability.md 6).

A daemon with a thousand missions has a hundred thousand lines to show, and few of them move between two scrapes. So a
series keeps the text it was last shown with, a family the bytes of all its series, and a scrape writes anew only what
moved. Counting and showing go on in two threads without a lock: whoever counts changes the value first and the family's
number of changes after it; whoever shows reads that number first. What is shown is as new as the last change.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

LABEL_LIMIT = 128
SERIES_LIMIT = 10_000
OTHER = "__other__"

S = TypeVar("S", bound="Number | Distribution")


@lru_cache(maxsize=4096)
def label(value: str) -> str:
    """The value as a label: valid UTF-8, at most 128 characters, different where the values are."""
    text = value.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= LABEL_LIMIT:
        return text
    digest = blake2b(text.encode(), digest_size=4).hexdigest()
    return f"{text[: LABEL_LIMIT - 9]}~{digest}"


class _Changes:
    """How often anything in a family has changed; its series count it up."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class Number:
    """One counter or gauge. One thread calls `inc` and `set`, the scrape's calls `text`."""

    __slots__ = ("_changes", "_shown", "_text", "value")

    def __init__(self, changes: _Changes) -> None:
        self.value = 0.0
        self._changes = changes
        self._shown: float | None = None
        self._text = ""

    def inc(self, amount: float = 1) -> None:
        self.value += amount
        self._changes.number += 1

    def set(self, value: float) -> None:
        self.value = float(value)
        self._changes.number += 1

    def text(self, name: str, labels: tuple[str, ...], values: tuple[str, ...]) -> str:
        """Its line, written anew if the value is another than the one last shown."""
        value = self.value
        # By identity: each change makes a new float, and NaN equals nothing.
        if self._shown is not value:
            start, blank, _ = self._text.rpartition(" ")
            if not blank:
                start = f"{name}{_braced(_pairs(labels, values))}"
            self._text = f"{start} {_written(value)}\n"
            self._shown = value
        return self._text

    def samples(self, name: str, labels: dict[str, str]) -> Iterator[Sample]:
        yield Sample(name, labels, self.value)


class Distribution:
    """One histogram: how many observations were at most as large as each bound. Threads as with `Number`."""

    __slots__ = ("_bounds", "_changes", "_counts", "_seen", "_shown", "_sum", "_text")

    def __init__(self, changes: _Changes, bounds: tuple[float, ...]) -> None:
        self._changes = changes
        self._bounds = bounds  # the last one is +Inf
        self._counts = [0] * len(bounds)
        self._sum = 0.0
        self._seen = 0
        self._shown = -1
        self._text = ""

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value
        self._seen += 1
        self._changes.number += 1

    def text(self, name: str, labels: tuple[str, ...], values: tuple[str, ...]) -> str:
        """Its lines, written anew if there were more observations than when last shown."""
        seen = self._seen
        if self._shown != seen:
            pairs = _pairs(labels, values)
            # A line end stands in no written label: it marks where the bound goes, in the order of the names.
            before, after = _braced({**pairs, "le": "\n"}).split("\n")
            braced = _braced(pairs)
            lines = [f"{name}_bucket{before}{bound}{after} {number}\n" for bound, number in self._cumulated()]
            lines.append(f"{name}_count{braced} {_written(float(sum(self._counts)))}\n")
            lines.append(f"{name}_sum{braced} {_written(self._sum)}\n")
            self._text = "".join(lines)
            self._shown = seen
        return self._text

    def samples(self, name: str, labels: dict[str, str]) -> Iterator[Sample]:
        for bound, number in self._cumulated():
            yield Sample(f"{name}_bucket", {**labels, "le": bound}, float(number))
        yield Sample(f"{name}_count", labels, float(sum(self._counts)))
        yield Sample(f"{name}_sum", labels, self._sum)

    def _cumulated(self) -> Iterator[tuple[str, str]]:
        for bound, number in zip(self._bounds, accumulate(self._counts), strict=True):
            yield _written(bound), _written(float(number))


class Family(Collector, Generic[S]):
    """One metric and its series, at most 10,000; what comes later is counted under `__other__`.

    `kind` is counter, gauge or histogram; the name of a counter ends in `_total`. `at` is called by one thread; the
    scrape's only reads. Without labels there is one series, `at()`, from the start.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        text: str,
        labels: tuple[str, ...] = (),
        *,
        bounds: tuple[float, ...] = (),
        limit: int = SERIES_LIMIT,
    ) -> None:
        self.kind, self.labels = kind, labels
        self.name = name.removesuffix("_total") if kind == "counter" else name
        self._sample = name
        self._about = text
        self._bounds = (*bounds, float("inf"))
        self._limit = limit
        self._series: dict[tuple[str, ...], S] = {}
        self._changes = _Changes()
        self._shown = -1
        self._bytes = b""
        if not labels:
            self.at()

    def at(self, *values: str) -> S:
        """The series with these label values, made with 0 if it isn't there."""
        found = self._series.get(values)
        if found is None:
            known = tuple(map(label, values))
            if known not in self._series and len(self._series) >= self._limit:
                known = (OTHER,) * len(self.labels)
            found = self._series.get(known) or self._made(known)
        return found

    def drop(self, **where: str) -> None:
        """Remove every series with these label values; fine if there is none."""
        wanted = {self.labels.index(name): label(value) for name, value in where.items()}
        for values in [v for v in self._series if all(v[at] == value for at, value in wanted.items())]:
            del self._series[values]
            self._changes.number += 1

    def __contains__(self, values: tuple[str, ...]) -> bool:
        return tuple(map(label, values)) in self._series

    def page(self, *, openmetrics: bool = False) -> bytes:
        """The text of all series as they are now, with their heads."""
        changes = self._changes.number
        if self._shown != changes:
            # One step for the interpreter: series may come and go meanwhile.
            series = tuple(self._series.items())
            name, labels = self._sample, self.labels
            self._bytes = "".join([one.text(name, labels, values) for values, one in series]).encode()
            self._shown = changes
        name = self.name if openmetrics else self._sample
        return f"# HELP {name} {self._about}\n# TYPE {name} {self.kind}\n".encode() + self._bytes

    def describe(self) -> list[Metric]:
        return [Metric(self.name, self._about, self.kind)]

    def collect(self) -> Iterator[Metric]:
        """The same for the library: its registry refuses two metrics of one name."""
        metric = Metric(self.name, self._about, self.kind)
        for values, one in tuple(self._series.items()):
            metric.samples.extend(one.samples(self._sample, dict(zip(self.labels, values, strict=True))))
        yield metric

    def _made(self, values: tuple[str, ...]) -> S:
        made: Number | Distribution
        made = Distribution(self._changes, self._bounds) if self.kind == "histogram" else Number(self._changes)
        self._series[values] = made  # type: ignore[assignment]  # S is what `kind` says
        self._changes.number += 1
        return made  # type: ignore[return-value]


class Instruments:
    """Makes metrics in one registry and remembers them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.families: list[Family[Number] | Family[Distribution]] = []

    def counter(self, name: str, text: str, *labels: str) -> Family[Number]:
        return self._keep(Family("counter", name, text, labels))

    def gauge(self, name: str, text: str, *labels: str) -> Family[Number]:
        return self._keep(Family("gauge", name, text, labels))

    def histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Family[Distribution]:
        return self._keep(Family("histogram", name, text, labels, bounds=buckets))

    def one_counter(self, name: str, text: str) -> Number:
        return self.counter(name, text).at()

    def one_gauge(self, name: str, text: str) -> Number:
        return self.gauge(name, text).at()

    def one_histogram(self, name: str, text: str, *, buckets: tuple[float, ...]) -> Distribution:
        return self.histogram(name, text, buckets=buckets).at()

    def drop(self, **where: str) -> None:
        """Remove the series with this label value from every metric that has the label."""
        (name,) = where
        for family in self.families:
            if name in family.labels:
                family.drop(**where)

    def _keep(self, family: Family[S]) -> Family[S]:
        self.registry.register(family)
        self.families.append(family)  # type: ignore[arg-type]  # S is one of the two
        return family


def _pairs(labels: tuple[str, ...], values: tuple[str, ...]) -> Mapping[str, str]:
    """Labels with their values as they are written."""
    return {name: _escaped(value) for name, value in zip(labels, values, strict=True)}


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _braced(pairs: Mapping[str, str]) -> str:
    """By name, as the library has it; nothing where there are none."""
    inner = ",".join(f'{name}="{value}"' for name, value in sorted(pairs.items()))
    return f"{{{inner}}}" if inner else ""


def _written(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
