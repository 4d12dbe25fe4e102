import pytest

from tfm.run_folder import RunFolder


def test_names_of_files(tmp_path):
    """They are a format: older runs must be found again."""
    run = RunFolder(str(tmp_path))
    assert run == RunFolder(tmp_path) == RunFolder(run) and str(run) == str(tmp_path)
    paths = [
        run.config, run.tokenizer("source"), run.tokenizer("target"), run.tokenizer("joint"),
        run.checkpoints, run.best, run.hypotheses(20), run.metrics, run.tensorboard, run.log,
        run.report, run.lock,
    ]  # fmt: skip
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "config.json", "tokenizers/source.model", "tokenizers/target.model",
        "tokenizers/joint.model", "checkpoints", "best", "hypotheses/20.txt", "metrics.tsv",
        "tensorboard", "log.txt", "report.html", "lock.json",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []  # naming a file creates nothing


def test_unsupported_buckets_are_refused():
    with pytest.raises(ValueError, match="s3://bucket/run"):
        RunFolder("s3://bucket/run")
