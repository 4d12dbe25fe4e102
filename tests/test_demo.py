"""``tfm demo`` with a model that trains in seconds: what it prints, and its report page."""

import json
import re
import signal

import pytest
import tiny
from report_page import SECTIONS, Page, assert_alone

from tfm import demo
from tfm.training import loop

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.slow
def test_the_demo_trains_scores_translates_and_writes_its_page(tmp_path, monkeypatch, capsys):
    drawn = {"count": 9, "seed": 3, "words": (2, 2), "letters": (2, 3)}
    sources, test = tiny.sentences(**drawn), tiny.corpus(tmp_path, "test", **drawn)
    experiment = tiny.config(tmp_path, data={"test": test}, train={"stop": "20u"})
    monkeypatch.setattr(demo, "get_config", lambda: experiment)
    folder = tmp_path / "run"
    assert demo.run(folder, minutes=3) == 0
    out = capsys.readouterr().out

    assert json.loads((folder / "config.json").read_text())["train"]["stop"] == "20u,3m"
    assert "9 test sentences" in out and "% translated exactly" in out and "BLEU" in out
    assert all(f"  {sentence}\n" in out for sentence in sources)  # so few that all are printed
    assert f"tfm translate --model {folder}" in out

    path = folder / "report.html"
    shown = re.search(r"Every step of the model on (.+): open (.+)", out)
    assert shown and shown[1] in sources and shown[2] == str(path)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert_alone(page, text)
    trace = json.loads(page.scripts["data"])["trace"]
    assert trace["source"]["text"] == shown[1]
    assert trace["reference"]["text"] == shown[1].upper()
    assert all(f'section("{name}"' in page.scripts["code"] for name in SECTIONS)


def test_an_interrupted_demo_says_how_to_resume(tmp_path, monkeypatch, capsys):
    stopped = loop.Outcome(step=1234, reason="SIGTERM", best=None, signal=signal.SIGTERM)
    monkeypatch.setattr(loop, "train", lambda experiment, folder: stopped)
    assert demo.run(tmp_path, minutes=1) == 143
    out = capsys.readouterr().out
    assert f"Stopped at update 1,234; `tfm demo --workdir {tmp_path}` resumes." in out
    assert not (tmp_path / "report.html").exists()
