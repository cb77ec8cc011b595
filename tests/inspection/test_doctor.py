"""What is found of a directory that does not suit saves, or only to look at."""

from elementsckpt.inspection.doctor import examine

from support.folders import unprivileged


def test_a_folder_that_may_only_be_read():
    with unprivileged() as path:
        run = path / "run"
        run.mkdir()
        run.chmod(0o555)
        try:
            found = {finding.check: finding for finding in examine(run)}
        finally:
            run.chmod(0o755)
        assert not found["writing"].is_good
        assert found["writing"].found == "Permission denied"
        assert "Let this user write there" in found["writing"].advice
        assert {*found} == {"writing", "room", "writers", "saves"}
        assert [*run.iterdir()] == []
