"""Languages by their scripts, HTML apart and together again, and what reaches the model."""

import random

import hypothesis
import hypothesis.strategies as st
import pytest

from tfm.serve import detection, markup
from tfm.translator import Translation

pytestmark = pytest.mark.usefixtures("quick_compile")
LANGUAGES = ["en", "zh", "ja", "ko", "ru", "de"]


@pytest.mark.parametrize(
    ("text", "tied"),
    [
        ("你是谁？", ["zh", "ja"]),
        ("これは本です。", ["ja"]),
        ("저는 학생입니다.", ["ko"]),
        ("Кто ты?", ["ru"]),
        ("Who are you?", ["en", "de"]),
        ("他用 iPhone 拍了很多照片，很漂亮", ["zh", "ja"]),
        ("12 + 3?", LANGUAGES),
        ("", LANGUAGES),
    ],
)
def test_scripts(text, tied):
    assert detection.likeliest(text, LANGUAGES)[0] == tied


def test_codes_of_a_language_are_one():
    assert detection.likeliest("你好", ["en", "zh_CN"])[0] == ["zh_CN"]


PIECES = [
    "<p>", "</p>", "<br/>", "<b class='x>y'>", "</b>", "<!-- a<b -->", "&amp;", "&nbsp;",
    "text", " ", "\n", "<script>if (a<b) {}</script>", "<p translate='no'>", "a < b", "&", "<",
    "<!DOCTYPE html>", "<?xml x?>", "<code>x</code>", "<![CDATA[", "]]>", "你好", "</x>",
]  # fmt: skip


@hypothesis.given(st.lists(st.sampled_from(PIECES), max_size=12))
@hypothesis.settings(max_examples=300, deadline=None)
def test_html_without_a_change_is_itself(pieces):
    text = "".join(pieces)
    fragment = markup.take_apart(text)
    assert "".join(fragment.parts) == text
    for part in fragment.parts[1::2]:
        assert part.strip() == part and part


def test_what_is_not_translated():
    kept = "<script>a</script><style>b</style><code>c</code><i translate='no'>d <b>e</b></i>"
    fragment = markup.take_apart(f"{kept}<p class='notranslate'>f</p> g<!-- h --><u>i</u>")
    assert fragment.texts == ["g", "i"]
    assert fragment.fill(["<&>", "j"]).endswith(" &lt;&amp;&gt;<!-- h --><u>j</u>")


def test_hostile_html_takes_linear_time_or_is_refused():
    closed = (
        "<b>" * 5000 + "x" + "</i>" * 5000,
        "<b>x</b>" * 5000,
        "<a href='" + "x" * 40_000 + "'>",
    )
    endless = "<a <b " * 8000, "<!--" * 10_000, "<a b='" * 8000
    for text in closed:
        markup.take_apart(text)
    for text in endless:
        with pytest.raises(ValueError, match="too many tags without an end"):
            markup.take_apart(text)


def test_hostile_html_is_refused_by_name(served):
    ask = {"q": "<a <b " * 8000, "source": "lower", "target": "upper", "format": "html"}
    answer = served.client.post("/translate", json=ask)
    assert answer.status_code == 400 and "tags without an end" in answer.json()["error"]


@pytest.fixture
def echo(served, monkeypatch):
    """The server's models answer with the text itself."""

    def n_best(self, texts, n, **_):
        return [[Translation(text, -1.0, -1.0, ((text, text),))] for text in texts]

    monkeypatch.setattr(type(served.translators[0]), "n_best", n_best)
    return served


def test_every_mark_reaches_the_model_and_comes_back(echo):
    """LibreTranslate lost the question mark of 你是谁？"""
    rng = random.Random(0)
    texts = ["你是谁？", "Who are you?", "「好！」她说……", "a…?!", "5 < 6 & 7 > 2", "\"x\" 'y'"]
    texts += ["".join(rng.choices("？。！，、：；（）“”?!.,;:()'\"-…—ab", k=9)) for _ in range(30)]
    for source, target in (("lower", "upper"), ("upper", "lower")):
        ask = {"source": source, "target": target}
        found = echo.client.post("/translate", json={"q": texts} | ask).json()
        assert found["translatedText"] == texts
        found = echo.client.post("/v2/translate", json={"text": texts, "source_lang": source,
                                                        "target_lang": target}).json()  # fmt: skip
        assert [t["text"] for t in found["translations"]] == texts
        html = [f"<p>{i}</p>" for i in ("你是谁？", "Who are you?", "a &lt; b")]
        found = echo.client.post("/translate", json={"q": html, "format": "html"} | ask).json()
        assert found["translatedText"] == html


def test_health_tells_the_truth(running, pair, monkeypatch):
    with running(pair[:1], {"alternatives": 0}) as server:
        assert server.client.get("/health").status_code == 200
        assert server.client.get("/ready").status_code == 200

        def lost(self):
            raise SystemError("the device is lost")

        monkeypatch.setattr("tfm.serve.batches.Batches.step", lost)
        ask = {"q": "ab", "source": "lower", "target": "upper"}
        assert server.client.post("/translate", json=ask).status_code == 500
        for path in ("/health", "/ready"):
            assert server.client.get(path).status_code == 503
        assert server.client.post("/translate", json=ask).status_code == 503
