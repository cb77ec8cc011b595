"""The commit of a program is that of git, and trouble with it is none of a save's."""

import os
import platform
import shutil
import subprocess
import sys

import pytest

from elementsckpt.run import provenance

from support.boxes import environment, python

GIT = shutil.which("git")
SETTINGS = [
    *("-c", "user.name=x", "-c", "user.email=x@x"),
    *("-c", "protocol.file.allow=always"),
]
needs_git = pytest.mark.skipif(GIT is None, reason="needs git")


def git(folder, *arguments):
    """Run git with no settings but these; returns what it prints."""
    env = {name: x for name, x in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = [GIT, "-C", str(folder), *SETTINGS, *arguments]
    result = subprocess.run(
        command, env=env, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def head(folder):
    return git(folder, "rev-parse", "HEAD")


def add_commit(folder):
    git(folder, "commit", "-q", "--allow-empty", "-m", "message")
    return head(folder)


@pytest.fixture
def repository(tmp_path):
    """A repository with two commits and a branch named after folders."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    add_commit(folder)
    git(folder, "checkout", "-q", "-b", "topic/of/day")
    add_commit(folder)
    return folder


@pytest.fixture
def commit_at(monkeypatch):
    """Return a function that gives the commit of a program in a folder."""

    def commit_at(folder):
        main = sys.modules["__main__"]
        monkeypatch.setattr(main, "__file__", str(folder / "main.py"), raising=False)
        provenance.commit.cache_clear()
        return provenance.commit()

    yield commit_at
    provenance.commit.cache_clear()


# Repositories


@needs_git
def test_a_branch(repository, commit_at):
    second = head(repository)
    assert commit_at(repository) == second
    git(repository, "checkout", "-q", "-")
    assert commit_at(repository) == head(repository) != second


@needs_git
def test_a_folder_far_down(repository, commit_at):
    below = repository / "a" / "b"
    below.mkdir(parents=True)
    assert commit_at(below) == head(repository)
    assert commit_at(below / "not there") == head(repository)


@needs_git
def test_packed_references(repository, commit_at):
    git(repository, "branch", "day")
    git(repository, "tag", "-a", "-m", "message", "of/day")
    git(repository, "pack-refs", "--all", "--prune")
    assert not (repository / ".git/refs/heads/topic/of/day").exists()
    assert commit_at(repository) == head(repository)


@needs_git
def test_a_loose_reference_is_newer_than_a_packed_one(repository, commit_at):
    git(repository, "pack-refs", "--all")
    packed = head(repository)
    newer = add_commit(repository)
    assert commit_at(repository) == newer != packed


@needs_git
def test_a_detached_head(repository, commit_at):
    git(repository, "checkout", "-q", "--detach", "HEAD~")
    assert commit_at(repository) == head(repository)


@needs_git
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("detach", [False, True])
def test_a_worktree(repository, commit_at, pack, detach):
    tree = repository.parent / "tree"
    git(repository, "worktree", "add", "-q", "-b", "other", str(tree))
    commit = add_commit(tree)
    if detach:
        git(tree, "checkout", "-q", "--detach")
    if pack:
        git(repository, "pack-refs", "--all")
    assert commit_at(tree) == commit == head(tree)
    assert commit_at(repository) == head(repository) != commit


@needs_git
def test_a_submodule(repository, commit_at, tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    add_commit(outer)
    git(outer, "submodule", "--quiet", "add", str(repository), "inner")
    git(outer, "commit", "-q", "-m", "message")
    assert commit_at(outer / "inner") == head(repository)
    assert commit_at(outer) == head(outer) != head(repository)


@needs_git
def test_a_branch_that_is_another_name_of_one(repository, commit_at):
    git(repository, "symbolic-ref", "refs/heads/alias", "refs/heads/topic/of/day")
    git(repository, "symbolic-ref", "HEAD", "refs/heads/alias")
    assert commit_at(repository) == head(repository)


@needs_git
def test_longer_hashes(tmp_path, commit_at):
    try:
        git(tmp_path, "init", "-q", "--object-format=sha256")
    except subprocess.CalledProcessError:
        pytest.skip("needs a newer git")
    commit = add_commit(tmp_path)
    assert len(commit) == 64
    assert commit_at(tmp_path) == commit


@needs_git
def test_a_script_that_is_a_link_belongs_to_what_it_leads_to(repository, commit_at):
    (repository / "train.py").touch()
    (repository.parent / "main.py").symlink_to(repository / "train.py")
    assert commit_at(repository.parent) == head(repository)


# No commit


@needs_git
def test_a_repository_without_commits(tmp_path, commit_at):
    git(tmp_path, "init", "-q")
    assert commit_at(tmp_path) is None
    git(tmp_path, "pack-refs", "--all")
    assert commit_at(tmp_path) is None


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


HASH = b"0123456789" * 4
GARBAGE = {
    "nothing": {},
    "an empty file": {".git": b""},
    "bytes": {".git": b"\xff\x00\n" * 10},
    "a path to nowhere": {".git": b"gitdir: ../nowhere\n"},
    "a path to itself": {".git": b"gitdir: .git\n"},
    "an empty folder": {".git/x": b""},
    "an empty HEAD": {".git/HEAD": b""},
    "a HEAD of bytes": {".git/HEAD": b"\xff\x00\n" * 10},
    "a short hash": {".git/HEAD": HASH[1:]},
    "a long hash": {".git/HEAD": HASH + b"0"},
    "a hash in capitals": {".git/HEAD": b"A" * 40},
    "no references": {".git/HEAD": b"ref: refs/heads/main\n"},
    "an empty reference": {
        ".git/HEAD": b"ref: refs/heads/main\n",
        ".git/refs/heads/main": b"",
    },
    "references of bytes": {
        ".git/HEAD": b"ref: refs/heads/main\n",
        ".git/packed-refs": b"\xff\x00\n refs/heads/main\n" * 10,
    },
    "a longer name": {
        ".git/HEAD": b"ref: refs/heads/main\n",
        ".git/packed-refs": HASH
        + b" refs/heads/main2\n"
        + HASH
        + b" x/refs/heads/main",
    },
    "a reference to itself": {
        ".git/HEAD": b"ref: refs/heads/main\n",
        ".git/refs/heads/main": b"ref: refs/heads/main\n",
    },
    "a reference out of it": {
        ".git/HEAD": b"ref: refs/../../secret\n",
        ".git/refs/x": b"",
        "secret": HASH,
    },
    "a reference to a file": {".git/HEAD": b"ref: secret\n", ".git/secret": HASH},
    "a common folder that is not there": {
        ".git/HEAD": b"ref: refs/heads/main\n",
        ".git/refs/heads/main": HASH,
        ".git/commondir": b"nowhere\n",
    },
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_repository_has_no_commit(tmp_path, commit_at, name):
    for file, content in GARBAGE[name].items():
        write(tmp_path / file, content)
    assert commit_at(tmp_path) is None


def test_git_is_not_needed(tmp_path, commit_at):
    write(tmp_path / ".git/HEAD", b"ref: refs/heads/main\r\n")
    write(tmp_path / ".git/refs/heads/main", HASH + b"\n")
    assert commit_at(tmp_path) == HASH.decode()


def test_nobody_waits_for_what_is_no_file(tmp_path, commit_at):
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / ".git" / "HEAD")
    assert commit_at(tmp_path) is None


# Which program


def test_a_program_without_a_file_is_where_it_was_started(tmp_path):
    write(tmp_path / ".git/HEAD", HASH)
    script = "from elementsckpt.run import provenance; print(provenance.commit())"
    child = python(script, cwd=tmp_path)
    assert (child.stdout, child.stderr) == (f"{HASH.decode()}\n", "")


def test_a_program_with_a_file_is_there_wherever_it_was_started(tmp_path):
    write(tmp_path / "program/.git/HEAD", HASH)
    write(tmp_path / "here/.git/HEAD", HASH[::-1])
    file = tmp_path / "program" / "main.py"
    file.write_text(
        "from elementsckpt.run import provenance; print(provenance.commit())"
    )
    child = subprocess.run(
        [sys.executable, file],
        env=environment(),
        cwd=tmp_path / "here",
        capture_output=True,
        text=True,
    )
    assert (child.stdout, child.stderr) == (f"{HASH.decode()}\n", "")


def test_a_folder_that_is_gone_has_no_commit(tmp_path):
    script = """
import os, sys
from elementsckpt.run import provenance
os.rmdir(os.getcwd())
print(provenance.commit())
"""
    gone = tmp_path / "gone"
    gone.mkdir()
    child = python(script, cwd=gone)
    assert (child.stdout, child.stderr) == ("None\n", "")


@pytest.mark.parametrize("file", [b"main.py", 7, "a\0b", ""])
def test_a_program_may_say_anything_about_itself(tmp_path, monkeypatch, file):
    monkeypatch.setattr(sys.modules["__main__"], "__file__", file, raising=False)
    monkeypatch.chdir(tmp_path)
    provenance.commit.cache_clear()
    assert provenance.commit() is None
    provenance.commit.cache_clear()


def test_a_process_keeps_the_commit_that_it_began_with(tmp_path, commit_at):
    write(tmp_path / ".git/HEAD", HASH)
    assert commit_at(tmp_path) == HASH.decode()
    write(tmp_path / ".git/HEAD", HASH[::-1])
    assert provenance.commit() == HASH.decode()


# Runs and machines


def test_runs_have_names_of_their_own():
    names = {provenance.Provenance().lineage().run for _ in range(100)}
    assert len(names) == 100
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in names)


def test_the_machine_is_named_as_it_names_itself():
    assert provenance.Provenance().lineage().host == platform.node()
