"""The page in a browser: every button changes something, every mark shows its number, no error."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from report_page import SECTIONS

from tfm import inspect

pytestmark = pytest.mark.usefixtures("quick_compile")

# Before the page's own script, so that no error escapes.
LISTEN = """<script>
const errors = [];
addEventListener("error", (e) => errors.push(String(e.message)));
addEventListener("unhandledrejection", (e) => errors.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => errors.push(`not allowed: ${e.blockedURI}`));
for (const name of ["error", "warn"]) console[name] = (...words) => errors.push(words.join(" "));
</script>"""
USE = f"<script>{Path(__file__).with_name('inspect_page.js').read_text(encoding='utf-8')}</script>"

SIZES = {
    "d_model": 16, "heads": 2, "d_ff": 16, "encoder_layers": 2, "decoder_layers": 2, "window": 2,
}  # fmt: skip
ADDITIVE = {"attention": "additive", "cross_attention": "additive"}
SLOW = [
    ({"positions": "learned:max_length=24", "tie": "all"}, "zh"),
    ({"positions": "shaw:clip=3"}, "en"),
    ({"positions": "t5:buckets=8,max_distance=12", "attention": "local"}, "zh"),
    ({"positions": "alibi"} | ADDITIVE, "en"),
    ({"positions": "rotary", "attention": "linear"}, "zh"),
]
CASES = [({"positions": "sinusoidal"}, "en")]
CASES += [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]
NUMBERED = {"canvas", "circle dot source", "circle dot target", "div chip", "div track", "button"}


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("google-chrome")
    return found or pytest.skip("no chromium here")


def traced(kind, untrained):
    """The trace of a sentence through a random model of that kind."""
    decode = {"max_length_factor": 0.5, "max_length_offset": 2, "min_length": 4}
    model = untrained(decode=decode, **SIZES | {"tie": "target-output"} | kind)
    return inspect.trace(model, "ab ce", "dca")


def read(browser, page, folder):
    """Opens the page in the browser and returns what ``inspect_page.js`` writes about it."""
    page = page.replace("<head>", f"<head>{LISTEN}", 1).replace("</body>", f"{USE}</body>", 1)
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder / 'user'}", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run([browser, *options], capture_output=True, text=True, timeout=120)
    summary = re.search(r'<pre id="summary">(.*?)</pre>', done.stdout, re.DOTALL)
    assert summary, f"the page did not come to its end: {done.stderr[-500:]}"
    return json.loads(html.unescape(summary[1]))


def kind_name(x):
    return x if isinstance(x, str) else "-".join(x.values())


@pytest.mark.parametrize(("kind", "language"), CASES, ids=kind_name)
def test_every_button_and_every_mark_of_the_page(kind, language, untrained, browser, tmp_path):
    trace = traced(kind, untrained)
    seen = read(browser, inspect.page(trace, language), tmp_path)
    assert seen["errors"] == [] and seen["ready"]
    assert seen["wrong"] == []  # such as NaN, in the text, in an attribute or on hover
    assert seen["silent"] == []  # marks without a number
    assert seen["marks"].keys() >= NUMBERED and min(seen["marks"].values()) > 0

    softmax = kind.get("attention", "softmax") in ("softmax", "local")
    assert set(seen["sections"]) == SECTIONS - (set() if softmax else {"two-matrices"})
    assert seen["strange"] == [] and seen["others"] == 0

    heads = SIZES["heads"] * SIZES["encoder_layers"]
    T = len(trace.target.pieces)
    assert T > 1
    buttons = {group["section"]: group["buttons"] for group in seen["groups"]}
    expected = {"encoder": heads, "decoder": heads, "cross": heads}
    expected |= {"output": T, "reference": len(trace.reference.pieces)}
    expected |= {"embedding": len(trace.source.pieces) + T}
    assert buttons == expected | ({"two-matrices": heads} if softmax else {})
    for group in seen["groups"]:  # a button of another name shows something else
        assert group["states"] >= group["names"] > 1, group
    for group in seen["groups"]:
        if group["section"] != "embedding":  # where a piece may occur twice
            assert group["states"] == group["buttons"], group

    scheme = kind["positions"].split(":")[0]
    tables = {"sinusoidal": 1, "learned": 2}.get(scheme, 0)  # each with its products
    assert seen["pictures_of_positions"] == 2 * tables + (scheme == "rotary")
    weights = np.abs(trace.run.encoder.weights_BLNTS[0]).max(axis=(-2, -1)).ravel()
    for tip, weight in zip(seen["heads"], weights, strict=True):
        shown = re.search(r"\d[\d.]*", tip.split("\n")[1])
        np.testing.assert_allclose(float(shown[0]), weight, rtol=2e-3, atol=1e-3)

    (one, painted), (other, repainted) = seen["themes"]
    assert {one, other} == {"light", "dark"}
    assert all(a != b for a, b in zip(painted, repainted, strict=True))
