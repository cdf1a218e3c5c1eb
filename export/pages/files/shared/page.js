// What all pages have: the bundle's description, answers with bars, latency, recipes, and the check against Python.

import { best, openModel } from "./model.js";

const MEDIAN_OF = 30;
const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

export const $ = (id) => document.getElementById(id);
export const page = document.body.dataset;
export const bundle = await (await fetch("/bundle.json")).json();

/** Returns the typed array that base64 holds the little-endian bytes of. */
export const unpack = (dtype, base64) =>
  new ARRAYS[dtype](Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)).buffer);

/** Returns an array in parts of `size`. */
export const parted = (array, size) =>
  Array.from({ length: array.length / size }, (_, i) => array.slice(i * size, (i + 1) * size));

export const sizeOf = (shape) => shape.reduce((product, side) => product * side, 1);

export const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

export const say = (text) => {
  $("notice").textContent = text;
  $("notice").hidden = !text;
};

export const percent = (value) => `${(100 * value).toFixed(1)} %`;

const scored = (value) => (bundle.share ? percent(value) : value.toFixed(3));

const kilobytes = (bytes) => (bytes < 999_500 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

/** Shows the three likeliest of `names` with their shares, and counts that in `data-answered`. */
export const showAnswers = (probabilities, names) => {
  $("answers").replaceChildren(
    ...best(probabilities, 3).map((i) => {
      const fill = element("i");
      fill.style.width = percent(probabilities[i]).replace(" ", "");
      return element(
        "li",
        {},
        element("span", { className: "name", textContent: names[i] }),
        element("span", { className: "share", textContent: percent(probabilities[i]) }),
        element("span", { className: "bar", ariaHidden: "true" }, fill),
      );
    }),
  );
  page.answered = Number(page.answered) + 1;
};

// ---- one model at a time -----------------------------------------------------------------------------------------

let model = null; // of the chosen recipe
let latencies = [];
let switching = Promise.resolve();

export const forgetLatencies = () => (latencies = []);
export const knowsLatency = () => latencies.length >= MEDIAN_OF;

const showLatency = (milliseconds) => {
  latencies = [...latencies, milliseconds].slice(-MEDIAN_OF);
  const median = latencies.toSorted((a, b) => a - b)[Math.floor(latencies.length / 2)];
  $("latency").textContent = `${median < 10 ? median.toFixed(2) : median.toFixed(0)} ms`;
  $("runs").textContent = latencies.length === 1 ? "one run" : `median of ${latencies.length}`;
};

/** The compiled model itself, to see whether it is still the same one. */
export const current = () => model;

/** Runs the chosen recipe on one example and returns its values. */
export const ask = async (example) => {
  const { values, milliseconds } = await model.run(example);
  showLatency(milliseconds);
  return values;
};

const fail = (error) => {
  page.state = "failed";
  say(`This browser cannot run the model: ${error?.message ?? error}`);
};

/** One thing at a time: a recipe that is being closed must not be running an example. */
export const inTurn = (work) => (switching = switching.then(work).catch(fail));

// ---- recipes -----------------------------------------------------------------------------------------------------

/** Replays the bundle's golden examples: the same answers as Python found when it was exported? */
const checkGolden = async (variant, golden) => {
  let same = 0;
  for (const [i, example] of golden.examples.entries()) same += golden.same((await model.run(example)).values, variant, i);
  $("check").textContent = `${same} of ${golden.examples.length}`;
  $("check").className = same === golden.examples.length ? "good" : "bad";
};

const useRecipe = (variant, golden, again) =>
  inTurn(async () => {
    if (page.state === "failed") say("");
    page.state = "loading";
    const next = await openModel(variant, bundle.input);
    model?.close();
    model = next;
    latencies = [];
    await checkGolden(variant, golden);
    await again();
    page.recipe = variant.recipe;
    page.state = "ready";
  });

const showRecipes = (chosen, use) => {
  $("held-out").textContent = `${bundle.score} on ${bundle.heldOut} held-out examples, file size`;
  for (const variant of bundle.variants) {
    const radio = element("input", { type: "radio", name: "recipe", value: variant.recipe });
    radio.checked = variant === chosen;
    radio.onchange = () => use(variant);
    $("recipes").append(
      element(
        "label",
        {},
        radio,
        element("span", { className: "title", textContent: variant.recipe }),
        element("span", { className: "accuracy", textContent: scored(variant.accuracy) }),
        element("span", { className: "size", textContent: kilobytes(variant.bytes) }),
        element("span", { className: "more", textContent: variant.suits }),
      ),
    );
  }
};

/** Answers within the bundle's tolerance of Python's, wherever the model answers something. */
export const closeToPython = (values, variant, i) => {
  variant.expected ??= parted(unpack("float32", variant.values), values.length);
  return variant.expected[i].every((value, j) => Math.abs(value - values[j]) <= variant.tolerance);
};

/**
 * Opens the first recipe, or the one that `?recipe=` names.
 *
 * `golden` has the `examples` of the bundle and says which answers are the `same` as Python's; `again` is called
 * whenever another recipe was opened; `controls` are what can be used once there is one.
 */
export const start = async ({ golden, again, controls }) => {
  $("about").textContent = `Bundle ${bundle.name}, weights ${bundle.weights.slice(0, 12)}, checked before it was served. `
    + "LiteRT.js on the CPU; its latency here says nothing about a phone.";
  document.title = `${bundle.name} · ${document.title}`;
  const wanted = new URLSearchParams(location.search).get("recipe");
  const first = bundle.variants.find((variant) => variant.recipe === wanted) ?? bundle.variants[0];
  showRecipes(first, (variant) => useRecipe(variant, golden, again));
  await useRecipe(first, golden, again);
  if (page.state === "ready") for (const id of ["recipes", ...controls]) $(id).disabled = false;
};
