"""What the service answers: the translations of ``Translator``, in every dialect."""

import concurrent.futures
import json

import numpy as np
import pytest
import tiny

pytestmark = pytest.mark.usefixtures("served", "quick_compile")


def post(server, path, status=200, **fields):
    answer = server.client.post(path, json=fields)
    assert answer.status_code == status, answer.text
    return answer.json()


def offline(server, texts):
    """What the first translator makes of texts, in batches as large as the server's."""
    return server.translators[0].translate(texts, batch_size=4)


def test_each_answer_is_the_offline_translation_whatever_runs_beside_it(served):
    texts = tiny.sentences(120, seed=5, words=(1, 4))
    directions = [("lower", "upper"), ("upper", "lower")]
    asked = [(texts[i : i + 1 + i % 5], *directions[i % 2]) for i in range(0, 115, 3)]

    def ask(request):
        texts, source, target = request
        return post(served, "/v1/translate", texts=texts, source=source, target=target, plain=True)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, asked))
    for (own, source, _), answer in zip(asked, answers, strict=True):
        model = served.translators[source == "upper"]
        offline = [best[0] for best in model.n_best(own, 1, batch_size=4)]
        assert [t["text"] for t in answer["translations"]] == [t.text for t in offline]
        np.testing.assert_allclose(
            [t["log_prob"] for t in answer["translations"]],
            [t.log_prob for t in offline],
            rtol=1e-5,
        )
    assert served.service.queue.pending == 0


def test_nothing_compiles_while_it_serves(served):
    compiled = served.client.get("/metrics").text
    before = [t.compile_seconds for t in served.translators]
    for text in ("a", "abcdefgh abcdefg", "ab " * 30):
        for alternatives in (0, 1, 3):
            post(served, "/v1/translate", text=text, source="lower", target="upper",
                 alternatives=alternatives)  # fmt: skip
    line = lambda text: next(x for x in text.splitlines() if x.startswith("tfm_compiled_total"))  # noqa: E731
    assert line(served.client.get("/metrics").text) == line(compiled)
    assert [t.compile_seconds for t in served.translators] == before


def test_a_long_text_and_its_lines(served):
    model = served.translators[0]
    long = "abcd efgh abcd, efgh abcd efgh. abc"
    assert len(model.parts(long)) > 1
    text = f"{long}\n\n  \nab\r\nc"
    found = post(served, "/v1/translate", text=text, source="lower", target="upper")
    first, second, third = offline(served, [long, "ab", "c"])
    assert found["translations"][0]["text"] == f"{first}\n\n\n{second}\r\n{third}"


def test_alternatives_pieces_alignment_and_confidence(served):
    model, text = served.translators[0], "ab cde"
    (found,) = post(
        served, "/v1/translate", text=text, source="lower", target="upper", alternatives=3
    )["translations"]
    best, *others = model.n_best([text], 4, beam_size=4, batch_size=1)[0]
    assert found["text"] == best.text
    assert [a["text"] for a in found["alternatives"]] == [t.text for t in others]
    assert found["pieces"] == {
        "source": model.source.pieces(text), "target": model.target.pieces(best.text)
    }  # fmt: skip
    T = len(found["pieces"]["target"])
    assert all(i < len(found["pieces"]["source"]) and j < T for i, j in found["alignment"])
    assert len(found["confidence"]) == T and all(0 <= p <= 1 for p in found["confidence"])
    # One alternative is within the run's own beam.
    (narrow,) = post(
        served, "/v1/translate", text=text, source="lower", target="upper", alternatives=1
    )["translations"]
    assert [narrow["text"]] == offline(served, [text])
    assert len(narrow["alternatives"]) == 1


def test_blank_texts_and_no_texts(served):
    ask = dict(source="lower", target="upper")
    assert [t["text"] for t in post(served, "/v1/translate", texts=["", " \n"], **ask)[
        "translations"]] == ["", "\n"]  # fmt: skip
    assert post(served, "/v1/translate", texts=[], **ask)["translations"] == []
    assert post(served, "/translate", q="", **ask) == {"translatedText": ""}


def test_libretranslate(served):
    model = served.translators[0]
    ask = dict(source="lower", target="upper")
    (best,) = offline(served, ["ab c"])
    assert post(served, "/translate", q="ab c", **ask) == {"translatedText": best}
    found = post(served, "/translate", q=["ab c", "d"], alternatives=2, **ask)
    assert found["translatedText"] == model.translate(["ab c", "d"], beam_size=4, batch_size=1)
    assert list(map(len, found["alternatives"])) == [2, 2]
    form = served.client.post("/translate", data={"q": ["ab c", "d"], **ask})
    assert form.json()["translatedText"] == offline(served, ["ab c", "d"])
    listed = served.client.get("/languages").json()
    assert listed[0] == {"code": "lower", "name": "lower", "targets": ["upper"]}
    settings = served.client.get("/frontend/settings").json()
    assert settings["charLimit"] == 50_000 and settings["keyRequired"] is False
    assert served.client.get("/health").json() == {"status": "ok"}


def test_a_list_is_not_its_joined_text(served):
    """LibreTranslate's cache answered ["a", "b"] with the translation of "a|b"."""
    ask = dict(source="lower", target="upper")
    joined = post(served, "/translate", q="a|b", **ask)
    listed = post(served, "/translate", q=["a", "b"], **ask)
    assert joined["translatedText"] == offline(served, ["a|b"])[0]
    assert listed["translatedText"] == offline(served, ["a", "b"])


def test_deepl_and_the_plugins(served):
    texts = ["ab c", "d"]
    expected = offline(served, texts)
    found = post(served, "/v2/translate", text=texts, source_lang="LOWER", target_lang="UPPER")
    rows = found["translations"]
    assert [r["text"] for r in rows] == expected
    assert [r["detected_source_language"] for r in rows] == ["LOWER"] * 2
    assert served.client.get("/v2/languages?type=target").json()[0]["language"] == "UPPER"
    found = post(served, "/immersive", text_list=texts, source_lang="lower", target_lang="upper")
    assert [r["text"] for r in found["translations"]] == expected
    ask = {"from": "lower", "to": "upper"}
    found = post(served, "/kiss", texts=texts, **ask)
    assert found == {"translations": [{"text": t, "src": "lower"} for t in expected]}
    assert post(served, "/kiss", text="d", **ask) == {"text": expected[1], "src": "lower"}


def test_html_keeps_its_tags(served):
    ask = dict(source="lower", target="upper", format="html")
    html = '<p class="x">ab <b>c &amp; d</b><br/>\n <i>e</i></p><!-- f --><script>g<h</script>'
    found = post(served, "/translate", q=html, **ask)["translatedText"]
    ab, cd, e = offline(served, ["ab", "c & d", "e"])
    cd = cd.replace("&", "&amp;").replace("<", "&lt;")
    assert found == (
        f'<p class="x">{ab} <b>{cd}</b><br/>\n <i>{e}</i></p><!-- f --><script>g<h</script>'
    )


def test_server_sent_events(served):
    text = "ab c。d？e"
    with served.client.stream(
        "POST", "/v1/translate/stream", json=dict(text=text, source="lower", target="upper")
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [block.split("\n") for block in answer.read().decode().strip().split("\n\n")]
    kinds = [event[0].removeprefix("event: ") for event in events]
    data = [json.loads(event[1].removeprefix("data: ")) for event in events]
    assert kinds == ["sentence"] * 3 + ["done"]
    assert "".join(d["source"] for d in data[:-1]) == text
    assert [d["text"] for d in data[:-1]] == offline(served, ["ab c。", "d？", "e"])


def test_detection_between_languages_of_one_script_is_by_the_models(served):
    found = post(served, "/detect", q="ab cd")
    assert {row["language"] for row in found} == {"lower", "upper"}
    assert found[0]["confidence"] >= found[1]["confidence"]
    answer = post(served, "/translate", q="ab cd", source="auto", target="upper")
    assert answer["detectedLanguage"]["language"] == "lower"


def test_models_and_spec(served):
    found = served.client.get("/v1/models").json()
    assert found["pairs"] == [
        {"source": "lower", "target": "upper"}, {"source": "upper", "target": "lower"}
    ]  # fmt: skip
    spec = served.client.get("/spec").json()
    assert spec["openapi"].startswith("3.1") and "/translate" in spec["paths"]
    for path, methods in spec["paths"].items():
        for method in methods:
            answer = served.client.request(method, path, json={} if method == "post" else None)
            assert answer.status_code in (200, 400), path


def test_nothing_is_compiled_while_serving_whatever_the_model_writes(running, untrained):
    """The guard, on by default, would search again with other settings."""
    translator = untrained(decode={"guard": "on"}, data={"source": "lower", "target": "upper"})
    with running(translators=(translator,)) as server:
        before = translator.compile_seconds
        for text in ("aaaa aaaa aaaa", "h", "ab cd ef", "hhhhhhhhhh"):
            assert post(server, "/v1/translate", text=text, source="auto", target="upper")
        assert translator.compile_seconds == before > 0
