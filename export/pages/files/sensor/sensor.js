// The page: a recording is played on the left, what goes on in its last window is told on the right.

import { colour, openChart } from "./chart.js";
import { argmax } from "./model.js";
import { $, ask, bundle, closeToPython, element, inTurn, page, parted, showAnswers, sizeOf, start, unpack } from "./page.js";

const { labels, recording } = bundle;
const { window: samplesOfWindow, hop, hertz, channels, truth, cuts } = recording;
const [, count] = bundle.input.shape;
const signal = unpack("float32", recording.signal);
const chart = openChart($("chart"), { ...recording, signal, count }, labels);
const USUAL_HERTZ = 50;

let at = 0; // samples that were played
let told = []; // of every window that was heard: {from, to, label}, the hop that it ends with
let playing = null; // the animation that runs

// Windows begin every `hop` samples, as those that the model learnt from.
const windows = [];
for (let end = samplesOfWindow; end <= chart.samples; end += hop) windows.push(end);

const show = () => {
  chart.draw(told, at);
  const seconds = (samples) => (hertz ? `${(samples / hertz).toFixed(1)} s` : `${samples} samples`);
  $("clock").textContent = `${seconds(at)} of ${seconds(chart.samples)}`;
  const whole = told.filter(({ from, to, within }) => within && to > from);
  const right = whole.filter(({ to, label }) => truth[to - 1] === label).length;
  $("right").textContent = whole.length
    ? `${right} of ${whole.length} windows of one activity were told right. Where the recording goes on elsewhere (dashed) a window holds two.`
    : "";
  page.windows = told.length;
};

const hear = async (end) => {
  const from = end - samplesOfWindow;
  const values = await ask(signal.slice(from * count, end * count));
  const label = argmax(values);
  const begin = told.length ? end - hop : from; // the first window is all there is
  told.push({ from: begin, to: end, label, within: !cuts.some((cut) => cut > from && cut < end) });
  return values;
};

/** Hears every window that ends at or before `until`, in order. */
const hearUntil = async (until) => {
  let values = null;
  while (told.length < windows.length && windows[told.length] <= until) values = await hear(windows[told.length]);
  if (values) showAnswers(values, labels);
};

const stop = () => {
  cancelAnimationFrame(playing);
  playing = null;
  page.playing = "no";
  $("play").textContent = at >= chart.samples ? "Replay" : "Play";
  $("answers").ariaLive = "polite";
};

const moveTo = async (sample) => {
  at = sample;
  const heard = windows.filter((end) => end <= at).length;
  if (heard < told.length) told = told.slice(0, heard);
  await hearUntil(at);
  show();
};

const play = () => {
  if (at >= chart.samples) [at, told] = [0, []];
  page.playing = "yes";
  $("play").textContent = "Pause";
  $("answers").ariaLive = "off"; // ten announcements a second help nobody
  let before = performance.now();
  const step = (now) => {
    const samples = (hertz ?? USUAL_HERTZ) * Number($("speed").value) * ((now - before) / 1000);
    before = now;
    inTurn(async () => {
      if (!playing) return;
      await moveTo(Math.min(chart.samples, at + samples));
      if (at >= chart.samples || page.state === "failed") stop();
      else playing = requestAnimationFrame(step);
    });
  };
  playing = requestAnimationFrame(step);
};

$("play").onclick = () => (playing ? stop() : play());
$("all").onclick = () => {
  stop();
  inTurn(async () => {
    await moveTo(chart.samples);
    stop();
  });
};
$("chart").onpointerdown = (event) => {
  if (page.state !== "ready") return;
  stop();
  const sample = chart.sampleAt(event.clientX - $("chart").getBoundingClientRect().left);
  inTurn(() => moveTo(sample));
};
$("chart").onkeydown = (event) => {
  const by = { ArrowLeft: -hop, ArrowRight: hop }[event.key];
  if (!by || page.state !== "ready") return;
  event.preventDefault();
  stop();
  inTurn(() => moveTo(Math.min(chart.samples, Math.max(0, at + by))));
};
addEventListener("resize", show);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);

const legend = (text, className, mark) => {
  const item = element("li", {}, element("i", { className }), text);
  item.firstChild.style.background = mark;
  return item;
};
$("legend").replaceChildren(
  ...labels.map((label, i) => legend(label, "class", colour(i))),
  ...channels.map(({ name, unit }, i) => {
    const place = channels.slice(0, i).filter((other) => other.unit === unit).length;
    return legend(name, "curve", `var(--curve-${place % 3})`);
  }),
);

show();
await start({
  golden: { examples: parted(unpack("float32", bundle.golden.examples), sizeOf(bundle.input.shape)), same: closeToPython },
  again: async () => {
    // Another recipe hears again what was heard.
    told = [];
    await moveTo(at);
  },
  controls: ["play", "all", "speed"],
});
