"""The HTML page of ``tfm inspect``, read back by a parser: shared by several tests."""

import html.parser
import re

SECTIONS = {
    "characters", "pieces", "one-hot", "embedding", "positions", "encoder", "two-matrices",
    "decoder", "cross", "residual", "output", "beam", "reference",
}  # fmt: skip


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text of the scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.open = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self.open = dict(attributes).get("id", "code")
            self.scripts[self.open] = ""

    def handle_endtag(self, tag):
        self.open = None if tag == "script" else self.open

    def handle_data(self, data):
        if self.open:
            self.scripts[self.open] += data


def assert_alone(page, text):
    """Nothing in the page asks for anything outside it."""
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data"):
            assert attributes.get(name, "data:,") == "data:,", (tag, attributes)
    assert not re.search(r"https?:|@import|url\((?!#hatch)|\bimport\(|fetch\(|XMLHttp", text)
