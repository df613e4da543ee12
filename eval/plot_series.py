"""Draw time per token and resident memory of endless streams: SERIES.csv... -> OUT.svg.

    python3 eval/plot_series.py OUT.svg SERIES.csv...

Lines of a series: name,tokens,ms per token,resident KiB, as test_loop_endless (EIDETIC_ENDLESS_SERIES)
and test_loop_lived (EIDETIC_LIVED_SERIES) write them.
"""

import collections
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 260, 74, 120, 30, 44
COLOURS = ["#1f6fb4", "#c44e1c", "#2f8f4e", "#7b4fa3"]


def read(paths):
    """{name: [(tokens, ms, MiB)]} in the order of their first lines."""
    series = collections.OrderedDict()
    for path in paths:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                parts = line.strip().split(",")
                if len(parts) != 4:
                    sys.exit(f"{path}:{number}: not name,tokens,ms,KiB")
                name, tokens, ms, kib = parts
                row = (int(tokens), float(ms), int(kib) / 1024)
                series.setdefault(name, []).append(row)
    return series


def panel(series, column, title, top):
    """SVG of one panel, column 1 or 2 of the rows over their tokens."""
    x_max = max(row[0] for rows in series.values() for row in rows)
    y_max = 1.1 * max(row[column] for rows in series.values() for row in rows)
    x_scale = (WIDTH - LEFT - RIGHT) / x_max
    y_scale = (HEIGHT - TOP - BOTTOM) / y_max
    base = top + HEIGHT - BOTTOM
    out = [f'<text x="{LEFT}" y="{top + 18}" font-weight="bold">{title}</text>']
    for step in range(5):
        y, x = base - step / 4 * y_max * y_scale, LEFT + step / 4 * x_max * x_scale
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
                   f'{step / 4 * y_max:.3g}</text>')
        out.append(f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">'
                   f'{step / 4 * x_max:,.0f}</text>')
    for colour, (name, rows) in zip(COLOURS, series.items()):
        points = [(LEFT + row[0] * x_scale, base - row[column] * y_scale) for row in rows]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in points]
        x, y = points[-1]
        out.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" fill="{colour}">{name}</text>')
    return out


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    series = read(sys.argv[2:])
    if not series or len(series) > len(COLOURS):
        sys.exit(f"1 to {len(COLOURS)} series, not {len(series)}")
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {2 * HEIGHT}" '
           'font-family="sans-serif" font-size="13">',
           "<title>Endless streams: time per token and resident memory</title>",
           f'<rect width="{WIDTH}" height="{2 * HEIGHT}" fill="#fff"/>']
    out += panel(series, 1, "CPU milliseconds per token, over tokens of the stream", 0)
    out += panel(series, 2, "Resident memory (MiB), over tokens of the stream", HEIGHT)
    out.append("</svg>")
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
