"""check_json.py [--print] FILE CONDITION: a Python condition about d, the JSON document in FILE.

has(value, form) in a condition: the value has that form. A form is a type, a tuple of forms of
which one fits, [form] for a list of such, or a dict of required fields. Exit code 1, with a message
on stdout, unless the condition holds; with --print the value of the expression is printed instead.
"""
import json
import re
import sys

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
number = (int, float)
time = "time"  # RFC 3339
none = None
missing = []


def has(value, form, place="$"):
    if isinstance(form, dict):
        if not isinstance(value, dict):
            missing.append(f"{place} is no object")
            return False
        good = True
        for name, inner in form.items():
            if name not in value:
                missing.append(f"{place}.{name} is missing")
                good = False
            else:
                good = has(value[name], inner, f"{place}.{name}") and good
        return good
    if isinstance(form, list):
        if not isinstance(value, list):
            missing.append(f"{place} is no list")
            return False
        return all([has(v, form[0], f"{place}[{i}]") for i, v in enumerate(value)])
    if isinstance(form, tuple):
        before = len(missing)
        if any([has(value, inner, place) for inner in form]):
            del missing[before:]
            return True
        return False
    if form is None:
        good = value is None
    elif form == "time":
        good = isinstance(value, str) and TIME.fullmatch(value) is not None
    else:
        good = isinstance(value, form) and (form is bool or not isinstance(value, bool))
    if not good:
        missing.append(f"{place} is {value!r}")
    return good


def main():
    arguments = sys.argv[1:]
    printing = arguments[0] == "--print"
    path, condition = arguments[printing:]
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        d = json.loads(text)
    except ValueError as problem:
        print(f"  no JSON document: {problem}")
        return 1
    result = eval(condition, globals(), {"d": d})  # a condition of our own tests
    if printing:
        print(result)
        return 0
    for text in missing[:5]:
        print(f"  {text}")
    return 0 if result else 1


sys.exit(main())
