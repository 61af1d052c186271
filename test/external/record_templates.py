"""Renders templates with Jinja2 as the LM Evaluation Harness sets it up; writes test/golden/templates.json."""

import json
import re
import sys

from jinja2 import BaseLoader, Environment, StrictUndefined

environment = Environment(loader=BaseLoader, undefined=StrictUndefined, keep_trailing_newline=True)
environment.filters["regex_replace"] = lambda string, pattern, repl, count=0: re.sub(pattern, repl, string, count=count)

DOC = {
    "question": "  What is it?\t\n",
    "text": "the quick  brown fox jumps",
    "choices": {"text": ["a cat", "it's", 'a "dog"', "naïve\n"], "label": ["A", "B", "C", "D"]},
    "answerKey": " C",
    "answer": 2,
    "ratio": 0.1,
    "small": 1e-7,
    "flag": True,
    "nothing": None,
    "items": [3, 1, 2],
    "name": "ÉCOLE élan",
    "empty": "",
    "sum": "a #### 1,234",
}
TEMPLATES = [
    "plain text\n",
    "line\n\n",
    "{{question.strip()}}",
    "{{ question.lstrip() }}|{{ question.rstrip() }}|",
    "{{text.split(' ')[:-1]|join(' ')}}",
    "{{' '+text.split(' ')[-1]}}",
    "{{text.split()}}",
    "{{choices.text}}",
    "{{choices['label'].index(answerKey.lstrip())}}",
    "{{[choices.text[0], choices.text[3]]}}",
    "{{answer}} {{ratio}} {{small}} {{flag}} {{nothing}} {{items}}",
    "{% for c in choices.text %}{{loop.index}}. {{c}}{% if not loop.last %}\n{% endif %}{% endfor %}",
    "{% set letters = ['A','B','C','D'] %}{{letters[answer]}}",
    "{{'yes' if flag else 'no'}}",
    "{{ 'ABCD'[answer|int - 1] if answerKey|string in '1234' else answerKey }}",
    "{{ items|sort }} {{ items|sort(reverse=true)|first }} {{ items|length }} {{ items|sum }}",
    "{{ name.capitalize() }} {{ name|lower }} {{ name|title }} {{ name|upper }}",
    "{{ sum.split('####')[-1].strip() if sum is defined else other }}",
    "{{ sum|regex_replace('[0-9,]+', 'N') }}",
    "{{ text|replace('quick', 'slow')|trim }}",
    "{{ other|default('none') }}",
    "{{ 'a' in text }} {{ 'zz' not in text }} {{ 3 in items }}",
    "{{ 7 // 2 }} {{ 7 % 3 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ 'ab' * 2 }}",
    "{{ items[1:] }} {{ items[::-1] }} {{ text[-4:] }}",
    "{{ 'x' ~ 1 ~ none }}",
    "{%- if empty %}a{% elif items %}b{% else %}c{% endif -%}  tail",
    "{{ choices.label|map('lower')|list }}",
    "{{ range(3)|list }} {{ choices.keys()|list }}",
    "{{ text.replace('o', '0').startswith('the') }} {{ text.find('brown') }} {{ text.count('o') }}",
    "{# a comment #}{{ 'it''s' }}{{ \"two\\nlines\" }}",
    "{{ 'a,b,c'.split(',', 1) }} {{ ['a', 'b']|join('-') }}",
    "{{ items|min }} {{ items|max }} {{ 2.567|round(2) }}",
    "{% for x in items if x > 1 %}{{ x }};{% endfor %}",
    "{{ missing }}",
    "{{ choices.missing }}",
    "{{ nothing is none }} {{ text is string }} {{ answer is number }} {{ other is undefined }}",
]


def render(template):
    try:
        return {"rendered": environment.from_string(template).render(**DOC)}
    except Exception as problem:  # noqa: BLE001 - what is refused is recorded as such
        return {"refused": type(problem).__name__}


cases = [{"template": template, **render(template)} for template in TEMPLATES]
json.dump({"doc": DOC, "cases": cases}, open(sys.argv[1], "w"), indent=1, ensure_ascii=False)
