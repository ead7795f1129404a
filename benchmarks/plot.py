"""Draws plots as SVG with pygal: lines over numbers, and bars."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pygal
from pygal.style import Style

# pygal finds its maps by a hook of a kind that each later import would warn of.
sys.meta_path[:] = [
    finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)
]

_STYLE = Style(
    background="white",
    plot_background="white",
    foreground="#333333",
    foreground_strong="#111111",
    foreground_subtle="#777777",
    guide_stroke_color="#dddddd",
    major_guide_stroke_color="#bbbbbb",
    guide_stroke_dasharray="2,3",
    major_guide_stroke_dasharray="2,3",
    font_family="sans-serif",
    title_font_size=18,
    label_font_size=12,
    major_label_font_size=12,
    legend_font_size=13,
    value_font_size=12,
    opacity="1",
    stroke_width="2",
    # Distinguishable with red-green colour blindness (Okabe and Ito).
    colors=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555"),
)
_COMMON = {
    "style": _STYLE,
    "width": 760,
    "js": (),  # no script: works in a page of plain files
    "legend_at_bottom": True,
    "truncate_legend": -1,
    "truncate_label": -1,
    "margin_right": 30,
    "margin_bottom": 20,
}
_LEGEND_COLUMNS = 3

Points = Sequence[tuple[float, float]]


def lines(
    path: Path,
    title: str,
    x_title: str,
    y_title: str,
    series: Mapping[str, Points],
    *,
    log_x: bool = False,
    dots: bool = True,
) -> None:
    """One line for each of `series`, from zero up: flat data looks flat."""

    def place(x: float) -> float:
        return math.log10(x) if log_x else x

    top = max(y for points in series.values() for _, y in points)
    chart = pygal.XY(
        **_COMMON,
        title=title,
        x_title=x_title,
        y_title=y_title,
        height=420,
        range=(0, top * 1.05),
        show_dots=dots,
        dots_size=3,
        x_value_formatter=lambda x: f"{round(10**x if log_x else x, 3):,.10g}",
        legend_at_bottom_columns=min(_LEGEND_COLUMNS, len(series)),
    )
    if log_x:
        chart.x_labels = sorted({place(x) for points in series.values() for x, _ in points})
    for name, points in series.items():
        chart.add(name, [(place(x), y) for x, y in points])
    _write(chart, path)


def bars(path: Path, title: str, x_title: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    """A group of bars for each of `groups`, with one bar for each name in any of them."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    chart = pygal.HorizontalBar(
        **_COMMON,
        title=title,
        x_title=x_title,
        height=140 + 26 * sum(map(len, groups.values())) + 30 * len(groups),
        show_legend=len(names) > 1,
        legend_at_bottom_columns=min(_LEGEND_COLUMNS, len(names)),
        print_values=True,
        print_values_position="top",
        value_formatter=lambda value: f"{value:,.3g}",
    )
    chart.x_labels = list(groups)
    for name in names:
        chart.add(name, [group.get(name) for group in groups.values()])
    _write(chart, path)


def _write(chart: pygal.Graph, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.render_to_file(str(path))
