// A small line chart over time, in SVG: one line for each series, with the newest values as words.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 80;

export class Chart {
  #samples = [];
  #series;
  #span;
  #format;
  #base;
  #lines = [];
  #values = [];
  #top;
  #at;

  /**
   * `series` are the lines' names, `span` is how many milliseconds are shown, `format` puts a value into words whose units
   * are `base` times each other.
   */
  constructor({ title, series, span, format, base = 1000 }) {
    this.element = part("figure", "card chart");
    this.#base = base;
    this.#series = series;
    this.#span = span;
    this.#format = format;
    const caption = part("figcaption", "chart-title", title);
    this.#top = part("span", "chart-top");
    this.#at = part("span", "chart-at");
    caption.append(this.#at);
    this.element.append(caption, this.#plot(), this.#legend());
  }

  /** One more moment: milliseconds, and a value for each series; `undefined` where nothing is known. */
  add(time, values) {
    this.#samples.push({ time, values });
    while (this.#samples[0].time < time - this.#span) this.#samples.shift();
    this.#draw();
  }

  clear() {
    this.#samples = [];
    this.#draw();
  }

  #plot() {
    const plot = part("div", "chart-plot");
    const svg = document.createElementNS(SVG, "svg");
    // The words beside it say the same.
    set(svg, { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    for (const y of [1, HEIGHT / 2, HEIGHT - 1]) svg.append(line("chart-grid", `0,${y} ${WIDTH},${y}`));
    this.#lines = this.#series.map((_, index) => line(`chart-line series-${index}`, ""));
    svg.append(...this.#lines);
    svg.addEventListener("pointermove", ({ offsetX }) => this.#show(offsetX / svg.clientWidth));
    svg.addEventListener("pointerleave", () => this.#show());
    plot.append(svg, this.#top);
    return plot;
  }

  #legend() {
    const legend = part("dl", "chart-legend");
    this.#series.forEach((name, index) => {
      const value = part("dd", "", "–");
      const entry = part("div", `series-${index}`);
      entry.append(part("dt", "", name), value);
      legend.append(entry);
      this.#values.push(value);
    });
    return legend;
  }

  #draw() {
    const known = this.#samples.flatMap(({ values }) => values).filter(Number.isFinite);
    const top = ceiling(Math.max(0, ...known), this.#base);
    const end = this.#samples.at(-1)?.time ?? 0;
    this.#top.textContent = this.#format(top);
    this.#lines.forEach((line, index) => {
      const points = this.#samples
        .filter(({ values }) => Number.isFinite(values[index]))
        .map(({ time, values }) => {
          const x = WIDTH * (1 - (end - time) / this.#span);
          const y = HEIGHT - 1 - (HEIGHT - 2) * (values[index] / top);
          return `${x.toFixed(1)},${y.toFixed(1)}`;
        });
      line.setAttribute("points", points.join(" "));
    });
    this.#show();
  }

  /** The values at a place between 0, the left edge, and 1; without one, the newest. */
  #show(place) {
    const end = this.#samples.at(-1)?.time ?? 0;
    const wanted = end - this.#span * (1 - (place ?? 1));
    const distance = ({ time }) => Math.abs(time - wanted);
    const nearest = this.#samples.reduce((a, b) => (a && distance(a) < distance(b) ? a : b), undefined);
    this.#at.textContent = place === undefined || !nearest ? "" : new Date(nearest.time).toLocaleTimeString();
    this.#values.forEach((shown, index) => {
      const value = nearest?.values[index];
      shown.textContent = Number.isFinite(value) ? this.#format(value) : "–";
    });
  }
}

/** The next of 1, 2, 5, 10, 20, ... of its unit that is no less; never 0, which nothing can be drawn against. */
function ceiling(value, base) {
  if (value <= 1) return 1;
  const unit = base ** Math.floor(Math.log(value) / Math.log(base));
  const power = 10 ** Math.floor(Math.log10(value / unit));
  return [1, 2, 5, 10].map((step) => step * power * unit).find((step) => step >= value) ?? value;
}

function line(name, points) {
  const line = document.createElementNS(SVG, "polyline");
  set(line, { class: name, points });
  return line;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

/** An element with this class and text. */
export function part(tag, name = "", text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  return element;
}
