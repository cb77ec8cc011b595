"""Makes the pictures in README.md, from a run of the demo's training.

    make pictures

Pictures of the terminal are SVG that this writes itself. That of the page is what
Chromium shows; without one, it stays as it is.
"""

import html
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CARTPOLE = HERE.parents[1] / "examples" / "cartpole.py"
COLUMNS = 88
WIDTH, LINE, MARGIN = 8.4, 19, 16  # Of a letter, a line and the border, in pixels.
SCREEN = "#16181d", "#d8dbe2"
COLOURS = {"1": "", "2": "#878d9a", "31": "#ff7b72", "32": "#7ee787", "33": "#e3b341"}
COLOURS |= {"34": "#79c0ff", "35": "#d2a8ff", "36": "#76e3ea"}
NO_BREAK = "\N{NO-BREAK SPACE}"  # Of several plain spaces, browsers show one.
STYLE = re.compile(r"\x1b\[([0-9;]*)m")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        train = [sys.executable, CARTPOLE, "--logdir", "cartpole", "--steps", "15000"]
        subprocess.run(train, check=True)
        pathlib.Path("runs").mkdir()
        run = pathlib.Path("cartpole/ckpt").rename("runs/cartpole")
        draw("ls", "ls", str(run), "-l")
        draw("diff", "diff", f"{run}@latest~1", f"{run}@latest", "-r", "agent/params")
        photograph(str(run))


def draw(name: str, *arguments: str) -> None:
    """Write an SVG of what a verb prints on a terminal."""
    lines = [f"\x1b[2m$\x1b[0m elementsckpt {' '.join(arguments)}"]
    lines += printed([sys.executable, "-m", "elementsckpt", *arguments]).splitlines()
    width, height = MARGIN * 2 + WIDTH * COLUMNS, MARGIN * 2 + LINE * len(lines)
    texts = "\n".join(row(number, line) for number, line in enumerate(lines))
    (HERE / f"{name}.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" '
        f'width="{width:g}" height="{height}" role="img">\n'
        f"<title>What elementsckpt {name} prints</title>\n"
        f'<rect width="100%" height="100%" rx="8" fill="{SCREEN[0]}"/>\n'
        f'<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" '
        f'fill="{SCREEN[1]}">\n{texts}\n</g>\n</svg>\n',
        "utf-8",
    )


def printed(command: list[str]) -> str:
    """Return what a command prints on a terminal, with its colours."""
    above, below = pty.openpty()
    settings = {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, stdout=below, stderr=below, env={**os.environ, **settings}
    )
    os.close(below)
    content = b""
    while True:
        try:
            content += os.read(above, 1 << 16)
        except OSError:  # The other end is closed.
            break
    os.close(above)
    assert process.wait() <= 1, content.decode()
    return content.decode().replace("\r\n", "\n")


def row(number: int, line: str) -> str:
    """Return one line as SVG; every piece of one style has its place."""
    place, style, pieces = 0, "", []
    for index, part in enumerate(STYLE.split(line)):
        if index % 2:
            style = part
        elif part:
            colour = COLOURS.get(style, "")
            look = f' fill="{colour}"' if colour else ""
            look += ' font-weight="bold"' if style == "1" else ""
            x, length = MARGIN + place * WIDTH, len(part) * WIDTH
            pieces.append(
                f'<tspan x="{x:g}" textLength="{length:g}"{look}>'
                f"{html.escape(part.replace(' ', NO_BREAK))}</tspan>"
            )
            place += len(part)
    y = MARGIN + LINE * (number + 0.75)
    return f'<text y="{y:g}">{"".join(pieces)}</text>'


def photograph(directory: str) -> None:
    """Write a PNG of the report page."""
    command = [sys.executable, "-m", "elementsckpt", "report", directory]
    subprocess.run(command, check=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("There is no Chromium: the picture of the page stays as it is.")
        return
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    target = HERE / "report.png"
    report = pathlib.Path("report.html").resolve()
    text = report.read_text("utf-8")  # Without the folder of this run alone.
    report.write_text(text.replace(f"{pathlib.Path.cwd()}/", ""), "utf-8")
    page = report.as_uri()
    size = "--window-size=1120,860"
    subprocess.run(
        [chromium, *flags, size, f"--screenshot={target}", page],
        check=True,
        stderr=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
