"""Writes the report page: one HTML file that needs no network and no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import pkgutil
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import CheckpointError, SaveExistsError, one_line
from ..inspection.verification import verify as verify_saves
from ..reports import figures
from ..storage import files, hidden, paths
from ..user.arguments import AnyPath, flag, integer, local
from .data import gather

_BEGIN = b"<!doctype html>\n<!-- elementsckpt report -->"
_MAX_BYTES = 2_000_000_000
_MOST_BAD = 3  # Damaged saves, or leaves with NaN, that a card names.
_MOST_IN_FULL = 60  # Saves; a table of more scrolls in its box.


def write_report(
    directory: AnyPath,
    target: AnyPath = "report.html",
    *,
    verify: bool = False,
    max_bytes: int = _MAX_BYTES,
) -> Path:
    """Write a page about the saves of a directory.

    Args:
      directory: The directory.
      target: The file to write. An earlier page is replaced; other files are not.
      verify: Whether to verify all saves; otherwise the page says that they are not.
      max_bytes: How many bytes of arrays to read for pictures of values, small leaves
        first. The page names what was left out.

    Returns:
      The path of the page.

    Raises:
      SaveNotFoundError: there is no save.
      SaveExistsError: there is something at `target` that is not such a page.
      WriteError: the disk refused; what was there stays.
      ValueError: an argument is not valid.
    """
    start, path, file = time.monotonic(), local(directory), local(target)
    _require_free(file)
    limit, is_verified = integer("max_bytes", max_bytes), flag("verify", verify)
    data = gather(path, max_bytes=limit)
    damaged = None
    if is_verified:
        checks = verify_saves(path).saves
        damaged = [one_line(x.path.name) for x in checks if not x.is_good]
        for save in data["saves"]:
            if save["name"] in damaged and "damaged" not in save["marks"]:
                save["marks"].append("damaged")
    seconds = time.monotonic() - start
    hidden.write_file(file, _page(path, data, damaged, seconds).encode())
    return file


def _require_free(path: Path) -> None:
    """Refuse to replace what is not a page that was written here, or empty."""
    if not paths.is_there(path):
        return
    try:
        with files.File(paths.real(path)) as file, file.stream() as stream:
            begin = stream.read(len(_BEGIN))
    except CheckpointError:
        begin = b"?"
    if begin not in (b"", _BEGIN):
        raise SaveExistsError(
            f"{path} is there already, and is not a page that elementsckpt wrote: "
            f"choose another name, or remove it."
        )


def _page(
    path: Path, data: Mapping[str, Any], damaged: list[str] | None, seconds: float
) -> str:
    style = _file("style.css")
    script = _file("script.js")
    script_data = {name: x for name, x in data.items() if name != "details"}
    text = json.dumps(script_data, allow_nan=False, separators=(",", ":"))
    fields = {
        "STYLE_HASH": _hash(style),
        "SCRIPT_HASH": _hash(script),
        "TITLE": html.escape(one_line("/".join(path.parts[-2:]))),
        "SUMMARY": html.escape(_summary(data)),
        "CARDS": _cards(data, damaged),
        "TALL": "tall" if len(data["saves"]) > _MOST_IN_FULL else "",
        "TABLE": _table(data),
        "DETAILS": _details(data),
        "FOOTER": html.escape(_footer(data, seconds, is_verified=damaged is not None)),
        "DATA": text.replace("<", "\\u003c"),
        "STYLE": style,
        "SCRIPT": script,
    }
    page = _file("template.html")
    parts: list[str] = []
    while True:  # From left to right, as what is put in may hold a name of a field.
        found = [(page.find(name), -len(name), name) for name in fields if name in page]
        if not found:
            return "".join([*parts, page])
        at, _, name = min(found)
        parts += [page[:at], fields[name]]
        page = page[at + len(name) :]


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _summary(data: Mapping[str, Any]) -> str:
    saves = data["saves"]
    steps = [int(save["step"]) for save in saves if save["step"] is not None]
    span = f", step {min(steps):,}" if steps else ""
    if steps and max(steps) > min(steps):
        span = f", steps {min(steps):,} to {max(steps):,}"
    return f"{data['directory']} · {figures.count(len(saves), 'save')}{span}"


def _footer(data: Mapping[str, Any], seconds: float, *, is_verified: bool) -> str:
    now = figures.time(datetime.now(timezone.utc))
    verified = "Every byte was verified." if is_verified else "The rest: not verified."
    return (
        f"Made {now} by elementsckpt {__version__} in {figures.seconds(seconds)}; "
        f"{_what_was_read(data)}. {verified}"
    )


def _what_was_read(data: Mapping[str, Any]) -> str:
    read = data["bytes_read"]
    if not read:
        return "of the saves, only manifests were read"
    return f"{figures.size(read)} of arrays were read for the pictures"


def _cards(data: Mapping[str, Any], damaged: list[str] | None) -> str:
    saves = data["saves"]
    disk_size = figures.size(data["bytes_on_disk"])
    state = figures.size(data["bytes_of_state"])
    cards = [_card("", disk_size, f"on disk, for {state} of state")]
    best = next((save for save in saves if "best" in save["marks"]), None)
    if best is not None:
        cards.append(_best_card(best, data["best_by"]))
    bad = [_label(save) for save in saves if "damaged" in save["marks"]]
    if bad:
        more = [f"{len(bad) - _MOST_BAD:,} more"] if len(bad) > _MOST_BAD else []
        words = ", ".join([*bad[:_MOST_BAD], *more])
        is_known = damaged is not None or len(bad) == len(saves)
        rest = "" if is_known else "; the rest not verified"
        cards.append(_card("bad", f"{len(bad):,} damaged", words + rest))
    elif damaged is not None:
        cards.append(_card("good", "all good", "every byte is as it was written"))
    else:
        cards.append(_card("", "not verified", _what_was_read(data)))
    cards.append(_finite_card(data["changes"]["newest"]))
    return "".join(cards)


def _label(save: Mapping[str, Any]) -> str:
    if save["sequence"] is not None:
        return f"#{save['sequence']}"
    step = save["step"]
    return str(save["name"]) if step is None else f"step {int(step):,}"


def _best_card(best: Mapping[str, Any], name: str | None) -> str:
    words = "the best save"
    if best["step"] is not None:
        words += f", at step {int(best['step']):,}"
    value = best["metrics"].get(name)
    if value is not None:
        shown = value if isinstance(value, str) else figures.number(value)
        words += f", {name} {shown}"
    if "damaged" in best["marks"]:
        return _card("bad", f"#{best['sequence']}", f"{words}; damaged")
    return _card("good", f"#{best['sequence']}", words)


def _finite_card(newest: Mapping[str, Any]) -> str:
    """Return what is known of NaN in the newest save that can be read."""
    if not newest:
        return _card("", "not known", "whether leaves are finite: no save can be read")
    count, bad = newest["count"], newest["bad"]
    save = "the newest save"
    if newest["sequence"] is not None:
        save += f" (#{newest['sequence']})"
    unknown = {"not read": len(newest["unread"]), "damaged": len(newest["damaged"])}
    rest = "".join(f"; {n:,} {word}" for word, n in unknown.items() if n)
    read = count - sum(unknown.values())
    if bad:
        names = [f"{name} ({figures.count(n, 'element')})" for name, n in bad]
        more = [f"{len(bad) - _MOST_BAD:,} more"] if len(bad) > _MOST_BAD else []
        listed = ", ".join([*names[:_MOST_BAD], *more])
        words = f"with NaN or infinities in {save}: {listed}{rest}"
        return _card("bad", figures.count(len(bad), "leaf"), words)
    if not count:
        return _card("", "no floats", f"in {save}, so nothing in it can be NaN")
    if not read:
        return _card("", "not known", f"whether the floats in {save} are finite{rest}")
    if rest:
        words = f"leaves of floats in {save} are finite{rest}"
        return _card("", f"{read:,} of {count:,}", words)
    words = f"all floats in {save}, {figures.count(count, 'leaf')}"
    return _card("good", "finite", words)


def _card(kind: str, title: str, words: str) -> str:
    title, words = html.escape(title), html.escape(words)
    return f'<div class="card {kind}"><b>{title}</b><span>{words}</span></div>'


def _table(data: Mapping[str, Any]) -> str:
    names = data["metrics"]
    titles = ["#", "step", "written (UTC)", "new", "only here", *names]
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in titles)
    rows = [f'<thead><tr>{head}<th class="text" scope="col">marks</th></tr></thead>']
    rows.append("<tbody>")
    rows += [_row(save, names) for save in data["saves"]]
    return "\n".join([*rows, "</tbody>"])


def _details(data: Mapping[str, Any]) -> str:
    """Return what saves record besides their states, folded."""
    if not data["details"]:
        return ""
    parts = ["<section>", "<h2>What saves record</h2>"]
    parts.append(
        '<p class="dim">Metadata, such as a configuration, and where the save comes '
        "from: of the best and the latest save.</p>"
    )
    for save in data["details"]:
        parts.append(f"<details><summary>{html.escape(save['title'])}</summary>")
        parts.append('<div class="wide"><table class="details">')
        for label, value in save["rows"]:
            cell = f'<td class="text">{html.escape(value)}</td>'
            parts.append(f'<tr><th scope="row">{html.escape(label)}</th>{cell}</tr>')
        parts.append("</table></div></details>")
    return "\n".join([*parts, "</section>"])


def _row(save: Mapping[str, Any], names: list[str]) -> str:
    written, only_here = save["written"], save["only_here"]
    cells = [
        "-" if save["sequence"] is None else str(save["sequence"]),
        "-" if save["step"] is None else f"{int(save['step']):,}",
        "-" if save["time"] is None else save["time"][:19].replace("T", " "),
        "-" if written is None else figures.size(written),
        "-" if only_here is None else figures.size(only_here),
    ]
    for name in names:
        value = save["metrics"].get(name)
        cells.append(
            ""
            if value is None
            else value
            if isinstance(value, str)
            else figures.number(value)
        )
    shown = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    kinds = {"damaged": "bad", "best": "good"}
    marks = ", ".join(
        f'<span class="{kinds.get(mark, "")}">{html.escape(mark)}</span>'
        for mark in save["marks"]
    )
    return f'<tr>{shown}<td class="text">{marks}</td></tr>'


def _file(name: str) -> str:
    content = pkgutil.get_data(__package__, name)
    assert content is not None  # It is a part of the package.
    return content.decode()
