"""Line charts as SVG, written by hand so that they need no library, stay small, and read well on a
light and on a dark page: colours follow the reader's preference, text is text."""

import math
from html import escape

WIDTH, HEIGHT = 780, 400
LEFT, RIGHT, TOP, BOTTOM = 78, 215, 44, 52

# (on light, on dark), told apart by people who see colours otherwise, too (after Okabe and Ito).
COLOURS = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff9440"),
    ("#007a5a", "#2cc79c"),
    ("#a8437f", "#e08fc0"),
    ("#8a6d00", "#e6c229"),
    ("#555555", "#bbbbbb"),
    ("#5a3fc0", "#a795ff"),
    ("#b00020", "#ff6b81"),
]
DASHES = ["", "6 3", "2 3", "9 3 2 3"]


def style():
    light, dark = [], []
    for i, (on_light, on_dark) in enumerate(COLOURS):
        for sheet, colour in ((light, on_light), (dark, on_dark)):
            sheet.append(f".c{i}{{stroke:{colour};fill:{colour}}}")
    common = (
        "text{font:12px system-ui,sans-serif;fill:#222}.title{font-size:14px;font-weight:600}"
        ".grid{stroke:#8884;stroke-width:1}.axis{stroke:#888}.line{fill:none!important;stroke-width:2}"
        ".spread{stroke-width:1;opacity:.55}.label{stroke:none!important}"
    )
    dark_text = "text{fill:#ddd}"
    media = "@media(prefers-color-scheme:dark){" + dark_text + "".join(dark) + "}"
    return "<style>" + common + "".join(light) + media + "</style>"


def short(value):
    """A number as on an axis: 1 M, 250 k, 0.5."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def linear_ticks(top):
    """Round numbers from 0 to the first one that is not below `top`."""
    if top <= 0:
        return [0, 1]
    step = 10 ** math.floor(math.log10(top))
    step = next(s for s in (step / 5, step / 2, step, step * 2) if top / s <= 6)
    return [i * step for i in range(math.ceil(top / step - 1e-9) + 1)]


def log_ticks(least, most):
    """Powers of ten around the values."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**e for e in range(first, max(last, first + 1) + 1)]


def chart(title, x_label, y_label, series, log_x=True, log_y=False, x_ticks=None):
    """`series`: (name, [(x, median, least, greatest), …]) each; those without points are left out."""
    series = [(name, sorted(points)) for name, points in series if points]
    if not series:
        return None
    xs = [p[0] for _, points in series for p in points]
    ys = [y for _, points in series for p in points for y in p[1:]]
    x_ticks = x_ticks or (sorted(set(xs)) if log_x else linear_ticks(max(xs)))
    y_ticks = log_ticks(min(y for y in ys if y > 0), max(ys)) if log_y else linear_ticks(max(ys))
    x0, x1, y0, y1 = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, TOP

    def scale(value, ticks, start, end, log):
        low, high = ticks[0], ticks[-1]
        if log:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        return start + (end - start) * ((value - low) / (high - low) if high > low else 0.5)

    def x_of(value):
        # A little room at both ends, so that points do not stand on the axis.
        return scale(value, x_ticks, x0 + 16, x1 - 16, log_x)

    def y_of(value):
        return scale(value, y_ticks, y0, y1, log_y)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        style(),
        f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>',
    ]
    for tick in y_ticks:
        y = y_of(tick)
        out.append(f'<line class="grid" x1="{x0}" x2="{x1}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text x="{x0 - 8}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>')
    for tick in x_ticks:
        x = x_of(tick)
        out.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{y0}" y2="{y0 + 5}"/>')
        out.append(f'<text x="{x:.1f}" y="{y0 + 20}" text-anchor="middle">{short(tick)}</text>')
    out.append(f'<line class="axis" x1="{x0}" x2="{x1}" y1="{y0}" y2="{y0}"/>')
    out.append(f'<text x="{(x0 + x1) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>')
    middle = (y0 + y1) / 2
    out.append(
        f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    labels = []
    for i, (name, points) in enumerate(series):
        colour, dash = f"c{i % len(COLOURS)}", DASHES[i // len(COLOURS) % len(DASHES)]
        path = " ".join(f"{x_of(p[0]):.1f},{y_of(p[1]):.1f}" for p in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        out.append(f'<polyline class="{colour} line" points="{path}"{dashes}/>')
        for x, median, least, most in points:
            px = x_of(x)
            out.append(
                f'<line class="{colour} spread" x1="{px:.1f}" x2="{px:.1f}" '
                f'y1="{y_of(least):.1f}" y2="{y_of(most):.1f}"/>'
                f'<circle class="{colour}" cx="{px:.1f}" cy="{y_of(median):.1f}" r="3"/>'
            )
        labels.append([y_of(points[-1][1]), name, colour])
    for y, name, colour in spread_out(labels, y1, y0):
        out.append(f'<text class="{colour} label" x="{x1 + 8}" y="{y + 4:.1f}">{escape(name)}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def spread_out(labels, top, bottom, gap=15):
    """Moves labels that would lie on each other apart, keeping their order and the chart's height."""
    labels.sort(key=lambda label: label[0])
    for i, label in enumerate(labels):
        label[0] = max(label[0], labels[i - 1][0] + gap if i else top)
    floor = bottom
    for label in reversed(labels):
        label[0] = min(label[0], floor)
        floor = label[0] - gap
    return labels
