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
    last = browser.execute_script(
        "return [...[...document.querySelector('section').querySelectorAll('svg')]"
        ".at(-1).querySelectorAll('text')].map(x => x.textContent)"
    )
    assert last[-1] == "9007.2T"  # A step, below the last metric.
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
    text = elementsckpt.write_report(run, tmp_path / "a.html").read_text("utf-8")
    assert "1 damaged" in text
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
    rows = browser.execute_script("return document.querySelectorAll('tbody tr').length")
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


def test_a_leaf_of_several_blocks_has_a_picture_from_digests(tmp_path, browser):
    run = make_many(tmp_path / "run", 101)
    page = elementsckpt.write_report(run, tmp_path / "page.html", max_bytes=0)
    data = data_of(page)
    (found,) = data["blocks"]
    assert found["name"] == "replay"
    assert found["rows"][0] == "1" * 64
    assert found["rows"][1] is None
    assert 0 < found["rows"][50].count("1") < 64
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
    last = browser.execute_script(
        "return [...[...document.querySelector('section').querySelectorAll('svg')]"
        ".at(-1).querySelectorAll('text')].map(x => x.textContent)"
    )
    assert last[-1] == "9007.2T"  # A step, below the last metric.
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
