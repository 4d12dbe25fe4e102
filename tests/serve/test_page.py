"""The page in a browser: every control, both languages and themes, narrow and wide, no error."""

import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("no chromium here")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, served):
    """``page(width, theme, locale)`` opens the page; errors and foreign requests are collected."""
    contexts = []

    def open_page(width=1440, theme="light", locale="en-US"):
        size = {"width": width, "height": 900}
        context = chromium.new_context(viewport=size, color_scheme=theme, locale=locale)
        contexts.append(context)
        found = context.new_page()
        found.faults = []
        found.on("console", lambda m: m.type == "error" and found.faults.append(m.text))
        found.on("pageerror", lambda error: found.faults.append(str(error)))
        allowed = (served.url, "blob:", "data:")
        found.on("request", lambda r: r.url.startswith(allowed) or found.faults.append(r.url))
        found.goto(served.url)
        found.wait_for_selector("#from option", state="attached")
        return found

    yield open_page
    for context in contexts:
        context.close()


def translate(page, text):
    page.fill("#source", text)
    page.wait_for_selector("#target:not([aria-busy]) .piece")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
@pytest.mark.parametrize("width", [360, 1440])
def test_it_is_accessible_and_fits(page, width, locale, theme):
    opened = page(width, theme, locale)
    for summary in opened.query_selector_all("summary"):
        summary.click()
    translate(opened, "ab cd")
    opened.click("#shade")
    found = axe.Axe().run(opened).response["violations"]
    assert [(x["id"], x["nodes"][0]["html"]) for x in found] == []
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    assert opened.get_attribute("html", "lang") == ("zh-Hans" if locale == "zh-CN" else "en")
    assert opened.get_attribute("html", "data-theme") == theme
    assert opened.faults == []


def test_a_translation_with_what_is_known_about_it(page, served):
    opened = page()
    opened.select_option("#from", "lower")
    translate(opened, "ab cd\nfed")
    # The page asks for three alternatives, which takes a beam of four.
    found = served.translators[0].n_best(["ab cd", "fed"], 1, beam_size=4)
    wanted = [best[0].text for best in found]
    assert opened.inner_text("#target").split("\n") == wanted
    assert opened.is_disabled("#steps")  # of one sentence only
    translate(opened, "ab cd")
    opened.wait_for_selector("#steps:enabled")
    shades = opened.eval_on_selector_all("#target .piece", "x => x.map(e => e.className)")
    assert all(shade.split()[1] in {"c0", "c1", "c2", "c3"} for shade in shades)
    linked = 0
    for piece in opened.query_selector_all("#target .piece"):
        piece.hover()
        linked += len(opened.query_selector_all("#mirror .linked"))
    assert linked
    opened.click("#clear")
    assert opened.inner_text("#target") == "" and opened.is_disabled("#copy")
    assert opened.faults == []


def test_languages_are_swapped_and_history_stays_in_the_browser(page, served):
    opened = page()
    opened.select_option("#from", "lower")
    translate(opened, "ab cd")
    shown = opened.inner_text("#target")
    opened.keyboard.press("Alt+KeyS")
    assert opened.input_value("#from") == "upper" and opened.input_value("#to") == "lower"
    assert opened.input_value("#source") == shown
    opened.click("summary >> nth=1")
    opened.wait_for_selector("#history button >> nth=1")
    opened.click("#history button >> nth=1")
    assert opened.input_value("#source") == "ab cd" and opened.input_value("#from") == "lower"
    opened.reload()
    opened.click("summary >> nth=1")
    assert "ab cd" in opened.inner_text("#history") and "ab" not in opened.url
    opened.click("#forget")
    assert opened.query_selector("#history button") is None
    assert opened.faults == []


def test_theme_and_language_of_the_page_are_kept(page):
    opened = page()
    opened.click("#theme")
    opened.click("#interface")
    opened.reload()
    assert opened.get_attribute("html", "data-theme") == "dark"
    assert opened.inner_text("#clear") == "清空"
    assert opened.faults == []


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [("a.txt", "ab\n\nfed\n", "{0}\n\n{1}\n"),
     ("a.tsv", "ab\tx\ty\nfed\tz", "{0}\tx\ty\n{1}\tz"),
     ("a.srt", "1\n00:01 --> 00:02\nab\n\n2\n00:03 --> 00:04\nfed",
      "1\n00:01 --> 00:02\n{0}\n\n2\n00:03 --> 00:04\n{1}")],
)  # fmt: skip
def test_a_file_comes_back_translated(page, served, name, content, wanted):
    opened = page()
    opened.select_option("#from", "lower")
    opened.click("summary >> nth=0")
    file = {"name": name, "mimeType": "text/plain", "buffer": content.encode()}
    with opened.expect_download() as download:
        opened.set_input_files("#file", file)
    best = [found[0].text for found in served.translators[0].n_best(["ab", "fed"], 1)]
    assert download.value.suggested_filename == name.replace("a.", "a.upper.")
    assert download.value.path().read_text() == wanted.format(*best)
    assert f"Done: {download.value.suggested_filename}" in opened.inner_text("#job-state")
    assert opened.faults == []


def test_a_file_of_an_unknown_kind_is_refused(page):
    opened = page()
    opened.click("summary >> nth=0")
    file = {"name": "a.exe", "mimeType": "text/plain", "buffer": b"x"}
    opened.set_input_files("#file", file)
    opened.wait_for_selector("#job-state:not(:empty)")
    assert "a.exe cannot be read" in opened.inner_text("#job-state")


def test_a_server_that_refuses_is_told_to_the_person(page, served):
    opened = page()
    opened.fill("#source", "a" * (served.service.limits.characters + 1))
    opened.wait_for_selector("#notice:not([hidden])")
    assert "Not translated" in opened.inner_text("#notice")
