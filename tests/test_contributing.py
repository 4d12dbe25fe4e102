"""The route through the code in CONTRIBUTING.md names files, lines and functions that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
STEP = re.compile(r"`(tfm/[\w/]+\.py):(\d+)` `(\w+)`")


def line_of(file, function):
    """The line, from 1, on which a function of a file is defined."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    (found,) = (i for i, line in enumerate(lines, 1) if line.startswith(f"def {function}("))
    return found


def test_the_route_leads_through_four_files_by_the_right_lines():
    steps = STEP.findall(PAGE.read_text(encoding="utf-8"))
    assert len({file for file, _, _ in steps}) == 4
    assert steps[0][2] == "forward" and steps[-1][2] == "masked_softmax"
    assert [int(line) for _, line, _ in steps] == [line_of(f, name) for f, _, name in steps]


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    right = STEP.sub(lambda m: f"`{m[1]}:{line_of(m[1], m[3])}` `{m[3]}`", text)
    PAGE.write_text(right, encoding="utf-8")
