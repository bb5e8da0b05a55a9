"""The runbook has a section for every alert, and what a section tells to type exists."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_line import verbs

from tests.integration.monitoring import RUNBOOK, alerts

TEXT = RUNBOOK.read_text()
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))
COMMANDS = sorted(set(re.findall(r"`(penstock [^`]+)`", TEXT)))


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    assert len(SECTIONS) > 40
    assert list(SECTIONS) == list(alerts()), "in the order of the rules"


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_says_what_it_means_where_to_look_and_what_to_do(name: str) -> None:
    heads = re.findall(r"^- \*\*(\w+):\*\* \S", SECTIONS[name], re.MULTILINE)

    assert heads == ["Means", "Look", "Do"]


def test_links_within_the_runbook_lead_to_sections() -> None:
    anchors = {name.lower() for name in SECTIONS}

    assert set(re.findall(r"\]\(#(\w+)\)", TEXT)) <= anchors


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_named_exists(command: str) -> None:
    words = shlex.split(command)[1:]
    found: Any = None
    known = verbs()
    while words and words[0] in known:
        found = known[words.pop(0)]
        known = getattr(found, "commands", {})

    assert found is not None, "there is no such verb"
    assert not known, "this is a group of verbs: which of them?"
    options = {name for each in found.params for name in each.opts}
    assert {word for word in words if word.startswith("-")} <= options


def test_metrics_and_pages_are_where_the_rules_say() -> None:
    for rule in alerts().values():
        page, _, _ = rule["annotations"]["runbook_url"].partition("#")
        assert Path(__file__).parents[2] / page == RUNBOOK
