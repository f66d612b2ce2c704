"""A template is a stranger's program: what it may do, and for how long."""

import os

import pytest

from research.data import sandbox

SECONDS, ENOUGH = 1, 120  # of the endless one, and of the others when busy
HOSTILE = {
  "{{ ''.__class__.__mro__ }}": "SecurityError",
  "{{ lipsum.__globals__['os'].getcwd() }}": "SecurityError",
  "{{ messages.append(1) }}": "SecurityError",
  "{% include '/etc/passwd' %}": "no loader",
  "{{ 'a' * 10 ** 10 }}": "MemoryError",
  "{{ 'a'.ljust(5 * 10 ** 9) }}": "MemoryError",
  "{% set n = namespace(x='ab') %}{% for i in range(60) %}"
  "{% set n.x = n.x ~ n.x %}{% endfor %}": "MemoryError",
  "{% for i in range(99999) %}{{ 'many' * 9999 }}{% endfor %}": (
    "more than 16777216 characters"
  ),
  "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "RecursionError",
  "{{ " + "(" * 200_000: "ended its process|Error",
  "{{ raise_exception('turns') }}": "turns",
  "{% for": "TemplateSyntaxError",
}


@pytest.mark.parametrize("source", HOSTILE, ids=lambda s: s[:30])
def test_one_clear_error_and_the_next_is_served(source):
  with pytest.raises(ValueError, match=HOSTILE[source]):
    sandbox.render(source, [{"messages": []}], seconds=ENOUGH)
  assert sandbox.render("{{ x }}", [{"x": 1}, {"x": "é"}]) == ["1", "é"]


def test_what_never_ends_is_ended_and_the_next_is_served():
  twice = "{% for i in range(99999) %}" * 2 + "{% endfor %}" * 2
  sandbox.render("", [{}])  # that the child is there
  with pytest.raises(ValueError, match=f"did not end within {SECONDS} s"):
    sandbox.render(twice, [{}], seconds=SECONDS)
  assert sandbox.render("{{ x }}", [{"x": 1}]) == ["1"]


def test_what_published_templates_rely_on():
  source = (
    "  {% if true %}\na{% endif %}{% for i in range(3) %}{% if i == 1 %}"
    "{% break %}{% endif %}{{ i }}{% endfor %}{{ {'b': '<é>'}|tojson }}"
    "{{ strftime_now('%d %b %Y') }}{{ missing is defined }}"
  )
  (said,) = sandbox.render(source, [{}])
  assert said == 'a0{"b": "<é>"}26 Jul 2024False'


def test_blocks_are_marked_and_keep_their_names_to_themselves():
  source = (
    "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}"
    "{{ x }}"
  )
  (said,) = sandbox.render(source, [{}])
  assert said == f"{sandbox.OPENED}2{sandbox.CLOSED}1"


def test_a_dead_child_is_said_and_replaced():
  sandbox.render("", [{}])
  sandbox._child(os.getpid()).kill()
  with pytest.raises(ValueError, match="ended its process"):
    sandbox.render("", [{}])
  assert sandbox.render("a", [{}]) == ["a"]
