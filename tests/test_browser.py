"""The pages in a real browser, with the network cut: silent, in both themes, on wide screens and on a telephone."""

import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import pytest
from PIL import Image

from edgetok.limits import Limits
from edgetok.page.html import comparison_page, profile_page, tradeoff_page
from tests.test_comparison_report import ROWS
from tests.test_comparison_report import report as compared
from tests.test_page import made
from tests.test_tuning import table

pytestmark = pytest.mark.more
CHROMIUM = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
PAGES = {
    "profile": lambda: profile_page(made()),
    "profile of 500 blocks": lambda: profile_page(made(blocks=500)),
    "comparison": lambda: comparison_page(
        compared(*ROWS, limits=Limits(min_cosine=0.98), rounds=[(40 + i % 2, 20, 30 + i % 3, 35) for i in range(15)])
    ),
    "sweep": lambda: tradeoff_page(table()),
}
HEIGHT = 4000


def opened(page: str, folder: Path, theme: str, width: int) -> tuple[float, float, Image.Image]:
    """What a browser makes of a page: how wide its content is, the milliseconds until it is there, a screenshot.

    The page is in a frame of that width, which is its window: Chromium's own windows are 500 pixels wide at least. A
    page scrolls sideways where its content is wider than its window: the script that finds out is the test's own.
    """
    if shutil.which("chromium") is None:
        pytest.skip("no chromium: apt install chromium")
    script = "<script>console.log('WIDTH', document.documentElement.scrollWidth, performance.now())</script>"
    framed = escape(page.replace("</body>", script + "</body>"), quote=True)
    frame = f'<iframe style="border: 0" width="{width}" height="{HEIGHT}" srcdoc="{framed}"></iframe>'
    file, shot = folder / "framed.html", folder / "shot.png"
    file.write_text(f'<!doctype html><link rel="icon" href="data:,"><body style="margin: 0">{frame}')
    preferred = ["--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
    written = [f"--user-data-dir={folder}/user", f"--screenshot={shot}", f"--window-size={max(width, 500)},{HEIGHT}"]
    done = subprocess.run([*CHROMIUM, *written, *preferred, file.as_uri()], capture_output=True, text=True, timeout=120)
    told = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert len(told) == 1, told  # nothing but the test's own line
    found = re.search(r"WIDTH (\d+) ([\d.]+)", told[0])
    with Image.open(shot) as picture:
        return float(found[1]), float(found[2]), picture.convert("RGB")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_it(tmp_path: Path, name: str, width: int, theme: str) -> None:
    """Under 6 MB, and there in less than two seconds, however long the model is."""
    page = PAGES[name]()
    assert len(page.encode()) < 6_000_000
    content, ready, picture = opened(page, tmp_path, theme, width)
    assert content <= width and ready < 2000
    paper = picture.getpixel((2, HEIGHT - 10))
    assert (sum(paper) < 150) == (theme == "dark") and len(picture.getcolors(1 << 24)) > 50
