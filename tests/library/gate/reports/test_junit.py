"""JUnit XML: counts, reasons, and characters that XML has no way to write."""

from xml.etree import ElementTree as ET

import junitparser
import pytest

from mnist_fp8.gate.reports.junit import Case, Mark, Suite, document


def parsed(*suites: Suite) -> ET.Element:
    text = document("all", suites)
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="all"')
    return ET.fromstring(text.encode())  # noqa: S314 - our own


def test_suite_counts_its_cases_and_has_its_properties() -> None:
    cases = [Case("g", "a"), *(Case("g", mark.name, mark, "why", "all of it") for mark in Mark)]
    suite = parsed(Suite("s", cases, 61.04, {"run": "host"})).find("testsuite")
    assert suite is not None
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")}
    assert counts == {"tests": "5", "failures": "1", "errors": "1", "skipped": "1", "time": "61.0"}
    assert [(each.get("name"), each.get("value")) for each in suite.iter("property")] == [("run", "host")]


def test_cases_are_counted_once_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[object] = []
    monkeypatch.setattr(junitparser.TestSuite, "update_statistics", lambda *suite: counted.append(suite))
    parsed(Suite("s", [Case("g", str(number)) for number in range(9)]))
    assert len(counted) == 1


def test_case_says_why_and_a_passed_one_what_it_printed() -> None:
    cases = [Case("g", mark.name, mark, "why", "all\nof it") for mark in Mark]
    found = {case.get("name"): case for case in parsed(Suite("s", cases)).iter("testcase")}
    assert found["PASSED"].findtext("system-out") == "all\nof it"
    for name in ("failure", "error", "skipped"):
        result = found[name.upper()].find(name)
        assert result is not None
        assert (result.get("message"), result.text, found[name.upper()].get("classname")) == ("why", "all\nof it", "g")


def test_characters_that_xml_cannot_write_are_replaced_everywhere() -> None:
    bad = "\x1b[31m<red>\x00"
    root = parsed(Suite(bad, [Case(bad, bad, Mark.FAILURE, bad, bad)], properties={bad: bad}))
    texts = [value for element in root.iter() for value in (*element.attrib.values(), element.text or "")]
    assert texts.count("�[31m<red>�") == 7
