import json
import re
from html.parser import HTMLParser

import pytest

from qaudio.compare import peers
from qaudio.compare.gather import gather
from qaudio.compare.html import render
from qaudio.compare.tables import interval_text, score_text
from tests.support.comparison import HOSTILE, LABELS, made


class Page(HTMLParser):
    """Elements, their attributes, and the text of tables and scripts, as a browser reads them."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.scripts, self.tables, self.text = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, text):
        self.text.append(text)
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += text
        elif self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += text.strip()

    @property
    def data(self):
        return json.loads(self.scripts[0])


def luminance(color):
    channels = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_each_protocol_has_a_table_with_the_members_figures(comparison):
    page = Page(render(comparison))
    assert len(page.tables) == len(comparison.groups) == 2
    for table, group in zip(page.tables, comparison.groups, strict=True):
        head, *rows = table
        assert head[:3] == ["entry", "accuracy", "95 % interval"]
        for row, member in zip(rows, group.members, strict=True):
            assert row[0] == member.name + (member.parent or "")
            plain = [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row[1:3]]
            assert plain == [score_text(member), interval_text(member)]
            assert (row[6] == "–") == (member.latency is None)
    assert any(text.endswith("bare.made: without results") for text in page.text)


def test_the_data_hold_pairs_fronts_and_classes(comparison):
    data = Page(render(comparison)).data
    group, given = comparison.groups[1], data["groups"][1]
    assert [member["name"] for member in given["members"]] == [m.name for m in group.members]
    assert len(given["pairs"]) == 12
    for key, pair in given["pairs"].items():
        one, other = (group.members[int(n)] for n in key.split(","))
        found = group.difference(one, other)
        assert (pair["low"], pair["high"]) == found.interval95
        assert pair["text"].startswith(f"{100 * found.mean:+.1f} (")
    for member, shown in zip(group.members, given["members"], strict=True):
        assert shown["labels"] == LABELS
        assert shown["classes"] == member.by_class
        assert shown["clips"] == [12, 12, 12, 12]
    for front in given["measures"]["macs"]["fronts"]:
        scores = [given["members"][n]["score"] for n in front]
        assert scores == sorted(scores)


def test_the_page_needs_nothing_else_and_runs_only_its_own_script(comparison):
    html = render(comparison, peers.read())
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag not in ("img", "iframe", "object", "embed", "base")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:,"))
    assert "url(" not in html
    assert "@import" not in html
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_hostile_texts_stay_texts(hostile):
    page = Page(render(gather([*hostile, f"no_such{HOSTILE}"])))
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert not [a for _, a in page.elements if "onerror" in a]
    assert page.data["groups"][0]["members"][0]["labels"][0] == HOSTILE
    assert page.tables[0][1][0].count(HOSTILE) == 2  # name, and how it came from its parent
    assert "<" not in page.scripts[0]


def test_no_entry_at_all_is_still_a_page():
    page = Page(render(gather([])))
    assert page.data == {"groups": []}
    assert page.tables == []


def test_a_single_entry_has_nothing_to_be_paired_with(write_entry):
    html = render(gather([write_entry("a.made", made(1))]))
    assert "Comparison of one entry" in html
    assert 'class="panel pair"' not in html


def test_peers_have_a_block_of_their_own(comparison):
    assert peers.HEADING not in render(comparison)
    html = render(comparison, peers.read())
    measured, published = html.split(f"<h2>{peers.HEADING}</h2>")
    assert "EfficientAT" not in measured
    assert "EfficientAT mn10" in published
    assert "big.made" not in published.split("</section>")[0]
    assert len(Page(html).tables) == 4


def test_colors_can_be_told_apart_in_light_and_dark():
    """WCAG 2: 4.5 for text, 3 for marks."""
    css = re.search(r"<style>(.*?)</style>", render(gather([])), re.DOTALL)[1]
    schemes = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        for scheme in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(schemes) == 2
    for colors in schemes:
        for name, least in [("ink", 4.5), ("soft", 4.5), ("better", 4.5), ("worse", 4.5),
                            ("accent", 3), ("quaternion", 3), ("real", 3)]:  # fmt: skip
            for ground in ("page", "raised"):
                pair = sorted((luminance(colors[name]), luminance(colors[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least, (name, ground, colors)


@pytest.mark.parametrize("peer", peers.read(), ids=lambda peer: f"{peer.model} {peer.metric}")
def test_every_published_figure_has_a_source_and_says_how_it_is_known(peer):
    assert peer.source
    assert "memory" not in peer.basis
    assert "read" in peer.basis
    assert peer.benchmark in ("audioset", "esc50")
    assert all(0 < share < 1 for share in peer.score or ())
    assert peer.score or peer.note


def test_published_figures_for_a_terminal():
    shown = peers.text(peers.read())
    assert shown.startswith(peers.HEADING)
    assert max(map(len, shown.splitlines())) <= 100
    assert "…" not in shown
    assert re.search(r"PaSST-S +47\.1 to 47\.6 % +87 M +101 G", shown)
