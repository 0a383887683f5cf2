"""The report's page, as text and in a real browser where one is installed."""

import base64
import dataclasses
import hashlib
import html.parser
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread as read_png

from tests.support.audio_files import encode, make_music
from tests.support.model_reports import write_report
from tests.support.trainer_fixtures import write_dataset
from trainer.compare import __main__ as compare
from trainer.compare.html.clip_media import clip_picture
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.tasks.task import make_report

#: What people call genres must never become part of the page.
GENRES = ("Folk <script>alert(1)</script>", 'Jazz & "Blues"', "Rock")
MODELS = {"cnn": 0.8, "net": 1.2, "svm": 2.0}
WIDTHS = {"phone": 390, "desktop": 1280}


def test_a_picture_shows_all_images_of_a_clip():
    images = np.zeros((2, 8, 6, 3), np.uint8)
    images[1] = 255
    _, _, content = clip_picture(images).partition("base64,")
    levels = read_png(io.BytesIO(base64.b64decode(content)))[..., :3].sum(axis=2)
    assert levels.shape == (8, 6)
    assert len(np.unique(levels[:, :3])) == len(np.unique(levels[:, 3:])) == 1
    assert levels[0, 0] < levels[0, -1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A report on three models of a small dataset, with sounds."""
    root = tmp_path_factory.mktemp("report")
    manifest = write_dataset(
        root / "data",
        representations=("windows", "mel", "features"),
        genres=GENRES,
        clips_per_split_and_genre={"training": 2, "validation": 6, "test": 6},
    )
    manifest = dataclasses.replace(manifest, description="Test data", synthetic=True)
    first = 3 * (2 + 6)
    for number, (name, noise) in enumerate(MODELS.items()):
        rng = np.random.default_rng(number)

        def predict(start, count, rng=rng, noise=noise):
            labels = np.arange(count) % 3
            scores = 2 * np.eye(3)[labels] + noise * rng.standard_normal((count, 3))
            shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            tracks = [f"{start + index:06d}" for index in range(count)]
            artists = tuple(f"artist-{int(track)}" for track in tracks)
            return ClipPredictions(tuple(tracks), labels, shares, artists)

        predictions = {"validation": predict(6, 18), "test": predict(first, 18)}
        report = make_report(
            manifest,
            predictions,
            name=f"{name} & co",
            model=name.upper(),
            representation="mel",
            parameters={"seed": 7, "epochs": {"training": 3}},
            train_seconds=10.0 * (number + 1),
            weights=1000 * number or None,
            data=str(root / "data"),
            command=f"./launch.sh train --model {name}",
            notes=("A <b>note</b>.",),
        )
        target = root / "models" / report.name
        write_report(str(target), report, predictions["test"])
        phase = {
            "name": "training",
            "epochs": [1, 2, 3],
            "best_epoch": 2,
            "seconds": [1, 1, 1],
            "metrics": {
                "loss": [1.5, 1.0, 0.5],
                "accuracy": [0.3, 0.5, 0.9],
                "validation_loss": [1.4, 1.2, 1.6],
                "validation_accuracy": [0.3, 0.45, 0.4],
            },
        }
        history = {"phases": [phase]} if name == "cnn" else {"phases": []}
        (target / "history.json").write_text(json.dumps(history))
    (root / "audio" / "deep").mkdir(parents=True)
    sound = encode(make_music(6.0, 22_050)[:, :1], 22_050, "WAV")
    for track in range(first, first + 18):
        (root / "audio" / "deep" / f"{track:06d}.wav").write_bytes(sound)
    code = compare.main(
        [f"--models={root / 'models'}", f"--audio={root / 'audio' / 'deep'}"]
    )
    assert code == 0
    return root


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "report.html").read_text()


class Checker(html.parser.HTMLParser):
    """Notes tags that are not closed in order, ids, and addresses."""

    VOID = frozenset(("br", "col", "img", "meta"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict] = []
        self.scripts = 0
        self.policy = ""

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if "id" in values:
            self.ids.append(values["id"])
        self.links += [values[key] for key in ("href", "src") if key in values]
        if tag == "img":
            self.images.append(values)
        self.scripts += tag == "script"
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def checked(text) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    return checker


def test_every_tag_is_closed_and_every_id_is_one(checked):
    assert checked.open == []
    assert len(checked.ids) == len(set(checked.ids))


def test_nothing_is_loaded_from_elsewhere(checked, text):
    for link in checked.links:
        assert link.startswith(("#", "data:")), link[:80]
    inside = {link[1:] for link in checked.links if link.startswith("#")}
    assert inside <= set(checked.ids)
    assert checked.policy.startswith("default-src 'none'; ")
    assert "http" not in checked.policy
    assert not re.search(r"url\(|@import|https?:", text.partition("<body>")[0])


def test_only_the_pages_own_script_may_run(checked, text):
    assert checked.scripts == 1
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert checked.policy.endswith(f"script-src 'sha256-{digest}'")
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "<b>note" not in text


def test_pictures_have_words(checked):
    assert len(checked.images) >= 2 * len(GENRES)
    assert all(len(image["alt"]) > 20 for image in checked.images)


def test_the_page_says_the_reports_numbers(folder, text):
    content = json.loads((folder / "report.json").read_text())
    best = content["models"][0]
    share = f"{100 * best['test']['accuracy']:.0f}\N{NO-BREAK SPACE}%"
    assert f"<h1>{share} of unheard clips named right</h1>" in text
    for model in content["models"]:
        assert f"{model['test']['accuracy']:.3f}" in text
        assert f"{model['test']['log_loss']:.3f}" in text
        assert model["command"] in text
    assert content["fingerprint"] in text
    assert "Synthetic demo music: the numbers say that everything works" in text
    assert text.count("<audio") == text.count("data:audio/mpeg") > 0


def test_the_same_input_gives_the_same_page(folder, text):
    argv = [f"--models={folder / 'models'}", f"--audio={folder / 'audio' / 'deep'}"]
    assert compare.main(argv) == 0
    assert (folder / "report.html").read_text() == text


def test_a_report_without_its_dataset_has_no_data_part(folder, tmp_path, capsys):
    for path in (folder / "models").glob("*/report.json"):
        target = tmp_path / "models" / path.parent.name
        shutil.copytree(path.parent, target)
        values = json.loads(path.read_text())
        (target / "report.json").write_text(json.dumps({**values, "data": "/gone"}))
    assert compare.main([f"--models={tmp_path / 'models'}"]) == 0
    assert "with --data, the report shows it" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert 'id="comparison"' in page
    assert 'id="data"' not in page
    argv = [f"--models={tmp_path / 'models'}", f"--data={folder / 'data'}"]
    assert compare.main(argv) == 0
    assert 'id="data"' in (tmp_path / "report.html").read_text()
    write_dataset(tmp_path / "other", genres=GENRES, seed=5)
    assert compare.main([argv[0], f"--data={tmp_path / 'other'}"]) == 2
    assert "is not the dataset" in capsys.readouterr().err
    assert compare.main([argv[0], f"--audio={tmp_path / 'none'}"]) == 2
    assert "--audio matches no file: there is no none in" in capsys.readouterr().err


@pytest.fixture(params=WIDTHS)
def page(request, browser, folder):
    """The page at a width; a test fails where the page complains."""
    context = browser.new_context(
        viewport={"width": WIDTHS[request.param], "height": 800},
        reduced_motion="reduce",
    )
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    requests: list[str] = []
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto((folder / "report.html").as_uri())
    yield opened
    assert complaints == []
    assert [url[:60] for url in requests[1:] if not url.startswith("data:")] == []
    context.close()


def test_every_picture_is_there_and_nothing_is_wider_than_the_screen(page):
    page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
    page.wait_for_function("[...document.images].every(i => i.complete)")
    broken = page.eval_on_selector_all(
        "img", "all => all.filter(i => !i.naturalWidth).length"
    )
    assert broken == 0
    charts = page.eval_on_selector_all(
        "svg", "all => all.map(s => s.getBoundingClientRect().height)"
    )
    assert charts
    assert min(charts) > 20
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"]


def test_tables_sort_by_mouse_and_keyboard(page):
    table = page.locator("table.sortable").first

    def column(name):
        cells = table.locator("tbody tr:not(.base)").evaluate_all(
            "(rows, name) => rows.map(row => row.cells[[...row.closest('table')"
            ".tHead.rows[0].cells].findIndex(c => c.innerText.startsWith(name))]"
            ".dataset.value)",
            name,
        )
        return [float(cell) if name != "Model" else cell for cell in cells]

    header = table.locator("th", has_text="Log-loss")
    assert header.get_attribute("aria-sort") is None
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert column("Log-loss") == sorted(column("Log-loss"), reverse=True)
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert column("Log-loss") == sorted(column("Log-loss"))
    name = table.locator("th", has_text="Model").first
    name.locator("button").click()
    assert column("Model") == sorted(column("Model"))
    assert header.get_attribute("aria-sort") is None
    # What is no model stays below.
    assert table.locator("tbody tr").last.get_attribute("class") == "base"


def test_keyboard_and_screen_readers_find_their_way(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1
    levels = page.eval_on_selector_all(
        "h1, h2, h3, h4", "all => all.map(h => Number(h.tagName[1]))"
    )
    steps = np.diff(levels)
    assert levels[0] == 1
    assert steps.max() <= 1
    for heading in ("thead th", "tbody th"):
        scopes = page.eval_on_selector_all(
            heading, "all => all.map(h => h.getAttribute('scope'))"
        )
        assert set(scopes) == {"col" if heading.startswith("thead") else "row"}
    unnamed = page.eval_on_selector_all(
        "[role=region], [role=img], nav, section, audio",
        "all => all.filter(e => !(e.ariaLabel || e.getAttribute('aria-labelledby')))"
        ".length",
    )
    assert unnamed == 0
    regions = page.locator("[role=region]")
    assert regions.first.get_attribute("tabindex") == "0"


def test_a_link_opens_the_model_that_it_leads_to(page):
    last = page.locator("details").last
    assert last.get_attribute("open") is None
    page.locator(".interval a").last.click()
    page.wait_for_function("[...document.querySelectorAll('details')].at(-1).open")
    top = last.evaluate("e => e.getBoundingClientRect().top")
    assert -5 <= top < page.viewport_size["height"]


def test_contrast_is_enough_in_light_and_dark(page):
    """WCAG AA: text 4.5 to 1."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours = page.evaluate(
            """() => {
              const style = getComputedStyle(document.documentElement);
              const probe = document.createElement('i');
              document.body.append(probe);
              const read = name => {
                probe.style.color = style.getPropertyValue(name);
                return getComputedStyle(probe).color.match(/\\d+/g).map(Number);
              };
              const names = ['--paper', '--raised', '--ink', '--muted', '--accent',
                             '--second'];
              const found = Object.fromEntries(names.map(n => [n, read(n)]));
              probe.remove();
              return found;
            }"""
        )
        for text in ("--ink", "--muted", "--accent", "--second"):
            for ground in ("--paper", "--raised"):
                ratio = contrast(colours[text], colours[ground])
                assert ratio >= 4.5, (scheme, text, ground)
        cells = page.eval_on_selector_all(
            "table.heat td",
            """all => all.map(cell => {
              const style = getComputedStyle(cell);
              const read = colour => {
                const numbers = colour.match(/[\\d.]+/g).map(Number);
                return colour.startsWith('color')
                  ? numbers.map(each => 255 * each) : numbers;
              };
              return [read(style.color), read(style.backgroundColor)];
            })""",
        )
        assert min(contrast(*cell) for cell in cells) >= 4.5


def contrast(first, second):
    """Ratio of luminances (WCAG 2.2, relative luminance)."""

    def luminance(colour):
        channels = np.array(colour[:3]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_paper_shows_what_is_folded(browser, folder):
    context = browser.new_context(color_scheme="dark")
    opened = context.new_page()
    opened.goto((folder / "report.html").as_uri())
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.locator("details:not([open])").count() == 0
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.locator("details[open]").count() == 1
    opened.emulate_media(media="print")
    ground = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    assert opened.pdf(format="A4").count(b"/Type /Page\n") >= 2
    context.close()


def test_sounds_play(browser, folder):
    context = browser.new_context()
    opened = context.new_page()
    opened.goto((folder / "report.html").as_uri())
    seconds = opened.evaluate(
        """() => new Promise((resolve, reject) => {
          const player = document.querySelector('audio');
          player.onloadedmetadata = () => resolve(player.duration);
          player.onerror = () => reject(new Error(player.error.message));
          player.load();
          player.preload = 'metadata';
        })"""
    )
    assert seconds == pytest.approx(12, abs=0.5)
    context.close()
