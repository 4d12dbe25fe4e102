import json

from tfm.training.progress import Progress

PROGRESS = Progress(
    elapsed=12.5, pairs=300, best=3.5, since_best=2, validated=40, pending_validation=True
)


def test_progress_is_restored_from_json():
    assert Progress.from_json(json.loads(json.dumps(PROGRESS.to_json()))) == PROGRESS


def test_progress_of_older_checkpoints_is_read():
    """They call the field "owed"; still older ones do not have it."""
    older = PROGRESS.to_json()
    del older["pending_validation"]
    assert Progress.from_json({**older, "owed": True}) == PROGRESS
    assert not Progress.from_json(older).pending_validation
