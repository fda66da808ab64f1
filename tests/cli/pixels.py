"""What a clip of the embedded model shows, by plain arithmetic on its pixels: the object's colour, the background, the
motion. The colours and scenes are those that the model was trained on (models/tiny-wan/README.md)."""

COLORS = {
    "red": (0.90, 0.10, 0.10), "orange": (1.00, 0.55, 0.05), "yellow": (0.98, 0.90, 0.10), "green": (0.10, 0.68, 0.20),
    "cyan": (0.10, 0.85, 0.90), "blue": (0.12, 0.25, 0.92), "purple": (0.52, 0.14, 0.75), "pink": (1.00, 0.50, 0.75),
    "white": (0.97, 0.97, 0.97), "black": (0.06, 0.06, 0.06), "gray": (0.55, 0.55, 0.55),
}
# Colours at the top, a little below the middle, and at the bottom.
BACKGROUNDS = {name: (color, color, color) for name, color in COLORS.items()}
BACKGROUNDS.update({
    "night": ((0.03, 0.03, 0.11), (0.07, 0.06, 0.21), (0.10, 0.09, 0.29)),
    "sunset": ((0.40, 0.18, 0.43), (0.99, 0.52, 0.31), (0.22, 0.10, 0.20)),
    "sea": ((0.56, 0.79, 0.98), (0.12, 0.41, 0.67), (0.04, 0.25, 0.52)),
    "grass": ((0.53, 0.77, 0.98), (0.32, 0.63, 0.20), (0.18, 0.50, 0.13)),
})
BANDS = ((0.0, 0.14), (0.50, 0.64), (0.88, 1.0))
EDGE = 3          # columns at each side that show only background
STEP = 3          # every third row and column is looked at
UNLIKE = 0.22     # distance from which a pixel is not background
MOVED, STOOD = 0.08, 0.05  # of the picture's side, over a clip of 9 frames
MIN_AREA = 8      # looked-at pixels


def distance(a, b):
    return ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2) ** 0.5


def nearest(color, table):
    return min(table, key=lambda name: distance(color, table[name]))


class Clip:
    """values: frames * height * width * 3 numbers from 0 to 1."""

    def __init__(self, values, frames, height, width):
        self.values, self.frames, self.height, self.width = values, frames, height, width

    def pixel(self, frame, y, x):
        at = ((frame * self.height + y) * self.width + x) * 3
        return self.values[at:at + 3]

    def side(self, y):
        """The usual colours of row y at both edges."""
        columns = [*range(EDGE), *range(self.width - EDGE, self.width)]
        out = []
        for x in columns:
            seen = [self.pixel(f, y, x) for f in range(self.frames)]
            out.append([sorted(p[c] for p in seen)[self.frames // 2] for c in range(3)])
        return out

    def background(self):
        means = []
        for low, high in BANDS:
            pixels = [p for y in range(int(low * self.height), int(high * self.height)) for p in self.side(y)]
            means.append([sum(p[c] for p in pixels) / len(pixels) for c in range(3)])
        return min(BACKGROUNDS, key=lambda name: sum(distance(a, b) for a, b in zip(means, BACKGROUNDS[name])))

    def objects(self):
        """Per frame, the looked-at pixels unlike the edges at about their height: (x, y, nearest colour)."""
        reach, sides = self.height // 10, {y: self.side(y)[1::3] for y in range(0, self.height, STEP)}
        found = []
        for frame in range(self.frames):
            pixels = []
            for y in range(0, self.height, STEP):
                near = [p for other in sides if abs(other - y) <= reach for p in sides[other]]
                for x in range(0, self.width, STEP):
                    color = self.pixel(frame, y, x)
                    if all(distance(color, p) > UNLIKE for p in near):
                        pixels.append((x / self.width, y / self.height, nearest(color, COLORS)))
            found.append(pixels)
        return found

    def describe(self):
        """{"color", "background", "motion"}; None for what cannot be told."""
        seen = {"background": self.background(), "color": None, "motion": None}
        objects = self.objects()
        votes = [color for pixels in objects for _, _, color in pixels]
        if not votes:
            return seen
        color = max(sorted(set(votes)), key=votes.count)
        centres = []
        for pixels in objects:
            own = [(x, y) for x, y, c in pixels if c == color]
            if len(own) < MIN_AREA:
                return seen
            centres.append((sum(x for x, _ in own) / len(own), sum(y for _, y in own) / len(own)))
        seen["color"] = color
        dx, dy = centres[-1][0] - centres[0][0], centres[-1][1] - centres[0][1]
        if max(abs(dx), abs(dy)) < STOOD:
            seen["motion"] = "still"
        elif max(abs(dx), abs(dy)) > MOVED and abs(dx) > 2 * abs(dy):
            seen["motion"] = "left" if dx < 0 else "right"
        elif max(abs(dx), abs(dy)) > MOVED and abs(dy) > 2 * abs(dx):
            seen["motion"] = "up" if dy < 0 else "down"
        return seen
