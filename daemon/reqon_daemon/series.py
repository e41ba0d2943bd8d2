"""Labelled series with bounds: what no mission, server or scraper can make grow without end (spec/reliability.md 6)."""

from collections.abc import Callable
from copy import copy
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase, disable_created_metrics

LABEL_LIMIT = 128
SERIES_LIMIT = 10_000
OTHER = "__other__"

# A `_created` series beside each counter doubles the scrape and tells nobody anything. The switch is the library's own,
# for the process.
disable_created_metrics()  # type: ignore[no-untyped-call]

M = TypeVar("M", bound=MetricWrapperBase)


@lru_cache(maxsize=4096)
def label(value: str) -> str:
    """The value as a label: valid UTF-8, at most 128 characters, different where the values are."""
    text = value.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= LABEL_LIMIT:
        return text
    digest = blake2b(text.encode(), digest_size=4).hexdigest()
    return f"{text[: LABEL_LIMIT - 9]}~{digest}"


class Family(Generic[M]):
    """One metric and its labelled children, at most 10,000; what comes later is counted under `__other__`.

    `at` is called by one thread; the scrape's thread only reads.
    """

    def __init__(self, metric: M, labels: tuple[str, ...], limit: int = SERIES_LIMIT) -> None:
        self._metric = metric
        self._labels = labels
        self._limit = limit
        self._children: dict[tuple[str, ...], M] = {}
        self._first: M | None = None

    def at(self, *values: str) -> M:
        """The series with these label values, made with 0 if it isn't there."""
        child = self._children.get(values)
        if child is None:
            known = tuple(map(label, values))
            if known not in self._children and len(self._children) >= self._limit:
                known = (OTHER,) * len(self._labels)
            child = self._children.get(known) or self._made(known)
            self._children[known] = child
        return child

    def _made(self, values: tuple[str, ...]) -> M:
        """A new series: the first by the library, the others like it.

        It checks the names for each anew, though they are the same for all: a third of the start of a daemon with many
        missions, since every mission has forty series.
        """
        if self._first is None:
            self._first = self._metric.labels(*values)
            return self._first
        child: Any = copy(self._first)
        parent: Any = self._metric
        child._labelvalues = values  # noqa: SLF001  # what `labels` does, without the checks
        child._metric_init()  # noqa: SLF001
        with parent._lock:  # noqa: SLF001  # a scrape may be walking through them
            parent._metrics[values] = child  # noqa: SLF001
        made: M = child
        return made

    def drop(self, **where: str) -> None:
        """Remove every series with these label values; fine if there is none."""
        wanted = {self._labels.index(name): label(value) for name, value in where.items()}
        for values in [v for v in self._children if all(v[at] == value for at, value in wanted.items())]:
            del self._children[values]
            self._metric.remove(*values)

    def __contains__(self, values: tuple[str, ...]) -> bool:
        return tuple(map(label, values)) in self._children

    @property
    def name(self) -> str:
        return str(self._metric.describe()[0].name)  # type: ignore[index]  # a list, typed as an iterable

    @property
    def labels(self) -> tuple[str, ...]:
        return self._labels


class Instruments:
    """Makes metrics in one registry and remembers the labelled ones."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.families: list[Family[Counter] | Family[Gauge] | Family[Histogram]] = []

    def counter(self, name: str, text: str, *labels: str) -> Family[Counter]:
        return self._keep(Family(Counter(name, text, labels, registry=self.registry), labels))

    def gauge(self, name: str, text: str, *labels: str) -> Family[Gauge]:
        return self._keep(Family(Gauge(name, text, labels, registry=self.registry), labels))

    def histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Family[Histogram]:
        return self._keep(Family(Histogram(name, text, labels, buckets=buckets, registry=self.registry), labels))

    def one_counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def one_gauge(self, name: str, text: str, read: Callable[[], float] | None = None) -> Gauge:
        """A gauge without labels; `read`, if given, is asked at each scrape, in the scrape's thread."""
        gauge = Gauge(name, text, registry=self.registry)
        if read is not None:
            gauge.set_function(read)
        return gauge

    def one_histogram(self, name: str, text: str, *, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)

    def drop(self, **where: str) -> None:
        """Remove the series with this label value from every metric that has the label."""
        (name,) = where
        for family in self.families:
            if name in family.labels:
                family.drop(**where)

    def _keep(self, family: Family[M]) -> Family[M]:
        self.families.append(family)  # type: ignore[arg-type]  # M is one of the three
        return family
