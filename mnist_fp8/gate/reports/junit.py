"""JUnit XML, as all reports write it."""

import dataclasses
import enum
from collections.abc import Mapping, Sequence

import junitparser

from mnist_fp8.gate.reports.markup import xml


class Mark(enum.Enum):
    """What a viewer shows of a case."""

    PASSED = enum.auto()
    FAILURE = enum.auto()
    ERROR = enum.auto()
    SKIPPED = enum.auto()


_RESULTS = {
    Mark.FAILURE: junitparser.Failure,
    Mark.ERROR: junitparser.Error,
    Mark.SKIPPED: junitparser.Skipped,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One test case.

    Attributes:
        group: what it belongs to, its ``classname``.
        name: its name.
        mark: what a viewer shows.
        message: why, in one line.
        text: all that there is to say; printed output where the case passed.
    """

    group: str
    name: str
    mark: Mark = Mark.PASSED
    message: str = ""
    text: str = ""


@dataclasses.dataclass(frozen=True)
class Suite:
    """Test cases under one name.

    Attributes:
        name: of the suite.
        cases: its cases.
        seconds: how long they took; 0 where that is not known.
        properties: what else there is to know.
    """

    name: str
    cases: Sequence[Case]
    seconds: float = 0.0
    properties: Mapping[str, str] = dataclasses.field(default_factory=dict)


def document(name: str, suites: Sequence[Suite]) -> str:
    """The file's text; characters that XML has no way to write are replaced."""
    root = junitparser.JUnitXml(xml(name))
    for suite in suites:
        root.add_testsuite(_suite(suite))
    text: bytes = root.tostring()
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text.decode()}\n'


def _suite(suite: Suite) -> junitparser.TestSuite:
    element = junitparser.TestSuite(xml(suite.name))
    for key, value in suite.properties.items():
        element.add_property(xml(key), xml(value))
    element.add_testcases(list(map(_case, suite.cases)))  # all at once: each call counts all that are there
    if suite.seconds:
        element.time = round(suite.seconds, 1)
    return element


def _case(case: Case) -> junitparser.TestCase:
    element = junitparser.TestCase(xml(case.name), xml(case.group))
    if case.mark is not Mark.PASSED:
        result = _RESULTS[case.mark](xml(case.message))
        result.text = xml(case.text)
        element.result = [result]
    elif case.text:
        element.system_out = xml(case.text)
    return element
