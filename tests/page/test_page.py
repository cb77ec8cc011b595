"""The report page in a browser: one file, no error, no request, no name obeyed."""

import json
import re
import shutil

import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    Keep,
    SaveExistsError,
    SaveNotFoundError,
    Value,
    WriteError,
)
from elementsckpt.inspection.contents import Contents

from support.folders import flip_block, noise

HOSTILE = "</script><script>alert(1)</script>\u202e\x1b[31m'\"&STYLE DATA\n"


def make(directory, count, leaves=4):
    keep = Keep(latest=None, best=1, metric="return")
    cp = Checkpoint(directory, keep=keep, fsync=False)
    cp.step = elementsckpt.Counter()
    tables = {f"layer{n}/w": np.ones((8, 8), np.float32) * n for n in range(leaves)}
    for number in range(count):
        cp.step.value = 2**53 + 1 + number
        for name in list(tables)[: leaves // 2]:
            tables[name] = tables[name] + number
        if number == count - 1:
            tables["layer0/w"] = tables["layer0/w"] * np.nan
        cp.agent = Value({**tables, HOSTILE: np.arange(3.0)})
        value = float("nan") if number == 1 else float(number)
        metrics = {"return": value, HOSTILE: 1.0}
        cp.save(metrics=metrics, pin=HOSTILE.replace("/", "") if number == 0 else None)
    return directory


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "run", 6)


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no Chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()


def texts(browser):
    """Return for each section what its pictures say."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#pictures section')].map(section => "
        "[...section.querySelectorAll('svg text')].map(x => x.textContent))"
    )


def opened(browser, page, width=1180, scheme="light"):
    """Open a page; return the requests that it made."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(page.as_uri())
    events = [
        json.loads(x["message"])["message"] for x in browser.get_log("performance")
    ]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]


@pytest.mark.parametrize(("width", "scheme"), [(420, "light"), (1180, "dark")])
def test_a_browser_shows_it_without_an_error_or_a_request(
    run, tmp_path, browser, width, scheme
):
    page = elementsckpt.write_report(run, tmp_path / "page.html")
    assert opened(browser, page, width, scheme) == [page.as_uri()]
    assert browser.get_log("browser") == []
    assert (
        browser.execute_script("return document.documentElement.dataset.drawn") == "yes"
    )
    wide = "return document.documentElement.scrollWidth <= innerWidth"
    assert browser.execute_script(wide)
    titles = [x.text for x in browser.find_elements("css selector", "h2")]
    assert titles == [
        "Metrics",
        "What each save wrote",
        "How much each leaf changed",
        "Where the bytes of the newest save are",
        "Where the state comes from",
        "Saves",
        "What saves record",
    ]
    for place in (0, 1):  # Below metrics and bars, exact.
        steps = [x for x in texts(browser)[place] if x.startswith("9,007,")]
        assert steps
        assert set(steps) <= {f"{2**53 + 1 + n:,}" for n in range(6)}
    background = "return getComputedStyle(document.body).backgroundColor"
    is_dark = browser.execute_script(background) != "rgb(255, 255, 255)"
    assert is_dark == (scheme == "dark")


def test_what_a_screen_reader_needs_is_there(run, tmp_path, browser):
    opened(browser, elementsckpt.write_report(run, tmp_path / "page.html"))
    count = "return document.querySelectorAll(arguments[0]).length"
    assert browser.execute_script(count, "html[lang]") == 1
    assert browser.execute_script(count, "h1") == 1
    assert browser.execute_script(count, "main") == 1
    assert browser.execute_script(count, "th[scope]") >= 6
    pictures = browser.find_elements("css selector", "svg, canvas")
    for picture in pictures:
        is_hidden = picture.get_attribute("aria-hidden") == "true"
        has_title = bool(picture.find_elements("css selector", "title"))
        has_label = bool(picture.get_attribute("aria-label"))
        has_role = picture.get_attribute("role") == "img"
        assert is_hidden or (has_role and (has_title or has_label))


def test_without_a_script_the_table_is_there(run, tmp_path):
    text = elementsckpt.write_report(run, tmp_path / "page.html").read_text("utf-8")
    body = text[text.index("<main>") : text.index("</main>")]
    table = body.partition("What saves record")[0]
    assert table.count("<tr>") == 7
    assert f"{2**53 + 1:,}" in body
    assert "not verified" in body


def test_no_name_is_obeyed(run, tmp_path):
    text = elementsckpt.write_report(run, tmp_path / "page.html").read_text("utf-8")
    assert text.count("<script") == 2
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "alert(1)</script>" not in text
    assert "default-src 'none'" in text


def test_damage_is_shown_and_verified_if_asked(tmp_path):
    run = make(tmp_path / "run", 4)
    infos = elementsckpt.saves(run)
    flip_block(infos[0].path, 0, key="agent")
    (infos[1].path / "manifest.json").write_text("{}")
    page = elementsckpt.write_report(run, tmp_path / "a.html", max_bytes=0)
    assert "1 damaged" in page.read_text("utf-8")
    text = elementsckpt.write_report(run, tmp_path / "b.html", verify=True).read_text()
    assert "2 damaged" in text
    assert "<span>#1, " in text
    assert "not verified" not in text


# As the style sheet of JupyterLab 4 has it.
JUPYTERLAB = """
.jp-RenderedHTMLCommon td, .jp-RenderedHTMLCommon th { padding: 0.5em; }
:not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon td,
:not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon th { text-align: right; }
.jp-RenderedHTMLCommon th { font-weight: bold; }
"""


def test_a_notebook_does_not_change_the_sides_of_tables(tmp_path, browser):
    cp = Checkpoint(tmp_path / "run", fsync=False)
    cp.agent = Value({"w": np.zeros(3), "x" * 300: np.zeros(3)})
    cp.save()
    page = tmp_path / "cell.html"
    shown = elementsckpt.leaves(tmp_path / "run")._repr_html_()
    page.write_text(
        f'<body><div class="jp-RenderedHTMLCommon" style="width:700px">{shown}</div>'
        f"<style>{JUPYTERLAB}</style>"
    )
    opened(browser, page, 1180, "light")
    sides = browser.execute_script(
        "return [...document.querySelectorAll('tr:nth-child(2) td')].map("
        "x => getComputedStyle(x).textAlign)"
    )
    assert sides[:4] == ["left", "left", "right", "right"]
    high, wide = browser.execute_script(
        "let x = document.querySelectorAll('tr:nth-child(2) td')[1];"
        "return [x.offsetHeight, document.querySelector('table').offsetWidth]"
    )
    assert high < 40  # The form is on one line, beside a name of several.
    assert wide <= 700


def test_at_most_so_many_bytes_are_read_and_the_rest_is_named(run, tmp_path):
    page = elementsckpt.write_report(run, tmp_path / "page.html", max_bytes=0)
    text = page.read_text("utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert data["bytes_read"] == 0
    assert "agent/layer0/w" in data["changes"]["left_out"]
    assert data["changes"]["rows"] == []


def test_it_is_written_whole_or_not_at_all(run, tmp_path, inject):
    page = tmp_path / "page.html"
    before = elementsckpt.write_report(run, page).read_bytes()

    def refuse(call, *args):
        if call.__name__ in ("replace", "pwrite"):
            raise OSError(28, "No space left on device")
        return call(*args)

    inject(refuse)
    with pytest.raises(WriteError):
        elementsckpt.write_report(run, page)
    assert page.read_bytes() == before
    assert [x.name for x in tmp_path.iterdir()] == ["page.html"]


def test_a_directory_without_saves_is_an_error(tmp_path):
    with pytest.raises(SaveNotFoundError):
        elementsckpt.write_report(tmp_path, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_it_is_small_at_20_saves_of_50_leaves(tmp_path):
    run = make(tmp_path / "run", 20, leaves=50)
    page = elementsckpt.write_report(run, tmp_path / "page.html")
    assert page.stat().st_size <= 100_000


@pytest.mark.slow
def test_a_thousand_saves_are_on_canvases_and_small(tmp_path, browser):
    run = make_many(tmp_path / "run", 1000)
    page = elementsckpt.write_report(run, tmp_path / "page.html")
    assert page.stat().st_size <= 1_000_000
    opened(browser, page)
    assert browser.get_log("browser") == []
    assert len(browser.find_elements("css selector", "canvas")) >= 4
    assert not browser.find_elements("css selector", "main section svg[role]")
    rows = browser.execute_script(
        "return document.querySelectorAll('.wide.tall tbody tr').length"
    )
    assert rows == 1000
    assert browser.execute_script("return document.documentElement.scrollHeight") < 30e3


def make_many(directory, count):
    """Make saves quickly: some leaves, of which one has several blocks."""
    keep = Keep(latest=None, best=1, metric="return")
    cp = Checkpoint(directory, keep=keep, fsync=False)
    cp.step = elementsckpt.Counter()
    large = noise(0, 3 << 20)
    for number in range(count):
        cp.step.value = number
        large[number * 3000] ^= 1
        cp.agent = Value({f"layer{n}/w": np.full(8, float(number)) for n in range(9)})
        is_whole = number % 50 == 0 or number == count - 1
        if is_whole:
            cp.replay = Value(large.copy())
        metrics = {"return": float(number), "loss": 1 / (number + 1)}
        cp.save(metrics=metrics, keys=None if is_whole else ["step", "agent"])
    return directory


def test_each_save_is_taken_apart_as_often_however_many_leaves_are_large(
    tmp_path, monkeypatch
):
    counts, leaves = [], Contents.leaves
    for large in (1, 3):
        cp = Checkpoint(tmp_path / str(large), keep=None, fsync=False)
        cp.net = Value({str(n): noise(n, 3 << 20) for n in range(large)})
        for _ in range(3):
            cp.save()
        counts.append(0)

        def count(*args):
            counts[-1] += 1
            return leaves(*args)

        monkeypatch.setattr(Contents, "leaves", count)
        page = elementsckpt.write_report(
            tmp_path / str(large), tmp_path / f"{large}.html", max_bytes=0
        )
        assert len(data_of(page)["blocks"]) == large
    assert counts[0] == counts[1]


def test_a_leaf_of_several_blocks_has_a_picture_from_digests(tmp_path, browser):
    run = make_many(tmp_path / "run", 101)
    page = elementsckpt.write_report(run, tmp_path / "page.html", max_bytes=0)
    data = data_of(page)
    (found,) = data["blocks"]
    assert found["name"] == "replay"
    first, without, second = found["rows"][:3]
    assert first == [1, 1, 1, "1" * 64]
    assert without == [2, 50, 49, None]  # Rows that are the same are one.
    assert second[:3] == [51, 51, 1]
    assert 0 < second[3].count("1") < 64
    assert data["bytes_read"] == 0
    opened(browser, page)
    text = browser.find_element("css selector", "main").text
    assert "from digests alone" in text
    assert "Not read: " in text


def data_of(page):
    found = re.search(r'(?s)id="data">(.*?)</script>', page.read_text("utf-8"))
    return json.loads(found[1])


def test_lineage_leads_to_other_directories(run, tmp_path):
    first = elementsckpt.saves(run)[2]
    cp = Checkpoint(tmp_path / "tuned", fsync=False)
    cp.agent = elementsckpt.Value()
    cp.load(first.path, keys=["agent"], allow_pickle=True)
    cp.save()
    cp.save()
    data = data_of(elementsckpt.write_report(tmp_path / "tuned", tmp_path / "x.html"))
    own, other = data["runs"]
    assert own["directory"] == str(tmp_path / "tuned")
    assert other["directory"] == str(run)
    assert own["saves"][0]["from"] == str(first.path)
    assert str(first.path) in [save["path"] for save in other["saves"]]


def test_a_damaged_save_is_in_the_table_and_in_no_run(tmp_path):
    run = make(tmp_path / "run", 4)
    (elementsckpt.saves(run)[1].path / "manifest.json").write_text("{}")
    data = data_of(elementsckpt.write_report(run, tmp_path / "x.html"))
    assert len(data["saves"]) == 4
    (own,) = data["runs"]
    assert len(own["saves"]) == 3


def test_it_is_light_on_paper(run, tmp_path, browser):
    opened(browser, elementsckpt.write_report(run, tmp_path / "x.html"), scheme="dark")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"media": "print", "features": features}
    )
    background = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(background) == "rgb(255, 255, 255)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_words_are_large_enough_on_a_narrow_screen(run, tmp_path, browser):
    opened(browser, elementsckpt.write_report(run, tmp_path / "x.html"), width=420)
    heights = """return [...document.querySelectorAll("svg text")]
        .map(text => text.getBoundingClientRect().height)"""
    assert min(browser.execute_script(heights)) >= 8


def test_without_metrics_no_column_is_empty(tmp_path, browser):
    cp = Checkpoint(tmp_path / "run", fsync=False)
    cp.agent = Value({"w": np.ones(3)})
    cp.save()
    opened(browser, elementsckpt.write_report(tmp_path / "run", tmp_path / "x.html"))
    columns = browser.find_elements("css selector", ".columns > *")
    assert [x.text.splitlines()[0] for x in columns] == ["What each save wrote"]


def test_it_replaces_a_page_and_no_other_file(run, tmp_path):
    page = tmp_path / "page.html"
    page.touch()  # An empty file is as good as none.
    for _ in range(2):
        assert elementsckpt.write_report(run, page) == page
        assert page.stat().st_size > 1000
    for content in (b"import jax\n", b"<!doctype html>\n<html>", b"\0"):
        page.write_bytes(content)
        with pytest.raises(SaveExistsError, match="not a page that elementsckpt wrote"):
            elementsckpt.write_report(run, page)
        assert page.read_bytes() == content
    (tmp_path / "link").symlink_to(page)
    (tmp_path / "nowhere").symlink_to("nothing")
    for target in (tmp_path, tmp_path / "link", tmp_path / "nowhere", "/dev/null"):
        with pytest.raises(SaveExistsError):
            elementsckpt.write_report(run, target)


def test_it_shows_what_the_best_and_the_latest_save_record(tmp_path):
    cp = Checkpoint(tmp_path, keep=Keep(None, 1, "return"), fsync=False)
    cp.agent = Value(1)
    for number in range(3):
        metadata = {"net": {"width": 128 + number}, HOSTILE: HOSTILE}
        cp.save(metrics={"return": -number}, metadata=metadata)
    text = elementsckpt.write_report(tmp_path, tmp_path / "x.html").read_text()
    details = text.partition("What saves record")[2]
    assert details.count("<details>") == 2
    assert details.index("#1 best") < details.index("#3 latest")
    assert [details.count(f">{128 + n}<") for n in range(3)] == [1, 0, 1]
    assert "metadata.net.width" in details
    assert text.count("<script") == 2
    assert "\u202e" not in text


def save_all(directory, values, **arguments):
    """Save a value after another; return the folders."""
    cp = Checkpoint(directory, keep=Keep(latest=None), fsync=False)
    cp.agent = Value()
    for value in values:
        cp.agent.value = value
        cp.save(**arguments)
    return [info.path for info in elementsckpt.saves(directory)]


def words(page):
    """Return what the page says without a script, on one line."""
    body = page.read_text("utf-8").partition("<main>")[2].partition("</main>")[0]
    return " ".join(re.sub("<[^>]*>", " ", body).split())


def cards(page):
    """Return kind, title and words of each card."""
    found = r'<div class="card (.*?)"><b>(.*?)</b><span>(.*?)</span>'
    return re.findall(found, page.read_text("utf-8"))


def test_nothing_is_called_finite_where_nothing_was_read(tmp_path):
    run = tmp_path / "run"
    folders = save_all(run, [{"w": np.ones(9) * n} for n in range(3)])
    page = elementsckpt.write_report(run, tmp_path / "x.html", max_bytes=0)
    assert cards(page)[-1] == (
        "",
        "not known",
        "whether the floats in the newest save (#3) are finite; 1 not read",
    )
    page = elementsckpt.write_report(run, page)
    kind, title, said = cards(page)[-1]
    assert (kind, title) == ("good", "finite")
    assert said == "all floats in the newest save (#3), 1 leaf"
    for folder in folders:
        (folder / "manifest.json").write_text("{}")
    page = elementsckpt.write_report(run, page)
    assert "good" not in [kind for kind, _, _ in cards(page)]
    assert cards(page)[-1][1:] == (
        "not known",
        "whether leaves are finite: no save can be read",
    )
    assert cards(page)[1][1:] == ("3 damaged", cards(page)[1][2])
    assert "the rest" not in cards(page)[1][2]


def test_a_part_that_was_read_is_not_all(tmp_path):
    tree = {"small": np.ones(9), "large": np.ones(999)}
    save_all(tmp_path / "run", [tree])
    page = elementsckpt.write_report(
        tmp_path / "run", tmp_path / "x.html", max_bytes=99
    )
    assert cards(page)[-1] == (
        "",
        "1 of 2",
        "leaves of floats in the newest save (#1) are finite; 1 not read",
    )


def test_tiles_and_the_end_of_the_page_agree_about_what_was_read(run, tmp_path):
    for limit, said in [
        (0, "of the saves, only manifests were read"),
        (10**9, "of arrays were read for the pictures"),
    ]:
        page = elementsckpt.write_report(run, tmp_path / "x.html", max_bytes=limit)
        assert words(page).count(said) == 2
        assert ("only manifests" in words(page)) == (not limit)


def test_leaves_with_nan_are_named(run, tmp_path):
    kind, title, said = cards(elementsckpt.write_report(run, tmp_path / "x.html"))[-1]
    assert (kind, title) == ("bad", "1 leaf")
    assert said == (
        "with NaN or infinities in the newest save (#6): agent/layer0/w (64 elements)"
    )


def test_a_change_from_zero_or_nan_is_a_change(tmp_path, browser):
    big = np.float64([1e300, 0])
    leaves = {
        "zero": [np.zeros(2), np.ones(2), np.ones(2)],
        "nan": [np.float64([1, np.nan]), np.ones(2), np.ones(2) * 2],
        "same": [np.ones(3)] * 3,
        "big": [big, -big, -big],
        "tiny": [big * 0 + 1e-300, big * 0 + 2e-300, big * 0],
    }
    trees = [{name: x[n] for name, x in leaves.items()} for n in range(3)]
    save_all(tmp_path / "run", trees)
    page = elementsckpt.write_report(tmp_path / "run", tmp_path / "x.html")
    rows = {x["name"]: x["change"] for x in data_of(page)["changes"]["rows"]}
    assert rows == {
        "agent/zero": [None, "no ratio", 0.0],
        "agent/nan": [None, "no ratio", 1.0],
        "agent/same": [None, 0.0, 0.0],
        "agent/big": [None, 2.0, 0.0],
        "agent/tiny": [None, 1.0, 1.0],
    }
    opened(browser, page)
    shown = browser.find_element("css selector", "main").text
    assert "changed from zero or NaN" in shown
    assert "Never changed: agent/same." in shown
    assert "agent/nan in #1." in shown
    hints = cells(browser, "agent/zero")[:-1]  # Without the box of its bytes.
    assert [hint.splitlines()[2] for hint, _ in hints] == [
        "nothing to compare with",
        "changed from zero or NaN",
        "changed from zero or NaN",  # The mark inside.
        "changed by 0 %",
    ]
    colors = [color for _, color in hints]
    assert colors[1] == "var(--heat)"
    assert colors[3] == "var(--line)"


def cells(browser, name):
    """Return hint and colour of each shape of a picture that is about a leaf."""
    return browser.execute_script(
        """return [...document.querySelectorAll("svg rect")]
        .map(x => [x.querySelector("title")?.textContent ?? "", x.getAttribute("fill")])
        .filter(x => x[0].split("\\n").includes(arguments[0]))""",
        name,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_larger_change_has_the_stronger_colour(run, tmp_path, browser, scheme):
    opened(browser, elementsckpt.write_report(run, tmp_path / "x.html"), 1180, scheme)
    page, heat = browser.execute_script(
        """const style = getComputedStyle(document.documentElement);
        return ["--page", "--heat"].map(x => style.getPropertyValue(x));"""
    )

    def light(color):
        digits = color.strip("# ")
        digits = "".join(x * 2 for x in digits) if len(digits) == 3 else digits
        return sum(bytes.fromhex(digits)) / 3

    assert abs(light(heat) - light(page)) > 120
    entries = browser.execute_script(
        """return [...document.querySelectorAll(".legend span")].map(x =>
        [x.textContent, Number(x.querySelector("rect").getAttribute("fill-opacity"))])
        .filter(x => x[0].includes("%"))"""
    )
    assert [text for text, _ in entries] == [
        "≤ 0.001 %", "0.01 %", "0.1 %", "1 %", "10 %", "100 % or more",
    ]  # fmt: skip
    strengths = [strength for _, strength in entries]
    assert strengths == sorted(set(strengths))


def test_a_damaged_array_is_found_where_it_is_read(tmp_path, browser):
    trees = [{"w": np.ones(9) * n, "x": np.ones(9)} for n in range(1, 5)]
    folders = save_all(tmp_path / "run", trees)
    flip_block(folders[1], 0, key="agent")
    page = elementsckpt.write_report(tmp_path / "run", tmp_path / "x.html")
    rows = {x["name"]: x["change"] for x in data_of(page)["changes"]["rows"]}
    assert "damaged" in [*rows["agent/w"], *rows["agent/x"]]
    assert rows["agent/w"][3] == 0.333  # The others are shown all the same.
    assert "1 damaged" in words(page)
    assert "#2; the rest not verified" in words(page)
    opened(browser, page)
    (mark,) = browser.find_elements("css selector", "td .bad")
    assert mark.text == "damaged"


def test_a_component_has_one_colour_and_bars_have_axes(tmp_path, browser):
    cp = Checkpoint(tmp_path / "run", keep=Keep(latest=None), fsync=False)
    cp.step = elementsckpt.Counter()
    cp.agent, cp.replay = Value({"w": np.ones(9)}), Value()
    large = noise(0, 3 << 20)
    for number in range(9):
        cp.step.value += 1000
        large[::1000] ^= 1
        cp.replay.value = large.copy()
        cp.save(metrics={"loss": 0.0006667 / (number + 1)})
    opened(browser, elementsckpt.write_report(tmp_path / "run", tmp_path / "x.html"))
    hints = cells(browser, "replay: 3.15 MB written")
    hints += cells(browser, "#1 to #9, each: new, 100 % of the leaf")
    hints += cells(browser, "replay")
    assert len(hints) == 9 + 1 + 1
    assert {color for _, color in hints} == {"var(--a)"}
    metrics, bars, changed, *_ = texts(browser)
    steps = [f"{n},000" for n in range(1, 10)]
    assert "0.0006667" in metrics
    assert [x for x in metrics if x in steps] == steps[::2]
    assert [x for x in bars if x in steps] == steps
    assert "step" in metrics
    assert "step" in bars
    assert [x for x in bars if x.endswith("B")] == ["0 B", "1 MB", "2 MB", "3 MB"]
    assert changed == ["replay", "#1 to #9", "0 B", "3.15 MB"]


@pytest.mark.parametrize("width", [420, 500, 1180])
def test_nothing_is_cut_at_the_edge(run, tmp_path, browser, width):
    opened(browser, elementsckpt.write_report(run, tmp_path / "x.html"), width)
    outside = browser.execute_script(
        """return [...document.querySelectorAll("#pictures text")].filter(text => {
        const own = text.getBoundingClientRect();
        const all = text.ownerSVGElement.getBoundingClientRect();
        return own.left < all.left - 1 || own.right > all.right + 1
            || own.bottom > all.bottom + 2 || all.right > innerWidth;
        }).map(text => text.textContent)"""
    )
    assert outside == []
    hint = browser.find_element("css selector", ".hint")
    box = browser.find_element("css selector", ".hint + .wide")
    is_wider = browser.execute_script(
        "return arguments[0].scrollWidth > arguments[0].clientWidth + 1", box
    )
    assert hint.is_displayed() == is_wider
    assert is_wider or width == 1180


def test_pictures_follow_the_width_of_the_window(run, tmp_path, browser):
    opened(browser, elementsckpt.write_report(run, tmp_path / "x.html"), 1180)
    size = {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_async_script(
        "requestAnimationFrame(() => setTimeout(arguments[0]))"
    )
    widths = """return [...document.querySelectorAll("#pictures svg[role]")]
        .map(x => Number(x.getAttribute("viewBox").split(" ")[2]))"""
    assert max(browser.execute_script(widths)) < 420
    assert browser.execute_script("return document.querySelectorAll('h2').length") == 7
