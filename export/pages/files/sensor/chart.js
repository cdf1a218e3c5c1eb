// The strip chart: curves of every unit's channels, below them what was so and what the model told.

const BAND = 22; // height of a row of labels
const GAP = 12;
const LEFT = 46; // names of rows and units

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Returns the colour of class or channel `i`. */
export const colour = (i) => style(`--class-${i % 8}`);

/** Returns the channels by unit, in order: [{unit, channels: [index …]} …]. */
const panelsOf = (channels, count) => {
  const units = Array.from({ length: count }, (_, i) => channels[i]?.unit ?? "");
  return [...new Set(units)].map((unit) => ({ unit, channels: units.flatMap((own, i) => (own === unit ? [i] : [])) }));
};

export const openChart = (canvas, { signal, count, channels, truth, cuts, window, hertz }, labels) => {
  const samples = signal.length / count;
  const panels = panelsOf(channels, count);
  const pen = canvas.getContext("2d");
  let width = 0;
  let height = 0;

  const x = (sample) => LEFT + ((width - LEFT) * sample) / samples;

  const drawPanel = ({ unit, channels: drawn }, top, tall) => {
    let [low, high] = [Infinity, -Infinity];
    for (const channel of drawn) {
      for (let i = channel; i < signal.length; i += count) {
        low = Math.min(low, signal[i]);
        high = Math.max(high, signal[i]);
      }
    }
    const y = (value) => top + tall - ((value - low) / (high - low || 1)) * tall;
    pen.fillStyle = style("--soft");
    pen.textAlign = "right";
    pen.textBaseline = "top";
    pen.fillText(high.toPrecision(2), LEFT - 6, top);
    pen.textBaseline = "bottom";
    pen.fillText(low.toPrecision(2), LEFT - 6, top + tall);
    pen.textBaseline = "middle";
    pen.fillText(unit, LEFT - 6, top + tall / 2);
    const perPixel = samples / (width - LEFT);
    for (const [place, channel] of drawn.entries()) {
      pen.strokeStyle = style(`--curve-${place % 3}`);
      pen.setLineDash([]);
      pen.lineWidth = 1.2;
      pen.beginPath();
      for (let column = 0; column < width - LEFT; column++) {
        // Least and largest of what falls on one column: peaks of ten samples are not skipped.
        let [least, most] = [Infinity, -Infinity];
        const end = Math.max(Math.floor((column + 1) * perPixel), Math.floor(column * perPixel) + 1);
        for (let i = Math.floor(column * perPixel); i < Math.min(end, samples); i++) {
          least = Math.min(least, signal[i * count + channel]);
          most = Math.max(most, signal[i * count + channel]);
        }
        if (least > most) continue;
        pen.lineTo(LEFT + column, y(most));
        if (least < most) pen.lineTo(LEFT + column, y(least));
      }
      pen.stroke();
    }
  };

  /** Draws one row of labels: [{from, to, label} …] in samples. */
  const drawRow = (name, parts, top) => {
    pen.fillStyle = style("--soft");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillText(name, LEFT - 6, top + BAND / 2);
    pen.fillStyle = style("--track");
    pen.fillRect(LEFT, top, width - LEFT, BAND);
    pen.textAlign = "left";
    for (const { from, to, label } of parts) {
      pen.fillStyle = colour(label);
      pen.fillRect(x(from), top, Math.max(1, x(to) - x(from) - 0.5), BAND);
      const wide = x(to) - x(from) - 10;
      if (pen.measureText(labels[label]).width <= wide) {
        pen.fillStyle = "#10161a";
        pen.fillText(labels[label], x(from) + 5, top + BAND / 2 + 0.5);
      }
    }
  };

  const runs = (labelled) => {
    const found = [];
    for (const part of labelled) {
      const last = found.at(-1);
      if (last && last.label === part.label && last.to === part.from) last.to = part.to;
      else found.push({ ...part });
    }
    return found;
  };

  const truths = runs(Array.from(truth, (label, i) => ({ from: i, to: i + 1, label })));

  /** `told` are parts with labels, `at` the sample up to which was played. */
  const draw = (told, at) => {
    const ratio = devicePixelRatio || 1;
    const box = canvas.getBoundingClientRect();
    [width, height] = [box.width, box.height];
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.font = "12px system-ui, sans-serif";
    const bottom = height - 2 * BAND - 2 * GAP - 16;
    const tall = (bottom - GAP * (panels.length - 1)) / panels.length;
    for (const [i, panel] of panels.entries()) drawPanel(panel, i * (tall + GAP), tall);
    drawRow("truth", truths, bottom + GAP);
    drawRow("told", runs(told), bottom + GAP + BAND + 4);
    pen.setLineDash([3, 3]);
    pen.strokeStyle = style("--line");
    for (const cut of cuts) {
      pen.beginPath();
      pen.moveTo(x(cut), 0);
      pen.lineTo(x(cut), bottom);
      pen.stroke();
    }
    pen.setLineDash([]);
    pen.fillStyle = style("--window");
    pen.fillRect(x(Math.max(0, at - window)), 0, x(at) - x(Math.max(0, at - window)), bottom);
    pen.fillStyle = style("--accent");
    pen.fillRect(x(at) - 1, 0, 2, height - 16);
    pen.fillStyle = style("--soft");
    pen.textBaseline = "bottom";
    for (let i = 0; i <= 3; i++) {
      pen.textAlign = ["left", "center", "center", "right"][i];
      const sample = (samples * i) / 3;
      pen.fillText(hertz ? `${(sample / hertz).toFixed(0)} s` : sample.toFixed(0), x(sample), height);
    }
  };

  /** Returns the sample under a place of the canvas, in pixels from its left. */
  const sampleAt = (left) => Math.min(samples, Math.max(0, Math.round(((left - LEFT) / (width - LEFT)) * samples)));

  return { draw, sampleAt, samples };
};
